//! `[[upstream]]`: services with a fixed address.

use std::fmt;

use super::egress::Timeouts;

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
