//! Configuration: one TOML file, the environment (with the names of the system we replace) and flags, in rising
//! precedence, read once into parsed types.
//!
//! After loading there are no strings that mean something else. Mistakes are collected and reported together, each
//! with its file, line and key. Nothing here listens, connects or logs; the files that are *named* (certificates,
//! keys, secrets) are read, so that a mistake in one of them has a line to be reported at.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

mod auth_request;
mod chain;
mod checks;
mod context;
mod credits;
mod database;
mod egress;
mod environment;
mod error;
mod files;
mod listener;
mod log;
mod marketplace;
mod neurons;
mod nevermined;
mod oauth;
mod reader;
mod route;
mod server;
mod service;
mod signed;
mod summary;
#[cfg(test)]
mod tests;
mod upstream;
mod usage;
mod value;

pub use self::{
    auth_request::AuthRequest,
    chain::{Chain, PrivateUrl},
    credits::CreditSettings,
    database::{Database, DatabaseTarget},
    egress::{Egress, Timeouts},
    environment::{AUTH_GATEWAY_VARIABLES, Environment, VARIABLES},
    error::{ConfigError, Mistake},
    listener::{CertificateFiles, ClientCertificates, Introspection, Listener, Tls},
    log::{Log, LogFormat, LogLevel},
    marketplace::{Freshness, Marketplace},
    neurons::{NeuronPolicy, NeuronSource, Neurons, Pylon, PylonIdentity, Subtensor},
    nevermined::Nevermined,
    oauth::{
        Events, KeySource, Lifetimes, Network, OAuth, OAuthCompatibility, RateLimits, Trusted, Wallets, is_private,
    },
    route::{AccessTokenPolicy, Compatibility, Cors, CredentialKind, HostPattern, Origins, Route, RouteTarget},
    server::Server,
    service::Service,
    signed::{Replay, SignedRequests},
    upstream::{HostPort, Http2, Upstream},
    usage::{Report, Usage, WhenFull},
};
use self::{
    checks::Places,
    context::Context,
    environment::{AUTH_GATEWAY_WITHOUT_EFFECT, Variables, WITHOUT_EFFECT},
    reader::Section,
};
use crate::model::{neuron::NetUid, secret::Secret};

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
    /// `[auth_request]`: the replaced nexus-auth's endpoint, for somebody else's proxy. None: off.
    pub auth_request: Option<AuthRequest>,
    /// `[database]`: where usage and credits are kept.
    pub database: Database,
    /// `[usage]`: the way of a usage event.
    pub usage: Usage,
    /// `[nevermined]`: the keys of Nevermined access tokens. None: no such token is accepted.
    pub nevermined: Option<Nevermined>,
    /// `[oauth]`: the authorization server. None: there is none.
    pub oauth: Option<OAuth>,
    /// `[marketplace]`: who describes services and plans. None: only `[[service]]` does.
    pub marketplace: Option<Marketplace>,
    /// `[chain]`: the JSON-RPC node that knows balances. None: credits are local.
    pub chain: Option<Chain>,
    /// `[neurons]`: whose neurons may call. None: nobody's.
    pub neurons: Option<Neurons>,
    /// `[pylon]`: a service that reads the chain of neurons for others.
    pub pylon: Option<Pylon>,
    /// `[subtensor]`: a node of the chain of neurons.
    pub subtensor: Option<Subtensor>,
    /// `[[service]]`: services described here instead of at the marketplace.
    pub services: Vec<Service>,
    /// `[credits]`: how balances are remembered.
    pub credits: CreditSettings,
    /// `[signed_requests]`: what is asked of requests that a neuron has signed. None: no route accepts them.
    pub signed_requests: Option<SignedRequests>,
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
    /// The TOML file. None: drop-in mode, in which the environment alone describes a gateway that behaves like one of the
    /// replaced systems, or like both.
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
    /// `NEXUS_AUTH_LISTEN_ADDR`.
    pub auth_listen: Option<String>,
    /// `NEXUS_PYLON_ENDPOINT`.
    pub pylon_endpoint: Option<String>,
    /// `NEXUS_PYLON_NETUID`.
    pub netuid: Option<String>,
}

impl Config {
    /// Reads the file, if there is one, with the environment and the flags laid over it.
    ///
    /// # Errors
    /// All that is wrong with it, at once.
    pub fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let variables = sources.environment.with_flags(&sources.flags);
        let Some(path) = sources.file else { return assemble(None, "", variables) };
        let text = files::read(path).and_then(|bytes| {
            let wrong = |_| format!("{} is not UTF-8 text", path.display());
            std::str::from_utf8(&bytes).map(str::to_owned).map_err(wrong)
        });
        match text {
            Ok(text) => assemble(Some(path), &text, variables),
            Err(message) => {
                let mistake = Mistake { file: None, line: 0, key: String::new(), message };
                Err(ConfigError { mistakes: vec![mistake] })
            }
        }
    }

    /// The subnets whose neurons are asked about, and of which of them somebody asks who is registered.
    #[must_use]
    pub fn subnets(&self) -> BTreeMap<NetUid, bool> {
        let Some(neurons) = &self.neurons else { return BTreeMap::new() };
        let mut subnets = BTreeMap::from([(neurons.netuid, false)]);
        let policies = self.routes.iter().filter_map(|route| route.neurons.as_ref());
        for policy in policies.chain(self.auth_request.as_ref().map(|settings| &settings.neurons)) {
            *subnets.entry(policy.netuid).or_default() |= policy.asks_neurons();
        }
        subnets
    }

    /// Reads a configuration without an environment. `origin` is what mistakes call the text.
    ///
    /// # Errors
    /// All that is wrong with it, at once.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        assemble(Some(origin), text, Variables::new())
    }
}

