//! `[[upstream]]`: services with a fixed address.

use std::fmt;

use super::{
    egress::Timeouts,
    reader::Section,
    route::HostPattern,
    value::{Parse, Raw, word},
};

/// A service with a fixed address, which routes name.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `name`: what routes call it; also the word in logs and metrics.
    pub name: String,
    /// `addresses`: one or more `host:port`, tried in turn.
    pub addresses: Vec<HostPort>,
    /// `tls`: whether to speak TLS. Default false.
    pub tls: bool,
    /// `server_name`: the name to ask for and to verify. Default: the host of the address.
    pub server_name: Option<String>,
    /// `http2`: `auto` (the default), `never` or `always`.
    pub http2: Http2,
    /// The timeouts of `[egress]`, each of which may be set here too.
    pub timeouts: Timeouts,
}

/// A host name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The name in lower case, or the address without brackets.
    pub host: String,
    /// The port; never 0.
    pub port: u16,
}

/// Whether an upstream is spoken to in HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2 {
    /// `auto`: if it agrees to in the TLS handshake; never in clear text.
    Auto,
    /// `never`.
    Never,
    /// `always`: without asking, also in clear text (gRPC).
    Always,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Upstream {
    pub(super) fn read(section: &Section<'_>, default: &Timeouts) -> Option<Self> {
        let name = section.required::<String>("name", &[]);
        let addresses = section.list::<HostPort>("addresses", &[]);
        if addresses.is_none() {
            section.mistake("addresses", "is missing");
        }
        let tls = section.or("tls", false);
        let server_name = section.optional::<String>("server_name", &[]);
        if let Some(found) = &server_name {
            if !tls {
                section.context.mistake(&found.at, "has no effect without `tls = true`");
            }
            if !matches!(HostPattern::from_text(&found.value), Some(HostPattern::Exact(_))) {
                section.context.mistake(&found.at, format!("must be a host name, and is {:?}", found.value));
            }
        }
        let http2 = section.or("http2", Http2::Auto);
        let timeouts = Timeouts::read(section, default);
        let addresses: Vec<_> = addresses.unwrap_or_default().into_iter().map(|found| found.value).collect();
        let name = name?.value;
        if name == "token" {
            section.mistake("name", "\"token\" is what routes write for the upstream that a token names");
        }
        if section.is_empty_list("addresses") {
            section.mistake("addresses", "must name at least one address");
        }
        let server_name = server_name.map(|found| found.value);
        Some(Self { name, addresses, tls, server_name, http2, timeouts })
    }
}

impl Parse for Http2 {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("auto", Self::Auto), ("never", Self::Never), ("always", Self::Always)])
    }
}
