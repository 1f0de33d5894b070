//! `[[route]]`: which requests go where, and who may send them.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::model::did::Did;

/// One kind of request. The first route of the file that has the request's host, path and method is the one.
#[derive(Clone, Debug)]
pub struct Route {
    /// `name`: the word in logs and metrics.
    pub name: String,
    /// `hosts`: names without a port, `*.example.com` for names below one. Empty (the default): any.
    pub hosts: Vec<HostPattern>,
    /// `path`: a prefix of whole segments: `/a` has `/a` and `/a/b` and not `/ab`. Default `/`.
    pub path: String,
    /// `methods`: empty (the default): any.
    pub methods: Vec<Method>,
    /// `upstream`: a name, or `token` for the one that the access token names.
    pub target: RouteTarget,
    /// `accepts`: credentials that let a caller in, in this order. Empty (the default): an open route.
    pub accepts: Vec<CredentialKind>,
    /// `services`: on a static route that accepts Nevermined tokens, the services whose tokens it takes.
    pub services: Vec<Did>,
    /// `open_endpoints`: whether a service's DID as subdomain reaches what it has opened to everybody
    /// (nevermined.md section 6). Only where the token names the upstream. Default false.
    pub open_endpoints: bool,
    /// `compatibility`: `standard` (the default) or `nevermined`.
    pub compatibility: Compatibility,
    /// `[route.cors]`: answer browsers' questions. None: their requests are passed on like any other.
    pub cors: Option<Cors>,
    /// `max_body_bytes`: the largest request body. Default 64 MiB.
    pub max_body_bytes: u64,
    /// `hide_credits_header`: keep `NVMCreditsConsumed` from clients. Default false.
    pub hide_credits_header: bool,
    /// `forward`: accept requests in absolute form, as a forward proxy gets them. Default true where the token names
    /// the upstream, else false.
    pub forward: bool,
    /// `preserve_host`: pass the client's `Host` on. Default true; always false where the token names the upstream.
    pub preserve_host: bool,
}

/// Who names the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The access token.
    Token,
    /// The configuration: this index into [`Config::upstreams`](super::Config::upstreams), which exists.
    Upstream(usize),
}

/// A kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// `nevermined`: an access token in `Authorization` (nevermined.md section 2).
    Nevermined,
}

/// Whose status numbers a refusal carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// `standard`: the RFCs' (architecture.md section 8).
    Standard,
    /// `nevermined`: the replaced system's, which knew only 401 (nevermined.md section 4).
    Nevermined,
}

/// Which host names a route is for. Always lower case, without a port or a final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: every name that ends so and has something before it.
    Below(String),
}

/// Cross-origin resource sharing: what browsers are told.
#[derive(Clone, Debug)]
pub struct Cors {
    /// `allow_origins`: `*` or a list. Default `*`.
    pub allow_origins: Origins,
    /// `allow_methods`. Empty (the default): the one that is asked about.
    pub allow_methods: Vec<Method>,
    /// `allow_headers`. Empty (the default): the ones that are asked about.
    pub allow_headers: Vec<HeaderName>,
    /// `expose_headers`: response headers a script may read. Default: none.
    pub expose_headers: Vec<HeaderName>,
    /// `max_age`: how long a browser may remember the answer, in whole seconds. Default 10 min.
    pub max_age: Duration,
    /// `allow_credentials`: whether cookies and the like may be sent along. Default false; never with `*`.
    pub allow_credentials: bool,
}

/// Which pages may read answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any.
    Any,
    /// These, as browsers write them: scheme, host and, unless it is the usual one, port.
    List(Vec<HeaderValue>),
}

impl HostPattern {
    /// Whether a name is meant. `host` is in lower case and without a port or a final dot.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == name,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}
