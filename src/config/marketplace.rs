//! `[marketplace]`: who describes services and plans.

use std::{path::PathBuf, time::Duration};

use url::Url;

/// The Nevermined marketplace API (nevermined.md section 7).
#[derive(Clone, Debug)]
pub struct Marketplace {
    /// `url`, or `MARKETPLACE_API_URI` (also `MARKETPLACE_API_URL`): its base; the path is ours to add.
    pub url: Url,
    /// `timeout`: of one question, all included. Default 5 s.
    pub timeout: Duration,
    /// How long answers count. Default: fresh 60 s, negative 10 s, stale 10 min, 50 000 entries.
    pub freshness: Freshness,
    /// `ca`: a PEM bundle trusted for the marketplace besides the system's.
    pub ca: Option<PathBuf>,
    /// `max_body_bytes`: a larger answer is refused. Default 1 MiB.
    pub max_body_bytes: u64,
}

/// How long a cached answer from outside counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// `fresh_for`: an answer is used without asking again.
    pub fresh_for: Duration,
    /// `negative_for`: a "there is none" is.
    pub negative_for: Duration,
    /// `stale_for`: after `fresh_for`, how long an answer may still be used while asking again fails.
    pub stale_for: Duration,
    /// `max_entries`: how many answers are remembered.
    pub max_entries: usize,
}