fn assemble(file: Option<&Path>, text: &str, variables: Variables) -> Result<Config, ConfigError> {
    let context = Context::new(file, text, variables);
    let config = match toml_span::parse(text) {
        Ok(document) => Some(read(&Section::root(&context, Some(&document)))),
        Err(problem) => {
            context.mistake_at_offset(problem.span.start, problem.to_string());
            None
        }
    };
    context.warn_of_unknown_variables();
    let (mistakes, warnings) = context.into_findings();
    match config {
        Some(config) if mistakes.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(ConfigError { mistakes }),
    }
}

/// Reads every section. What is wrong is recorded in the context, and what is returned then is of no use.
fn read(root: &Section<'_>) -> Config {
    let context = root.context;
    warn_of_variables_without_effect(context);
    refuse_two_systems(context);
    let server = Server::read(&root.section("server"));
    let (listeners, listener_places) = listener::read_all(root).into_iter().unzip();
    let usage = Usage::read(&root.section("usage"));
    let egress = Egress::read(&root.section("egress"));
    let service_sections = root.sections("service");
    let services = service_sections.iter().filter_map(|section| Some((Service::read(section)?, section)));
    let (services, service_places) = services.unzip();
    let upstream_sections = root.sections("upstream");
    let upstreams =
        upstream_sections.iter().filter_map(|section| Some((Upstream::read(section, &egress.timeouts)?, section)));
    let (upstreams, upstream_places): (Vec<_>, _) = upstreams.unzip();
    let (pylon, subtensor) = (root.section("pylon"), root.section("subtensor"));
    let neurons = Neurons::read(&root.section("neurons"), &pylon, &subtensor);
    let subnet = neurons.as_ref().map(|neurons| neurons.netuid);
    let route_sections = root.sections("route");
    let oauth = OAuth::read(&root.section("oauth"), &server);
    let read_route = |section| Route::read(section, &upstreams, subnet, oauth.as_ref());
    let routes = route_sections.iter().filter_map(|section| Some((read_route(section)?, section)));
    let (mut routes, route_places): (Vec<_>, _) = routes.unzip();
    if context.drop_in() {
        routes.push(Route::drop_in());
    }
    if context.replaced().auth_gateway {
        routes.push(Route::authorization_server());
    }
    let config = Config {
        database: Database::read(&root.section("database"), &server.data_dir, usage.report.is_some()),
        oauth,
        server,
        listeners,
        admin: listener::read_admin(&root.section("admin")),
        introspection: Introspection::read(&root.section("introspection")),
        auth_request: AuthRequest::read(&root.section("auth_request"), subnet),
        usage,
        nevermined: Nevermined::read(&root.section("nevermined")),
        marketplace: Marketplace::read(&root.section("marketplace")),
        chain: Chain::read(&root.section("chain")),
        neurons,
        pylon: Pylon::read(&pylon),
        subtensor: Subtensor::read(&subtensor),
        services,
        credits: CreditSettings::read(&root.section("credits")),
        signed_requests: SignedRequests::read(&root.section("signed_requests")),
        egress,
        upstreams,
        routes,
        log: Log::read(&root.section("log")),
        warnings: Vec::new(),
    };
    let places = Places {
        root,
        listeners: listener_places,
        services: service_places,
        upstreams: upstream_places,
        routes: route_places,
        routes_written: route_sections.len(),
    };
    checks::check(&config, &places);
    config
}

/// Two replaced systems answer at the same paths, and one environment cannot say which is meant where.
fn refuse_two_systems(context: &Context<'_>) {
    let replaced = context.replaced();
    if replaced.nevermined && replaced.auth_gateway {
        let message =
            "the environment describes both the Nevermined proxy and the auth gateway: write a configuration file";
        context.mistake_in_variable("JWT_ISSUER", message);
    }
}

/// In drop-in mode only: next to a file, variables with these common names may be somebody else's.
fn warn_of_variables_without_effect(context: &Context<'_>) {
    for (name, why) in WITHOUT_EFFECT {
        if context.drop_in() && context.variable(name).is_some() {
            context.warn(format!("environment: {name} has no effect: {why}"));
        }
    }
    for (name, why) in AUTH_GATEWAY_WITHOUT_EFFECT {
        if context.replaced().auth_gateway && context.variable(name).is_some() {
            context.warn(format!("environment: {name} has no effect: {why}"));
        }
    }
}
