//! Endpoints of a paid service: what may be called, and where it is.
//!
//! An endpoint is an absolute URL whose path is a pattern in the language of path-to-regexp 6.2.2 with its default
//! options, read after the WHATWG URL parser has had its say (nevermined.md section 3). The pattern is compiled once,
//! when the token that carries it is verified, into a matcher that needs time linear in the path: the original
//! backtracks, and two parameters in one segment are enough to stop it for minutes.
//!
//! Differences from the original, all of them on purpose: an endpoint that cannot be used is an error of that endpoint
//! alone, not of its token; only `http` and `https` exist; both sides of the comparison are in the normal form of
//! [`super::path`], so an escape and the character it spells are the same, and raw non-ASCII bytes are UTF-8, not Latin-1.

use std::{fmt, net::IpAddr, str::FromStr};

use http::HeaderValue;
use url::{Host, Url};

use self::pattern::Pattern;
use super::path::RequestPath;

mod pattern;

/// The longest endpoint that is read, in bytes.
pub const MAX_ENDPOINT_BYTES: usize = 2048;

/// The most groups and parameters one endpoint may have.
pub const MAX_GROUPS: usize = 32;

/// The reason for refusing a token none of whose endpoints could be read
/// ([`Denial::NotEntitled`](super::decision::Denial::NotEntitled)). Such a token is genuine: its endpoints are the
/// provider's mistake, and the holder can do nothing with it.
pub const NO_USABLE_ENDPOINT: super::decision::Reason = "no_usable_endpoint";

/// How an origin is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In clear text.
    Http,
    /// Through TLS.
    Https,
}

impl Scheme {
    /// The word before `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is not written (RFC 9110 §4.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port of a server (RFC 6454 §4).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: Scheme,
    host: Box<str>,
    address: Option<IpAddr>,
    port: u16,
    authority: Box<str>,
    host_field: HeaderValue,
}

/// Why a text is not the origin of a server we can talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not an absolute URL.
    #[error("this is not an absolute URL with a host")]
    NotAUrl,
    /// Another scheme than `http` and `https`.
    #[error("the scheme must be http or https")]
    Scheme,
    /// A name or a password before the host. It would be sent nowhere, so it would only mislead.
    #[error("a user name or password does not belong in a URL")]
    UserInfo,
    /// More than scheme, host and port, where only these were expected.
    #[error("a path, query or fragment does not belong here")]
    NotAnOrigin,
}

impl Origin {
    /// The origin of a URL, whatever its path.
    ///
    /// # Errors
    /// When the scheme is not `http` or `https`, or there is a user name or password.
    pub fn of(url: &Url) -> Result<Self, OriginError> {
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(OriginError::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::UserInfo);
        }
        let host = url.host().ok_or(OriginError::NotAUrl)?;
        let port = url.port().unwrap_or_else(|| scheme.default_port());
        let authority = match url.port() {
            None => host.to_string(),
            Some(port) => format!("{host}:{port}"),
        };
        let (host, address) = match host {
            Host::Domain(name) => (name.to_owned(), None),
            Host::Ipv4(address) => (address.to_string(), Some(IpAddr::V4(address))),
            Host::Ipv6(address) => (address.to_string(), Some(IpAddr::V6(address))),
        };
        let host_field = HeaderValue::from_str(&authority).map_err(|_| OriginError::NotAUrl)?;
        Ok(Self { scheme, host: host.into(), address, port, authority: authority.into(), host_field })
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host as a resolver and a certificate want it: lower case, punycode, and an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host, where it is an address and not a name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The port, written or not.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as a `Host` header has them: no port where it is the scheme's own, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The same as the `Host` field has it.
    #[must_use]
    pub fn host_field(&self) -> &HeaderValue {
        &self.host_field
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|_| OriginError::NotAUrl)?;
        let origin = Self::of(&url)?;
        let alone = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if alone { Ok(origin) } else { Err(OriginError::NotAnOrigin) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One endpoint of a service.
pub struct Endpoint {
    text: Box<str>,
    origin: Origin,
    pattern: Pattern,
}

/// Why an endpoint cannot be used. The texts are for the operator's log; none repeats the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Longer than [`MAX_ENDPOINT_BYTES`].
    #[error("the endpoint is longer than {MAX_ENDPOINT_BYTES} bytes")]
    TooLong,
    /// Not a URL of a server we can talk to.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A `:` that no name follows.
    #[error("a colon in the path begins a parameter and needs a name of letters, digits or _")]
    MissingName,
    /// A `*` or `+` that follows neither a parameter nor a group: `/api/*` is meant as `/api/(.*)`.
    #[error("a * or + in the path must follow a parameter or a group: write (.*) for anything")]
    DanglingModifier,
    /// `()`.
    #[error("a group in the path is empty")]
    EmptyGroup,
    /// `(` without its `)`.
    #[error("a group in the path is not closed")]
    UnclosedGroup,
    /// A group in a group.
    #[error("a group in the path has a group within")]
    NestedGroup,
    /// What stands in a group is not a regular expression.
    #[error("a group in the path is not a regular expression")]
    Expression,
    /// More than [`MAX_GROUPS`] parameters and groups, or an expression that would need too much memory.
    #[error("the path has too many groups, or they are too large")]
    TooComplex,
    /// Text that no request which we accept can have: a malformed escape, a control character or a backslash.
    #[error("the path has text that no acceptable request has")]
    Unmatchable,
}

impl Endpoint {
    /// Reads an endpoint. What follows `?` or `#` is ignored, as in the original: `/users/:id?` is `/users/:id`.
    ///
    /// # Errors
    /// When it is one of those [`EndpointError`] lists.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if text.len() > MAX_ENDPOINT_BYTES {
            return Err(EndpointError::TooLong);
        }
        let url = Url::parse(text).map_err(|_| OriginError::NotAUrl)?;
        let origin = Origin::of(&url)?;
        let pattern = Pattern::compile(url.path())?;
        Ok(Self { text: text.into(), origin, pattern })
    }

    /// The server that is called.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The endpoint as its provider wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a request for this path is a call of this endpoint. Case does not count, and neither does one slash more
    /// at the end (nevermined.md section 3).
    #[must_use]
    pub fn matches(&self, path: &RequestPath<'_>) -> bool {
        self.pattern.matches(path.as_str().as_bytes())
    }

    /// Roughly how much memory this takes, in bytes, for caches that are bounded by it.
    #[must_use]
    pub fn footprint(&self) -> usize {
        self.text.len() + 2 * self.origin.authority.len() + self.pattern.footprint() + size_of::<Self>()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

/// Endpoints are the same that are written the same.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Endpoint {}

/// The endpoint that a request for this path calls: the last that matches, as in the original. In the forward-proxy
/// form the client names the origin too, and only that origin's endpoints count.
#[must_use]
pub fn last_match(endpoints: &[Endpoint], path: &RequestPath<'_>, origin: Option<&Origin>) -> Option<usize> {
    let of_origin = |endpoint: &Endpoint| origin.is_none_or(|origin| *origin == endpoint.origin);
    endpoints.iter().rposition(|endpoint| of_origin(endpoint) && endpoint.matches(path))
}

#[cfg(test)]
mod tests;
