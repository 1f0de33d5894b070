//! Configuration: one TOML file, the environment (with the names of the system we replace) and flags, in rising
//! precedence, read once into parsed types.
//!
//! After loading there are no strings that mean something else. Mistakes are collected and reported together, each
//! with its file, line and key. Nothing here listens, connects or logs; the files that are *named* (certificates,
//! keys, secrets) are read, so that a mistake in one of them has a line to be reported at.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

mod chain;
mod credits;
mod database;
mod egress;
mod environment;
mod error;
mod listener;
mod log;
mod marketplace;
mod nevermined;
mod route;
mod server;
mod service;
mod upstream;
mod usage;

pub use self::{
    chain::{Chain, PrivateUrl},
    credits::CreditSettings,
    database::{Database, DatabaseTarget},
    egress::{Egress, Timeouts},
    environment::Environment,
    error::{ConfigError, Mistake},
    listener::{CertificateFiles, Introspection, Listener, Tls},
    log::{Log, LogFormat, LogLevel},
    marketplace::{Freshness, Marketplace},
    nevermined::Nevermined,
    route::{Compatibility, Cors, CredentialKind, HostPattern, Origins, Route, RouteTarget},
    server::Server,
    service::{CreditSource, Service},
    upstream::{HostPort, Http2, Upstream},
    usage::{Report, Usage, WhenFull},
};
use crate::model::secret::Secret;

/// Everything the gateway was told.
#[derive(Debug)]
pub struct Config {
    /// `[server]`: the process itself.
    pub server: Server,
    /// `[[listener]]`: where clients connect.
    pub listeners: Vec<Listener>,
    /// `admin.address` or `TOLLGATE_LISTEN_ADMIN`: health, readiness and metrics. None: off.
    pub admin: Option<SocketAddr>,
    /// `[introspection]`: the replaced system's decision endpoint, for somebody else's proxy. None: off.
    pub introspection: Option<Introspection>,
    /// `[database]`: where usage and credits are kept.
    pub database: Database,
    /// `[usage]`: the way of a usage event.
    pub usage: Usage,
    /// `[nevermined]`: the keys of Nevermined access tokens. None: no such token is accepted.
    pub nevermined: Option<Nevermined>,
    /// `[marketplace]`: who describes services and plans. None: only `[[service]]` does.
    pub marketplace: Option<Marketplace>,
    /// `[chain]`: the JSON-RPC node that knows balances. None: credits are local.
    pub chain: Option<Chain>,
    /// `[[service]]`: services described here instead of at the marketplace.
    pub services: Vec<Service>,
    /// `[credits]`: how balances are remembered.
    pub credits: CreditSettings,
    /// `[egress]`: how upstreams are reached, and which ones may be.
    pub egress: Egress,
    /// `[[upstream]]`: services with a fixed address.
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`: which requests go where, and who may send them; in the order of the file.
    pub routes: Vec<Route>,
    /// `[log]`: what is written about it.
    pub log: Log,
    /// What is allowed and should not stay so. To be logged at every start; never contains a secret.
    pub warnings: Vec<String>,
}

/// What a configuration is made of, in rising precedence.
pub struct Sources<'a> {
    /// The TOML file. None: drop-in mode, in which the environment alone describes a gateway that behaves like the
    /// replaced system.
    pub file: Option<&'a Path>,
    /// The environment.
    pub environment: Environment,
    /// The command line.
    pub flags: Flags,
}

/// Settings given on the command line. Each overrides the variable named with it.
#[derive(Debug, Default)]
pub struct Flags {
    /// `TOLLGATE_LISTEN_TLS`.
    pub listen_tls: Option<String>,
    /// `TOLLGATE_LISTEN_HTTP`.
    pub listen_http: Option<String>,
    /// `TOLLGATE_LISTEN_ADMIN`.
    pub listen_admin: Option<String>,
    /// `TOLLGATE_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `DATABASE_URL`.
    pub database_url: Option<Secret>,
    /// `TOLLGATE_LOG`.
    pub log: Option<String>,
}
