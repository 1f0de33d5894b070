//! `[server]`: the process itself.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

/// The process: its threads, its directory and its patience with clients.
#[derive(Clone, Debug)]
pub struct Server {
    /// `threads`: worker threads of the proxy. Default: one per processor core.
    pub threads: usize,
    /// `data_dir` or `TOLLGATE_DATA_DIR`: the `SQLite` file and the usage spool live here. Default: `/var/lib/tollgate`
    /// if that is a writable directory, else `./tollgate-data`.
    pub data_dir: PathBuf,
    /// `grace_period`: how long requests in flight may take after SIGTERM. Default 10 s.
    pub grace_period: Duration,
    /// `trusted_proxies`: peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Default: nobody, unlike
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
