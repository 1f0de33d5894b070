//! `[usage]`: the way of a usage event (architecture.md section 7).

use std::time::Duration;

use url::Url;

use super::{
    database::postgres_in_environment,
    nevermined::BACKEND,
    reader::Section,
    value::{BaseUrl, Parse, Raw, Size, Timeout, word},
};
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

impl Usage {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let spool_max_bytes = section.or("spool_max_bytes", Size(256 << 20)).0;
        let segment_bytes = section.or("segment_bytes", Size(4 << 20)).0;
        if !(4 << 10..=1 << 30).contains(&segment_bytes) {
            section.mistake("segment_bytes", "must be from 4KiB to 1GiB");
        }
        if spool_max_bytes / 2 < segment_bytes {
            section.mistake("spool_max_bytes", "must have room for two segments (segment_bytes)");
        }
        Self {
            spool_max_bytes,
            segment_bytes,
            sync_interval: section.or("sync_interval", Duration::from_millis(200)),
            when_full: section.or("when_full", WhenFull::Refuse),
            report: Report::read(&section.section("report")),
            retention: section.optional::<Timeout>("retention", &[]).map(|found| found.value.0),
        }
    }
}

impl Parse for WhenFull {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("refuse", Self::Refuse), ("serve-unmetered", Self::ServeUnmetered)])
    }
}

impl Report {
    /// Reports are made if the file says so, or the environment holds the token for it; in drop-in mode not if there
    /// is a Postgres database, because then the tables that the backend would fill are filled directly.
    fn read(section: &Section<'_>) -> Option<Self> {
        let context = section.context;
        let token = section.secret("token", Some("BACKEND_AUTH_TOKEN")).unwrap_or_default();
        let url = section.optional::<BaseUrl>("url", &BACKEND);
        let timeout = section.or("timeout", Timeout(Duration::from_secs(5))).0;
        let access_tables = context.parsed_variable::<bool>(&["TOLLGATE_ACCESS_TABLES"]).ok().flatten();
        let access_tables = access_tables.is_none_or(|found| found.value);
        if context.drop_in() && url.is_some() && token.is_some() && access_tables && postgres_in_environment(context) {
            let warning = "usage is written to the Postgres tables and not reported to BACKEND_API_URI as well, which \
                           would charge it twice; to report it instead, set TOLLGATE_ACCESS_TABLES=false";
            context.warn(warning.into());
            return None;
        }
        if section.present() && url.is_none() && !section.has("url") {
            section.mistake("url", "is missing");
        }
        if !section.present() && token.is_none() {
            return None;
        }
        let Some(url) = url else {
            if !section.present() {
                context.mistake_in_variable("BACKEND_AUTH_TOKEN", "there is nobody to report to: set BACKEND_API_URI");
            }
            return None;
        };
        Some(Self { url: url.value.0, token: token.map(|found| found.value), timeout })
    }
}
