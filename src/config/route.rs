//! `[[route]]`: which requests go where, and who may send them.

use std::{fmt, time::Duration};

use http::{HeaderValue, Method};

pub use self::{
    access_token::AccessTokenPolicy,
    cors::{Cors, Origins},
    credential::CredentialKind,
};
use super::{
    neurons::NeuronPolicy,
    oauth::OAuth,
    reader::Section,
    upstream::Upstream,
    value::{Parse, Raw, Size, word},
};
use crate::model::{did::Did, neuron::NetUid};

mod access_token;
mod cors;
mod credential;

/// One kind of request. The first route of the file that has the request's host, path and method is the one.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the file, and they do not depend on each other")]
pub struct Route {
    /// `name`: the word in logs and metrics.
    pub name: String,
    /// `hosts`: names without a port, `*.example.com` for names below one. Empty (the default): any.
    pub hosts: Vec<HostPattern>,
    /// `path`: a prefix of whole segments: `/a` has `/a` and `/a/b` and not `/ab`. Default `/`.
    pub path: String,
    /// `methods`: empty (the default): any.
    pub methods: Vec<Method>,
    /// `upstream`: a name, `token` for the one that the access token names, or `authorization-server` for ourselves.
    pub target: RouteTarget,
    /// `accepts`: credentials that let a caller in, in this order. Empty (the default): an open route.
    pub accepts: Vec<CredentialKind>,
    /// `services`: on a static route that accepts Nevermined tokens, the services whose tokens it takes.
    pub services: Vec<Did>,
    /// `[route.neurons]`: which neurons may call. None: the route accepts no proof of a neuron.
    pub neurons: Option<NeuronPolicy>,
    /// `[route.access_token]`: whose access tokens let a caller in. None: the route accepts none.
    pub access_token: Option<AccessTokenPolicy>,
    /// `open_endpoints`: whether a service's DID as subdomain reaches what it has opened to everybody
    /// (nevermined.md section 6). Only where the token names the upstream. Default false.
    pub open_endpoints: bool,
    /// `compatibility`: `standard` (the default), `nevermined` or `nexus-auth`.
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
    /// `preserve_header_case`: over HTTP/1.1, names of fields go on as client and upstream spelled them, and ours as the
    /// replaced systems did. Otherwise most go in lower case, as over HTTP/2. Default true with their `compatibility`, else
    /// false.
    pub preserve_header_case: bool,
}

/// Who names the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The access token.
    Token,
    /// The authorization server, which is this program: it answers itself.
    AuthorizationServer,
    /// The configuration: this index into [`Config::upstreams`](super::Config::upstreams), which exists.
    Upstream(usize),
}

/// Whose status numbers a refusal carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// `standard`: the RFCs' (architecture.md section 8).
    Standard,
    /// `nevermined`: the replaced system's, which knew only 401 (nevermined.md section 4).
    Nevermined,
    /// `nexus-auth`: that other replaced system's, which knew only 403, and its rules for client certificates
    /// (nexus.md section 1).
    NexusAuth,
}

/// Which host names a route is for. Always lower case, without a port or a final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: every name that ends so and has something before it.
    Below(String),
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

/// What browsers of the replaced system's clients were told (nevermined.md section 5.5), and how large a body may be.
const EXPOSED: &str = "Authorization,NVMCreditsConsumed";
const MAX_BODY_BYTES: u64 = 64 << 20;

impl Route {
    /// The one route of drop-in mode: whatever the token covers, as the replaced system had it.
    pub(super) fn drop_in() -> Self {
        Self {
            name: "nevermined".into(),
            hosts: Vec::new(),
            path: "/".into(),
            methods: Vec::new(),
            target: RouteTarget::Token,
            accepts: vec![CredentialKind::Nevermined],
            services: Vec::new(),
            open_endpoints: true,
            neurons: None,
            access_token: None,
            compatibility: Compatibility::Nevermined,
            cors: Some(Cors {
                allow_origins: Origins::Any,
                allow_methods: None,
                allow_headers: None,
                expose_headers: Some(HeaderValue::from_static(EXPOSED)),
                max_age: Duration::from_mins(10),
                allow_credentials: false,
            }),
            max_body_bytes: MAX_BODY_BYTES,
            hide_credits_header: false,
            forward: true,
            preserve_host: false,
            preserve_header_case: true,
        }
    }

