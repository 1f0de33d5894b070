//! `[server]`: the process itself.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use rustix::fs::Access;

use super::{
    context::Found,
    reader::Section,
    value::{Size, Timeout},
};

/// The process: its threads, its directory and its patience with clients.
#[derive(Clone, Debug)]
pub struct Server {
    /// `threads`: worker threads of the proxy. Default: one per processor core.
    pub threads: usize,
    /// `data_dir` or `TOLLGATE_DATA_DIR`: the `SQLite` file and the usage spool live here. Default: `/var/lib/tollgate`
    /// if that is a writable directory, else `./tollgate-data`.
    pub data_dir: PathBuf,
    /// `grace_period`: how long requests in flight may take after SIGTERM, in whole seconds. Default 10 s.
    pub grace_period: Duration,
    /// `trusted_proxies` or `TOLLGATE_TRUSTED_PROXIES`: peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Default: nobody, unlike
    /// the replaced system, which believed everybody (nevermined.md section 5.1).
    pub trusted_proxies: Vec<IpNet>,
    /// `header_timeout`: a client must have sent its request's head within this. Default 10 s.
    pub header_timeout: Duration,
    /// `body_timeout`: the longest silence while a client sends a body. Default 60 s.
    pub body_timeout: Duration,
    /// `keepalive_timeout`: how long an idle client connection is kept. Default 60 s.
    pub keepalive_timeout: Duration,
    /// `write_timeout`: a client that takes nothing for this long is cut off. Default 60 s.
    pub write_timeout: Duration,
    /// `max_header_bytes`: the largest request head, in bytes. Default 32 KiB, as the replaced system's four buffers.
    pub max_header_bytes: usize,
    /// `max_connections`: client connections at a time, over all listeners. Default 10 000.
    pub max_connections: usize,
}

impl Server {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let timeout = |key, seconds| section.or(key, Timeout(Duration::from_secs(seconds))).0;
        let max_header_bytes = section.or("max_header_bytes", Size(32 << 10)).0;
        if !(1 << 10..=1 << 20).contains(&max_header_bytes) {
            section.mistake("max_header_bytes", "must be from 1KiB to 1MiB");
        }
        Self {
            threads: section.within("threads", 1..=1024, cores),
            data_dir: data_dir(section),
            grace_period: whole_seconds(section, "grace_period", Duration::from_secs(10)),
            trusted_proxies: section.values("trusted_proxies", &["TOLLGATE_TRUSTED_PROXIES"]),
            header_timeout: timeout("header_timeout", 10),
            body_timeout: timeout("body_timeout", 60),
            keepalive_timeout: timeout("keepalive_timeout", 60),
            write_timeout: timeout("write_timeout", 60),
            max_header_bytes: usize::try_from(max_header_bytes).unwrap_or(usize::MAX),
            max_connections: section.within("max_connections", 1..=1_000_000, 10_000),
        }
    }
}

/// A duration that is passed on in seconds, so that a part of one would be lost.
pub(super) fn whole_seconds(section: &Section<'_>, key: &str, default: Duration) -> Duration {
    let duration = section.or(key, default);
    if duration.subsec_nanos() != 0 {
        section.mistake(key, "must be whole seconds");
    }
    duration
}

fn data_dir(section: &Section<'_>) -> PathBuf {
    let shared = Path::new("/var/lib/tollgate");
    let writable = || shared.is_dir() && rustix::fs::access(shared, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let default = || if writable() { shared.into() } else { "tollgate-data".into() };
    let found = section.optional::<PathBuf>("data_dir", &["TOLLGATE_DATA_DIR"]);
    if let Some(Found { value, at }) = &found
        && value.exists()
        && !value.is_dir()
    {
        section.context.mistake(at, format!("{} is not a directory", value.display()));
    }
    found.map_or_else(default, |found| found.value)
}
