//! Headers on their way through: what a client may not say about itself, and what we say instead.
//!
//! Pingora has already dropped the hop-by-hop fields and whatever `Connection` names. Both functions may run more than
//! once for a request (a retry, an informational response), so they replace and never add.

use std::net::IpAddr;

use http::{HeaderValue, header};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
};

use crate::{
    model::{
        identity::{AccessToken, IdentityFields},
        secret::Secret,
    },
    telemetry,
};

/// What the upstream is told, from our own knowledge.
pub struct Told<'a> {
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Whether that address is one of the proxies whose word we take.
    pub trusted: bool,
    /// The scheme the client used with us.
    pub scheme: &'static str,
    /// `NVM-User-id`, `NVM-Scope`, `NVM-Owner` (nevermined.md section 5.2).
    pub identity: Option<&'a IdentityFields>,
    /// `X-Hotkey`: the neuron that calls, in the one spelling that there is of it.
    pub hotkey: Option<&'a str>,
    /// What our authorization server said of the caller, if an access token of it was presented.
    pub access_token: Option<&'a AccessToken>,
    /// What becomes of the client's `Authorization`.
    pub authorization: Authorization<'a>,
    /// The `Host` for the upstream; none: the client's stays.
    pub host: Option<&'a HeaderValue>,
    /// `X-Request-Id`.
    pub request_id: &'a str,
}

/// What becomes of the client's `Authorization`.
pub enum Authorization<'a> {
    /// It stays: the route asks for no credential, so it is the upstream's to read.
    Keep,
    /// It goes: it was ours to read, and the service wants none.
    Remove,
    /// The provider's takes its place.
    Replace(&'a Secret),
}

const USER_ID: &str = "NVM-User-id";
const SCOPE: &str = "NVM-Scope";
const OWNER: &str = "NVM-Owner";
const HOTKEY: &str = "X-Hotkey";
const SUBJECT: &str = "X-Auth-Subject";
const SIGNER: &str = "X-Auth-Signer";
const CLIENT: &str = "X-Auth-Client";
const SCOPE_OF_TOKEN: &str = "X-Auth-Scope";
const REAL_IP: &str = "X-Real-IP";
const FORWARDED_FOR: &str = "X-Forwarded-For";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const REQUEST_ID: &str = "X-Request-Id";
/// Spelled here, because Pingora does not know its spelling and copies the name in lower case.
const AUTHORIZATION: &str = "Authorization";

/// Fields that say who a client is or where it came from, in lower case with hyphens. A client's own are removed; some
/// are set again. `forwarded` and the rest of the family are believed only from a trusted proxy.
const OURS: [&str; 11] = [
    "nvm-user-id",
    "nvm-scope",
    "nvm-owner",
    "x-hotkey",
    "x-auth-subject",
    "x-auth-signer",
    "x-auth-client",
    "x-auth-scope",
    "x-real-ip",
    "x-request-id",
    "x-forwarded-proto",
];
const PROXIES: [&str; 7] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-forwarded-client-cert",
    "forwarded",
];
/// How proxies tell a service which certificate a client has: RFC 9440, and everything that begins like NGINX's custom.
const CERTIFICATE: [&str; 2] = ["client-cert", "client-cert-chain"];
const CERTIFICATE_FAMILY: &str = "x-client-cert";

