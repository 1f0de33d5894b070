//! `[egress]`: how upstreams are reached, and which ones may be.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{marketplace::read_ca, reader::Section, value::Timeout};

/// The way out.
#[derive(Clone, Debug)]
pub struct Egress {
    /// `allow` or `TOLLGATE_UPSTREAM_ALLOW`: networks that an upstream named by a token may be in although they are
    /// private, loopback or otherwise not public. Default: none. Upstreams named in the configuration need no leave.
    pub allow: Vec<IpNet>,
    /// `extra_ca` or `TOLLGATE_UPSTREAM_CA`: a PEM bundle trusted for upstreams besides the system's.
    pub extra_ca: Option<PathBuf>,
    /// `connect_timeout`, `read_timeout`, `write_timeout`, `idle_timeout`, `total_connect_timeout`.
    pub timeouts: Timeouts,
    /// `keepalive_pool`: idle upstream connections that are kept, over all upstreams. Default 256.
    pub keepalive_pool: usize,
    /// `resolve_ttl`: how long an upstream's addresses count before its name is resolved again. Default 30 s.
    pub resolve_ttl: Duration,
}

/// How long to wait for an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// `connect_timeout`: for the TCP connection. Default 5 s.
    pub connect: Duration,
    /// `total_connect_timeout`: for TCP and TLS together. Default 10 s.
    pub total_connect: Duration,
    /// `read_timeout`: the longest silence while waiting for or reading an answer. Default 60 s.
    pub read: Duration,
    /// `write_timeout`: the longest an upstream may take nothing. Default 60 s.
    pub write: Duration,
    /// `idle_timeout`: how long an unused connection is kept. Default 60 s.
    pub idle: Duration,
}

impl Egress {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let seconds = Duration::from_secs;
        let default = Timeouts {
            connect: seconds(5),
            total_connect: seconds(10),
            read: seconds(60),
            write: seconds(60),
            idle: seconds(60),
        };
        Self {
            allow: section.values("allow", &["TOLLGATE_UPSTREAM_ALLOW"]),
            extra_ca: read_ca(section, "extra_ca", &["TOLLGATE_UPSTREAM_CA"]),
            timeouts: Timeouts::read(section, &default),
            keepalive_pool: section.within("keepalive_pool", 0..=1_000_000, 256),
            resolve_ttl: section.or("resolve_ttl", Timeout(seconds(30))).0,
        }
    }
}

impl Timeouts {
    /// The five `…_timeout` keys of a section.
    pub(super) fn read(section: &Section<'_>, default: &Self) -> Self {
        let timeout = |key, default| section.or(key, Timeout(default)).0;
        let timeouts = Self {
            connect: timeout("connect_timeout", default.connect),
            total_connect: timeout("total_connect_timeout", default.total_connect),
            read: timeout("read_timeout", default.read),
            write: timeout("write_timeout", default.write),
            idle: timeout("idle_timeout", default.idle),
        };
        let set_here = section.has("connect_timeout") || section.has("total_connect_timeout");
        if set_here && timeouts.total_connect < timeouts.connect {
            section.mistake("total_connect_timeout", "is shorter than `connect_timeout`, which is a part of it");
        }
        timeouts
    }
}
