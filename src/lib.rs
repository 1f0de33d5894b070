//! tollgate stands in front of HTTP services which not everybody may use: it decides on the request path who may
//! pass, meters what they use, and settles it.
//!
//! The map of the house, with who may import whom, is `docs/architecture.md`. A request is followed best from
//! [`proxy`], a usage event from [`usage`].

pub mod admin;
pub mod authn;
pub mod authz;
pub mod chain;
pub mod cli;
pub mod config;
pub mod credits;
pub mod decision;
pub mod jose;
pub mod metrics;
pub mod model;
pub mod oauth;
pub mod proxy;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod usage;
pub mod wallet;