/// Makes the client's header into ours.
///
/// # Errors
/// When a value cannot stand in a header: it is checked where it comes from, so this is a mistake of ours.
pub fn to_upstream(request: &mut RequestHeader, told: &Told<'_>) -> Result<()> {
    let forwarded_for = told.trusted.then(|| joined(request, "x-forwarded-for")).flatten();
    let forwarded_proto = told.trusted.then(|| scheme_of_proxy(request)).flatten();
    remove_spoofed(request, told.trusted);

    if let Some(client) = told.client {
        let client = value(address(client.to_canonical()))?;
        let chain = match forwarded_for {
            Some(before) => value(format!("{before}, {}", client.to_str().unwrap_or_default()).into())?,
            None => client.clone(),
        };
        request.insert_header(FORWARDED_FOR, chain)?;
        request.insert_header(REAL_IP, client)?;
    }
    request.insert_header(FORWARDED_PROTO, HeaderValue::from_static(forwarded_proto.unwrap_or(told.scheme)))?;
    request.insert_header(REQUEST_ID, told.request_id)?;
    if let Some(IdentityFields { user_id, scope, owner }) = told.identity {
        for (name, value) in [(USER_ID, user_id), (SCOPE, scope), (OWNER, owner)] {
            if let Some(value) = value {
                request.insert_header(name, value.clone())?;
            }
        }
    }
    if let Some(hotkey) = told.hotkey {
        request.insert_header(HOTKEY, hotkey)?;
    }
    if let Some(token) = told.access_token {
        let client = token.client.as_deref().unwrap_or_default();
        let said = [
            (SUBJECT, &*token.account),
            (SIGNER, token.signer.as_str()),
            (CLIENT, client),
            (SCOPE_OF_TOKEN, &*token.scope),
        ];
        for (name, value) in said.into_iter().filter(|(_, value)| !value.is_empty()) {
            request.insert_header(name, value)?;
        }
    }
    match told.authorization {
        Authorization::Keep => {}
        Authorization::Remove => {
            request.remove_header(&header::AUTHORIZATION);
        }
        Authorization::Replace(secret) => {
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "provider's credential"))?;
            value.set_sensitive(true);
            request.insert_header(AUTHORIZATION, value)?;
        }
    }
    match told.host {
        Some(host) => request.insert_header(header::HOST, host.clone())?,
        // HTTP/2 has it in the target, which ours takes the place of. Pingora makes a target of it again.
        None if !request.headers.contains_key(header::HOST) => {
            if let Some(authority) = request.uri.authority().map(ToString::to_string) {
                request.insert_header(header::HOST, authority)?;
            }
        }
        None => {}
    }
    Ok(())
}

/// The text of an address. By hand: the formatter takes as long as setting the field.
fn address(client: IpAddr) -> Vec<u8> {
    let mut text = Vec::with_capacity(LONGEST_V4);
    telemetry::address(&mut text, client);
    text
}

const LONGEST_V4: usize = "255.255.255.255".len();

/// A value out of a text, without a copy.
fn value(text: Vec<u8>) -> Result<HeaderValue> {
    HeaderValue::try_from(text)
        .map_err(|_| pingora::Error::explain(pingora::ErrorType::InvalidHTTPHeader, "a value of ours"))
}

/// Removes our fields in every spelling. An underscore for a hyphen makes another field here, and the same variable for
/// a service behind CGI, WSGI or Rack.
fn remove_spoofed(request: &mut RequestHeader, trusted: bool) {
    // The usual request has none of them: nothing is collected then.
    loop {
        let mut names = request.headers.keys();
        let spoofed = names.find(|name| is_spoofed(name.as_str(), trusted));
        let Some(spoofed) = spoofed.cloned() else { break };
        request.remove_header(&spoofed);
    }
}

fn is_spoofed(name: &str, trusted: bool) -> bool {
    let one_of = |list: &[&str]| list.iter().any(|ours| same_field(name, ours));
    // Cheap first: most fields begin with another letter.
    match name.as_bytes().first() {
        Some(b'n' | b'x' | b'f') => {
            let certificate = name.get(..CERTIFICATE_FAMILY.len());
            one_of(&OURS)
                || (!trusted && one_of(&PROXIES))
                || certificate.is_some_and(|start| same_field(start, CERTIFICATE_FAMILY))
        }
        Some(b'c') => one_of(&CERTIFICATE),
        _ => false,
    }
}

