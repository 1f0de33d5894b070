//! `[usage]`: the way of a usage event (architecture.md section 7).

use std::time::Duration;

use url::Url;

use crate::model::secret::Secret;

/// The spool, and where usage goes from there.
#[derive(Clone, Debug)]
pub struct Usage {
    /// `spool_max_bytes`: the spool on disk holds at most this much. Default 256 MiB.
    pub spool_max_bytes: u64,
    /// `segment_bytes`: size of one spool file. Default 4 MiB.
    pub segment_bytes: u64,
    /// `sync_interval`: a power cut loses at most the events of this long. Default 200 ms.
    pub sync_interval: Duration,
    /// `when_full`: what metered routes do while the spool takes nothing. Default `refuse`.
    pub when_full: WhenFull,
    /// `[usage.report]`: tell the Nevermined backend of each request. Default: nobody is told.
    pub report: Option<Report>,
    /// `retention`: events older than this, and settled, are deleted. Default: kept for ever.
    pub retention: Option<Duration>,
}

/// What metered routes do while the spool is full or its disk broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// `refuse`: answer 503.
    Refuse,
    /// `serve-unmetered`: serve, and lose the event.
    ServeUnmetered,
}

/// The Nevermined backend's metrics API (nevermined.md section 8.2).
#[derive(Clone, Debug)]
pub struct Report {
    /// `url` or `BACKEND_API_URI`: the backend's base; the path is ours to add.
    pub url: Url,
    /// `token`, `token_file` or `BACKEND_AUTH_TOKEN`: the bearer token, which needs the backend's Admin role.
    pub token: Option<Secret>,
    /// `timeout`: of one report, all included. Default 5 s.
    pub timeout: Duration,
}