    /// The one route where the environment describes an authorization server alone.
    pub(super) fn authorization_server() -> Self {
        Self {
            name: "authorization-server".into(),
            target: RouteTarget::AuthorizationServer,
            accepts: Vec::new(),
            open_endpoints: false,
            compatibility: Compatibility::Standard,
            cors: None,
            forward: false,
            preserve_header_case: false,
            ..Self::drop_in()
        }
    }

    /// `subnet` is the one of `[neurons]`.
    pub(super) fn read(
        section: &Section<'_>,
        upstreams: &[Upstream],
        subnet: Option<NetUid>,
        oauth: Option<&OAuth>,
    ) -> Option<Self> {
        let name = section.required::<String>("name", &[]);
        let hosts = section.values("hosts", &[]);
        let path = section.or("path", PathPrefix("/".into())).0;
        let methods = section.values("methods", &[]);
        let target = read_target(section, upstreams);
        let by_token = target == Some(RouteTarget::Token);
        let accepts = section.list::<CredentialKind>("accepts", &[]);
        let accepts = accepts.map(|list| list.into_iter().map(|found| found.value).collect());
        let accepts: Vec<_> =
            accepts.unwrap_or_else(|| if by_token { vec![CredentialKind::Nevermined] } else { vec![] });
        let services: Vec<Did> = section.values("services", &[]);
        let open_endpoints = section.or("open_endpoints", false);
        let cors = section.section("cors");
        let by_signature = accepts.iter().any(|kind| kind.is_signature());
        let neurons = NeuronPolicy::read(&section.section("neurons"), subnet, by_signature);
        let neurons = accepts.iter().any(|kind| kind.proves_neuron()).then_some(neurons);
        let access_token = AccessTokenPolicy::read(&section.section("access_token"), &accepts, oauth);
        let compatibility = section.or("compatibility", Compatibility::Standard);
        let route = Self {
            hosts,
            path,
            methods,
            open_endpoints,
            compatibility,
            cors: section.has("cors").then(|| Cors::read(&cors)),
            max_body_bytes: section.or("max_body_bytes", Size(MAX_BODY_BYTES)).0,
            hide_credits_header: section.or("hide_credits_header", false),
            forward: section.or("forward", by_token),
            preserve_host: section.or("preserve_host", !by_token),
            preserve_header_case: section.or("preserve_header_case", compatibility != Compatibility::Standard),
            accepts,
            services,
            neurons,
            access_token,
            target: target?,
            name: name?.value,
        };
        route.check(section);
        Some(route)
    }

    /// What must fit together within one route.
    fn check(&self, section: &Section<'_>) {
        let takes_tokens = self.accepts.contains(&CredentialKind::Nevermined);
        match self.target {
            RouteTarget::Token => {
                if !takes_tokens {
                    section.mistake("accepts", "must have \"nevermined\" where the token names the upstream");
                }
                if !self.services.is_empty() {
                    section.mistake("services", "must be left out where the token names the upstream");
                }
                if self.preserve_host {
                    section.mistake("preserve_host", "must be false where the token names the upstream");
                }
            }
            RouteTarget::AuthorizationServer => self.check_local(section),
            RouteTarget::Upstream(_) => {
                if takes_tokens && self.services.is_empty() {
                    let message = "is missing: name the services whose tokens this route takes, \
                                   or every token of every service would open it";
                    section.mistake("services", message);
                }
                if !takes_tokens && !self.services.is_empty() {
                    section.mistake("services", "has no effect without `accepts = [\"nevermined\"]`");
                }
                if self.open_endpoints {
                    section.mistake("open_endpoints", "needs `upstream = \"token\"`");
                }
            }
        }
        let neurons = self.accepts.iter().any(|kind| kind.proves_neuron());
        if neurons && self.target == RouteTarget::Token {
            section
                .mistake("accepts", "a proof of being a neuron needs an `upstream` of this file: it names none itself");
        }
        let access_tokens = self.access_token.is_some();
        if access_tokens && self.target == RouteTarget::Token {
            section.mistake("accepts", "\"access-token\" needs an `upstream` of this file: such a token names none");
        }
        if section.has("access_token") && !access_tokens {
            section.mistake("access_token", "has no effect unless `accepts` has \"access-token\"");
        }
        if section.has("neurons") && !neurons {
            section.mistake("neurons", "has no effect unless `accepts` has a proof of being a neuron");
        }
        if self.compatibility == Compatibility::NexusAuth && !self.accepts.contains(&CredentialKind::ClientCertificate)
        {
            section.mistake("compatibility", "\"nexus-auth\" needs `accepts = [\"client-certificate\"]`");
        }
        if self.compatibility == Compatibility::Nevermined && (neurons || access_tokens) && !takes_tokens {
            section.mistake("compatibility", "\"nevermined\" knew its own tokens alone");
        }
    }