fn same_field(name: &str, ours: &str) -> bool {
    name.len() == ours.len() && name.bytes().zip(ours.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

fn joined(request: &RequestHeader, name: &str) -> Option<String> {
    let values: Vec<&str> = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn scheme_of_proxy(request: &RequestHeader) -> Option<&'static str> {
    match request.headers.get("x-forwarded-proto")?.as_bytes() {
        scheme if scheme.eq_ignore_ascii_case(b"https") => Some("https"),
        scheme if scheme.eq_ignore_ascii_case(b"http") => Some("http"),
        _ => None,
    }
}

/// Fields with which an upstream would steer a proxy (nevermined.md section 5.5), or that concern only the way to it.
const NOT_FOR_CLIENTS: [&str; 9] = [
    "x-accel-redirect",
    "x-accel-buffering",
    "x-accel-charset",
    "x-accel-expires",
    "x-accel-limit-rate",
    "x-pad",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
];

/// Keeps what is internal from the client.
pub fn to_client(response: &mut ResponseHeader, hide_credits: bool) {
    let internal = |name: &header::HeaderName| {
        matches!(name.as_str().as_bytes().first(), Some(b'x' | b'p')) && NOT_FOR_CLIENTS.contains(&name.as_str())
    };
    loop {
        let Some(name) = response.headers.keys().find(|name| internal(name)).cloned() else { break };
        response.remove_header(&name);
    }
    if hide_credits {
        response.remove_header(&CREDITS_CONSUMED);
    }
}

/// What a service says an answer cost (nevermined.md section 8). Made once: a text would be made a name for each answer.
pub static CREDITS_CONSUMED: header::HeaderName = header::HeaderName::from_static("nvmcreditsconsumed");

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn told(secret: &Secret, trusted: bool) -> Told<'_> {
        static HOST: HeaderValue = HeaderValue::from_static("upstream.example:8443");
        static IDENTITY: IdentityFields = IdentityFields {
            user_id: Some(HeaderValue::from_static("0xabc")),
            scope: Some(HeaderValue::from_static("did:nv:1")),
            owner: None,
        };
        Told {
            client: Some(IpAddr::from([9, 9, 9, 9])),
            trusted,
            scheme: "https",
            identity: Some(&IDENTITY),
            hotkey: Some("5Hotkey"),
            access_token: None,
            authorization: Authorization::Replace(secret),
            host: Some(&HOST),
            request_id: "id",
        }
    }

    fn values(request: &RequestHeader, name: &str) -> Vec<String> {
        request.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_client_cannot_say_who_it_is() {
        let spoofed = [
            ("NVM-User-id", "evil"),
            ("nvm-user-id", "evil"),
            ("NVM_User_id", "evil"),
            ("NVM_USER-ID", "evil"),
            ("nvm-scope", "evil"),
            ("nvm_owner", "evil"),
            ("X-Hotkey", "evil"),
            ("x_hotkey", "evil"),
            ("X-HOTKEY", "evil"),
            ("X-Auth-Subject", "evil"),
            ("x_auth_signer", "evil"),
            ("X-Auth_Client", "evil"),
            ("x-auth-scope", "evil"),
            ("x-client-cert", "evil"),
            ("X_Client_Cert", "evil"),
            ("x-client-cert-subject", "evil"),
            ("X-Client_Cert_Issuer", "evil"),
            ("X-Client-Certificate", "evil"),
            ("client-cert", "evil"),
            ("client_cert_chain", "evil"),
            ("x-forwarded-client-cert", "evil"),
            ("x-real-ip", "evil"),
            ("X_Real_IP", "evil"),
            ("x-forwarded-for", "evil"),
            ("x_forwarded_for", "evil"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=evil"),
            ("x-request-id", "evil"),
            ("authorization", "Bearer evil"),
            ("host", "evil"),
        ];
        let mut request = request(&spoofed);
        let secret = Secret::new("Bearer provider".to_owned());
        for _ in 0..2 {
            to_upstream(&mut request, &told(&secret, false)).unwrap();
            let all = format!("{:?}", request.headers);
            assert!(!all.contains("evil"), "{all}");
            assert_eq!(values(&request, "nvm-user-id"), ["0xabc"]);
            assert_eq!(values(&request, "nvm-scope"), ["did:nv:1"]);
            assert!(values(&request, "nvm-owner").is_empty(), "a value that there is not is not sent");
            assert_eq!(values(&request, "x-hotkey"), ["5Hotkey"]);
            assert_eq!(values(&request, "x-forwarded-for"), ["9.9.9.9"]);
            assert_eq!(values(&request, "x-real-ip"), ["9.9.9.9"]);
            assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
            assert_eq!(values(&request, "authorization"), ["Bearer provider"]);
            assert_eq!(values(&request, "host"), ["upstream.example:8443"]);
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "h"),
        ];
        let mut request = request(&fields);
        to_upstream(&mut request, &told(&Secret::new(String::new()), true)).unwrap();
        assert_eq!(values(&request, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 9.9.9.9"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["h"]);
    }

    #[test]
    fn other_fields_are_not_touched() {
        let fields = [
            ("cookie", "a=b"),
            ("x-custom", "1"),
            ("x-custom", "2"),
            ("nvm-authorization", "z"),
            ("x-auth-token", "t"),
            ("x-auth-subjects", "u"),
            ("accept", "*/*"),
            ("x-client", "2"),
            ("client-certs", "3"),
        ];
        let mut request = request(&fields);
        to_upstream(&mut request, &told(&Secret::new(String::new()), false)).unwrap();
        assert_eq!(values(&request, "x-custom"), ["1", "2"]);
        for (name, value) in [("cookie", "a=b"), ("nvm-authorization", "z"), ("accept", "*/*")] {
            assert_eq!(values(&request, name), [value]);
        }
    }
}
