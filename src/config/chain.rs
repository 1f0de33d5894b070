//! `[chain]`: the JSON-RPC node that knows balances.

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use super::marketplace::Freshness;

/// The JSON-RPC node.
#[derive(Clone, Debug)]
pub struct Chain {
    /// `rpc`, `rpc_file` or `WEB3_PROVIDER_URL`. May hold an API key.
    pub rpc: PrivateUrl,
    /// `timeout`: of one question, all included. Default 5 s.
    pub timeout: Duration,
    /// How long balances count. Default: fresh 15 s, negative 5 s, stale 2 min, 50 000 entries.
    pub freshness: Freshness,
    /// `ca`: a PEM bundle trusted for the node besides the system's.
    pub ca: Option<PathBuf>,
}

/// A URL whose path, query or user may be a secret. What is shown of it is its scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateUrl(Url);

impl PrivateUrl {
    /// Hides the URL.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self(url)
    }

    /// The whole URL.
    #[must_use]
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
