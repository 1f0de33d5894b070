//! What a request asks for: the first look at it, before any route or credential.
//!
//! One normal form of the path is made here. It is matched, it is decided on, and it is what the upstream gets.

use http::{Method, Version, header::HOST};
use pingora::{
    http::RequestHeader,
    protocols::http::authority::{RawTargetAuthority, raw_target_authority},
};

use crate::model::{decision::Denial, endpoint::Origin, path::RequestTarget};

/// The parts of a request that decide where it goes. Borrowed from its header.
pub struct Target<'a> {
    /// Path and query in their normal form.
    pub target: RequestTarget<'a>,
    /// The host it asked for, without a port; lower case only if the client wrote it so.
    pub host: &'a str,
    /// The origin, if it was sent in absolute form, as a forward proxy gets it (RFC 9112 §3.2.2).
    pub forward_origin: Option<Origin>,
}

/// Refuses what no route should ever see.
///
/// # Errors
/// [`Denial::BadRequest`] with the reason.
pub fn screen(header: &RequestHeader, max_header_bytes: usize) -> Result<Target<'_>, Denial> {
    if header_bytes(header) > max_header_bytes {
        return Err(Denial::BadRequest("header_too_large"));
    }
    if header.method == Method::TRACE {
        return Err(Denial::BadRequest("method_not_allowed"));
    }
    let raw = header.raw_path();
    let (origin, path_and_query) = match raw_target_authority(raw) {
        RawTargetAuthority::None => (None, raw),
        RawTargetAuthority::Absolute { scheme, authority, path_and_query } => {
            (Some(forward_origin(scheme, authority)?), path_and_query)
        }
        RawTargetAuthority::AmbiguousAuthority => return Err(Denial::BadRequest("ambiguous_target")),
    };
    // RFC 9110 §4.2.3: an absolute form without a path means the root.
    let path_and_query = match path_and_query.first() {
        None => b"/".as_slice(),
        Some(_) => path_and_query,
    };
    let target = RequestTarget::parse(path_and_query).map_err(|error| Denial::BadRequest(error.reason()))?;
    let host = host(header).ok_or(Denial::BadRequest("no_host"))?;
    Ok(Target { target, host, forward_origin: origin })
}

/// Path and query as they arrived, which is what a client signs.
#[must_use]
pub fn sent_target(header: &RequestHeader) -> &[u8] {
    match raw_target_authority(header.raw_path()) {
        RawTargetAuthority::Absolute { path_and_query, .. } => path_and_query,
        RawTargetAuthority::None | RawTargetAuthority::AmbiguousAuthority => header.raw_path(),
    }
}

/// Whether a header asks for just this path and query already, and for no other host than its `Host` field says: then its
/// target need not be parsed again.
#[must_use]
pub fn asks_for(header: &RequestHeader, path_and_query: &str) -> bool {
    header.uri.authority().is_none() && header.raw_path() == path_and_query.as_bytes()
}

/// The size of the head as it counts for limits, in bytes. Pingora's own limit is 1 MiB.
fn header_bytes(header: &RequestHeader) -> usize {
    let fields = header.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    fields.fold(header.raw_path().len(), usize::saturating_add)
}

fn forward_origin(scheme: &[u8], authority: &[u8]) -> Result<Origin, Denial> {
    let refused = Denial::BadRequest("unusable_origin");
    let texts = (std::str::from_utf8(scheme), std::str::from_utf8(authority));
    let (Ok(scheme), Ok(authority)) = texts else { return Err(refused) };
    format!("{scheme}://{authority}").parse().map_err(|_| refused)
}

/// The host asked for, without a port. HTTP/2 says it in `:authority`; HTTP/1.1 must say it in `Host`; an HTTP/1.0
/// request may leave it out, and then asks for no host at all (the replaced system took a piece of the path for it,
/// nevermined.md section 5.4).
fn host(header: &RequestHeader) -> Option<&str> {
    let authority = match authority(header) {
        Some(authority) => authority,
        None if header.version == Version::HTTP_10 && !header.headers.contains_key(HOST) => return Some(""),
        None => return None,
    };
    Some(without_port(authority))
}

/// Host and port as the client wrote them.
#[must_use]
pub fn authority(header: &RequestHeader) -> Option<&str> {
    let pseudo_field = header.uri.authority().map(http::uri::Authority::as_str);
    pseudo_field.or_else(|| header.headers.get(HOST)?.to_str().ok())
}

/// `example.com:80` → `example.com`, `[::1]:80` → `::1`.
fn without_port(authority: &str) -> &str {
    if let Some((address, _)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    authority.split_once(':').map_or(authority, |(host, _)| host).trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        header.set_raw_path(target.as_bytes()).unwrap();
        for (name, value) in fields {
            header.append_header(*name, *value).unwrap();
        }
        header
    }

    #[test]
    fn requests_in_both_forms_are_understood() {
        for (target, host_field, path, host, origin) in [
            ("/a?b", "h.example:8080", "/a", "h.example", None),
            ("/a", "[::1]:80", "/a", "::1", None),
            ("http://h.example/a?b", "h.example", "/a", "h.example", Some("h.example")),
            ("http://h.example:8080/a", "h.example:8080", "/a", "h.example", Some("h.example:8080")),
            ("https://h.example", "h.example", "/", "h.example", Some("h.example")),
        ] {
            let header = header(target, &[("host", host_field)]);
            let screened = screen(&header, 1000).map_err(|denial| denial.reason());
            let screened = screened.unwrap_or_else(|reason| panic!("{target}: {reason}"));
            assert_eq!(screened.target.path.as_str(), path, "{target}");
            assert_eq!(screened.host, host, "{target}");
            assert_eq!(screened.forward_origin.as_ref().map(Origin::authority), origin, "{target}");
        }
    }

    #[test]
    fn a_target_is_left_alone_only_where_it_is_the_very_one() {
        for (sent, normal, same) in [
            ("/a?b", "/a?b", true),
            ("/a?", "/a?", true),
            ("/a?", "/a", false),
            ("/%61", "/a", false),
            ("http://h.example/a", "/a", false),
            ("http://h.example", "/", false),
        ] {
            let mut header = header(sent, &[("host", "h.example")]);
            assert_eq!(asks_for(&header, normal), same, "{sent}");
            header.set_raw_path(normal.as_bytes()).unwrap();
            assert!(asks_for(&header, normal), "{sent}");
        }
        let mut http2 = header("/a", &[]);
        http2.set_uri("https://h.example/a".parse().unwrap());
        assert!(!asks_for(&http2, "/a"));
    }

    #[test]
    fn what_no_route_should_see_is_refused() {
        for (target, fields, reason) in [
            ("/a", &[][..], "no_host"),
            (
                "/a",
                &[("host", "h"), ("x", "0123456789012345678901234567890123456789012345678901234567890123456789")],
                "header_too_large",
            ),
            ("ftp://h/a", &[("host", "h")], "unusable_origin"),
        ] {
            let header = header(target, fields);
            let refused = screen(&header, 80).err().map(|denial| denial.reason());
            assert_eq!(refused, Some(reason), "{target}");
        }
    }
}