    /// Whether a caller may prove who they are by `Authorization`, which is then ours to read and goes no further.
    #[must_use]
    pub fn reads_authorization(&self) -> bool {
        self.accepts.iter().any(|kind| matches!(kind, CredentialKind::Nevermined | CredentialKind::AccessToken))
    }

    /// The authorization server decides itself who may call, how it refuses, and what pages may read.
    fn check_local(&self, section: &Section<'_>) {
        for (key, given) in [
            ("accepts", !self.accepts.is_empty()),
            ("services", !self.services.is_empty()),
            ("open_endpoints", self.open_endpoints),
            ("cors", self.cors.is_some()),
            ("compatibility", self.compatibility != Compatibility::Standard),
            ("max_body_bytes", section.has("max_body_bytes")),
            ("forward", self.forward),
        ] {
            if given {
                section.mistake(key, "has no effect with `upstream = \"authorization-server\"`: see [oauth]");
            }
        }
    }

    /// Whether every request of the other route is one of this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let host = |host: &HostPattern| self.hosts.iter().any(|own| own.covers(host));
        let hosts = self.hosts.is_empty() || (!other.hosts.is_empty() && other.hosts.iter().all(host));
        let method = |method: &Method| self.methods.contains(method);
        // A route with [route.cors] also has the question before its requests, whose method is OPTIONS.
        let preflight = self.cors.is_some() || other.cors.is_none() || self.methods.contains(&Method::OPTIONS);
        let listed = !other.methods.is_empty() && other.methods.iter().all(method) && preflight;
        let methods = self.methods.is_empty() || listed;
        let forms = self.forward || !other.forward;
        let rest = other.path.strip_prefix(self.path.trim_end_matches('/'));
        hosts && methods && forms && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn read_target(section: &Section<'_>, upstreams: &[Upstream]) -> Option<RouteTarget> {
    let found = section.required::<String>("upstream", &[])?;
    match found.value.as_str() {
        "token" => return Some(RouteTarget::Token),
        "authorization-server" => return Some(RouteTarget::AuthorizationServer),
        _ => {}
    }
    let index = upstreams.iter().position(|upstream| upstream.name == found.value);
    if index.is_none() {
        section.context.mistake(&found.at, format!("there is no [[upstream]] named {:?}", found.value));
    }
    index.map(RouteTarget::Upstream)
}

impl HostPattern {
    /// Reads `example.com` or `*.example.com`. None: neither.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        let host = url::Host::parse(name).ok()?;
        let host = host.to_string();
        let host = host.trim_end_matches('.');
        if host.is_empty() || host.contains('*') {
            return None;
        }
        Some(if below { Self::Below(format!(".{host}")) } else { Self::Exact(host.to_owned()) })
    }

    /// Whether every name of the other pattern is one of this one.
    fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Exact(name) => self.matches(name),
            Self::Below(suffix) => matches!(self, Self::Below(own) if suffix.ends_with(own.as_str())),
        }
    }
}

