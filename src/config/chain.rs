//! `[chain]`: the JSON-RPC node that knows balances.

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use super::{context::Found, marketplace::read_ca, reader::Section, value::Timeout};
use crate::model::secret::Secret;

/// The JSON-RPC node.
#[derive(Clone, Debug)]
pub struct Chain {
    /// `rpc`, `rpc_file` or `WEB3_PROVIDER_URL`. May hold an API key.
    pub rpc: PrivateUrl,
    /// `timeout`: of one question, all included. Default 5 s.
    pub timeout: Duration,
    /// `stale_for`: how old a balance may be while the node does not answer. Default 2 min. How often balances are
    /// asked for is `credits.refresh`.
    pub stale_for: Duration,
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

/// What the replaced system asked if nothing was set (nevermined.md section 11).
const DEFAULT: &str = "http://contracts.nevermined.localnet";

impl Chain {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let context = section.context;
        let rpc = section.secret("rpc", Some("WEB3_PROVIDER_URL"));
        let timeout = section.or("timeout", Timeout(Duration::from_secs(5))).0;
        let stale_for = section.or("stale_for", Duration::from_mins(2));
        let ca = read_ca(section, "ca", &[]);
        let rpc = match rpc.ok()? {
            Some(Found { value, at }) => {
                PrivateUrl::parse(&value).map_err(|message| context.mistake(&at, message)).ok()?
            }
            None if context.drop_in() => {
                context
                    .warn(format!("WEB3_PROVIDER_URL is not set: the replaced system's default is asked, {DEFAULT}"));
                PrivateUrl(Url::parse(DEFAULT).ok()?)
            }
            None => {
                if section.present() {
                    section.mistake("rpc", "is missing");
                }
                return None;
            }
        };
        Some(Self { rpc, timeout, stale_for, ca })
    }
}

impl PrivateUrl {
    fn parse(text: &Secret) -> Result<Self, String> {
        Self::with_scheme(text, &["http", "https"], "must be a URL that begins with http:// or https://")
    }

    /// A node that also may be reached over a `WebSocket`.
    pub(super) fn parse_node(text: &Secret) -> Result<Self, String> {
        const WHAT: &str = "must be a URL that begins with wss://, ws://, https:// or http://";
        Self::with_scheme(text, &["wss", "ws", "https", "http"], WHAT)
    }

    /// Never repeats the text in its complaint.
    fn with_scheme(text: &Secret, schemes: &[&str], what: &str) -> Result<Self, String> {
        let url = Url::parse(text.expose()).map_err(|problem| format!("{what}: {problem}"))?;
        if schemes.contains(&url.scheme()) && url.has_host() { Ok(Self(url)) } else { Err(what.into()) }
    }
}
