//! `[[listener]]`, `[admin]` and `[introspection]`: where we listen.

use std::{net::SocketAddr, path::PathBuf};

/// One address that clients connect to.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `name`: the word in logs and metrics. Default: the address as written.
    pub name: String,
    /// `address`: where to bind.
    pub address: SocketAddr,
    /// `[listener.tls]`: TLS on this listener. None: plain HTTP.
    pub tls: Option<Tls>,
}

/// TLS on a listener.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `[[listener.tls.certificate]]`: at least one; the first also serves clients that send no or an unknown name.
    pub certificates: Vec<CertificateFiles>,
    /// Whether HTTP/2 is offered: `alpn` names `h2`. Default: yes.
    pub alpn_h2: bool,
}

/// A certificate and its key, as PEM files. Both were read when the configuration was, and belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// `cert`: the chain, the server's own certificate first.
    pub cert: PathBuf,
    /// `key`: the private key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// `names`: the server names it is used for, lower case. Empty (the default): the names it contains.
    pub names: Vec<String>,
}

/// The replaced system's decision endpoint (nevermined.md section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// `introspection.address`, or `SERVER_HOST` and `SERVER_PORT` (127.0.0.1 and 4000 in drop-in mode).
    pub address: SocketAddr,
}