impl Parse for HostPattern {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "a host name without a port, or \"*.\" and one";
        let text = String::parse(raw)?;
        Self::from_text(&text).ok_or_else(|| format!("must be {WHAT}, and is {text:?}"))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl Compatibility {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Nevermined => "nevermined",
            Self::NexusAuth => "nexus-auth",
        }
    }
}

impl Parse for Compatibility {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("standard", Self::Standard), ("nevermined", Self::Nevermined), ("nexus-auth", Self::NexusAuth)])
    }
}

/// A path of whole segments, as a normalised request would have it.
struct PathPrefix(String);

impl Parse for PathPrefix {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let text = String::parse(raw)?;
        if !text.starts_with('/') {
            return Err(format!("must begin with `/`, and is {text:?}"));
        }
        if text.len() > 1 && text.ends_with('/') {
            return Err("must not end with `/`: `/a` has whole segments, `/a` and `/a/b` and not `/ab`".into());
        }
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'%' | b'\\' | b'*');
        let segment = |segment: &str| !matches!(segment, "." | "..") && segment.bytes().all(plain);
        let mut segments = text.split('/').skip(1);
        if text != "/" && !segments.all(|it| !it.is_empty() && segment(it)) {
            return Err(format!("must be a plain path, without patterns or escapes, and is {text:?}"));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(hosts: &[&str], path: &str, methods: &[Method]) -> Route {
        let hosts = hosts.iter().map(|host| HostPattern::from_text(host).unwrap()).collect();
        Route { hosts, path: path.into(), methods: methods.to_vec(), ..Route::drop_in() }
    }

    #[test]
    fn a_host_pattern_has_whole_labels() {
        for (pattern, host, matches) in [
            ("example.com", "example.com", true),
            ("Example.COM.", "example.com", true),
            ("example.com", "a.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "badexample.com", false),
            ("127.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(HostPattern::from_text(pattern).unwrap().matches(host), matches, "{pattern} {host}");
        }
        for bad in ["", "*", "*.", "a*.example.com", "example.com:80", "a b", "http://a", "."] {
            assert_eq!(HostPattern::from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_route_that_is_covered_is_known() {
        let get = [Method::GET];
        for (first, second, covers) in vec![
            (route(&[], "/", &[]), route(&["a.example"], "/x", &get), true),
            (route(&[], "/x", &[]), route(&[], "/x/y", &[]), true),
            (route(&[], "/x", &[]), route(&[], "/x", &[]), true),
            (route(&[], "/x", &[]), route(&[], "/xy", &[]), false),
            (route(&[], "/x", &[]), route(&[], "/", &[]), false),
            (route(&["a.example"], "/", &[]), route(&[], "/", &[]), false),
            (route(&["*.example"], "/", &[]), route(&["a.example", "*.b.example"], "/", &[]), true),
            (route(&["*.example"], "/", &[]), route(&["a.example", "example"], "/", &[]), false),
            (route(&[], "/", &get), route(&[], "/", &[]), false),
            (route(&[], "/", &get), route(&[], "/", &get), true),
            (route(&[], "/", &get), route(&[], "/", &[Method::GET, Method::PUT]), false),
            (Route { forward: false, ..route(&[], "/", &[]) }, route(&[], "/", &[]), false),
            (Route { cors: None, ..route(&[], "/", &get) }, route(&[], "/", &get), false),
            (Route { cors: None, ..route(&[], "/", &[]) }, route(&[], "/", &get), true),
        ] {
            assert_eq!(first.covers(&second), covers, "{first:?} {second:?}");
        }
    }

    #[test]
    fn a_prefix_is_a_plain_path() {
        for (path, good) in [
            ("/", true),
            ("/v1", true),
            ("/v1/a.b-c_d~e", true),
            ("", false),
            ("v1", false),
            ("/v1/", false),
            ("//v1", false),
            ("/v1//a", false),
            ("/v1/..", false),
            ("/./v1", false),
            ("/v1*", false),
            ("/v1?x", false),
            ("/v1%2f", false),
            ("/caf\u{e9}", false),
        ] {
            assert_eq!(PathPrefix::parse(Raw::Text(path)).is_ok(), good, "{path}");
        }
    }
}
