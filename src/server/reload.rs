//! What SIGHUP replaces: built out of a configuration as a whole, and put in use only if all of it can be.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, bail};
use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    assemble::{Rooms, services},
    authorization_server::{self, AuthorizationServer},
    subnets,
};
use crate::{
    authn::{certificate::Rules, nevermined::TokenVerifier},
    authz::DecisionPoint,
    chain::neurons::Neurons,
    config::{Compatibility, Config, RouteTarget, SignedRequests},
    decision::{
        auth_request::{self, Endpoint},
        introspect::Decider,
    },
    metrics::Metrics,
    model::endpoint::Origin,
    proxy::{Serving, held_body::Budget, routes::Routes, signed::Signed, upstream::Upstreams},
};

/// What a reload replaces, and what it needs to do so.
pub struct Reloading {
    rooms: Rooms,
    metrics: Arc<Metrics>,
    /// For the proxy.
    pub serving: Arc<ArcSwap<Serving>>,
    /// For somebody else's proxy.
    pub decider: Arc<ArcSwapOption<Decider>>,
    /// For NGINX, and where it listens until the next start.
    pub auth_request: Option<(SocketAddr, Arc<ArcSwap<Endpoint>>)>,
    /// The authorization server.
    pub authorization_server: Option<AuthorizationServer>,
}

impl Reloading {
    /// Builds it for the first time.
    ///
    /// # Errors
    /// When a setting cannot be honoured.
    pub fn start(config: &Config, rooms: &Rooms, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let authorization_server = AuthorizationServer::start(config, rooms, metrics)?;
        let Replaced { serving, decider, auth_request, subnets, .. } =
            Replaced::build(config, rooms, metrics, authorization_server.as_ref())?;
        watch(rooms, subnets);
        let address = config.auth_request.as_ref().map(|settings| settings.address);
        Ok(Self {
            rooms: rooms.clone(),
            metrics: Arc::clone(metrics),
            serving: Arc::new(ArcSwap::from_pointee(serving)),
            decider: Arc::new(ArcSwapOption::from_pointee(decider)),
            auth_request: address.zip(auth_request.map(|endpoint| Arc::new(ArcSwap::new(endpoint)))),
            authorization_server,
        })
    }

    /// Replaces routes, upstreams, keys, services, subnets, the endpoint of `auth_request` and the settings of the
    /// authorization server. Requests in flight keep what they began with.
    ///
    /// # Errors
    /// When a setting cannot be honoured; then nothing is replaced.
    pub fn apply(&self, config: &Config) -> anyhow::Result<()> {
        let own = self.authorization_server.as_ref();
        let Replaced { serving, decider, auth_request, authorization_server, subnets } =
            Replaced::build(config, &self.rooms, &self.metrics, own)?;
        self.rooms.facts.configure(services(config));
        watch(&self.rooms, subnets);
        self.serving.store(Arc::new(serving));
        self.decider.store(decider.map(Arc::new));
        let address = config.auth_request.as_ref().map(|settings| settings.address);
        if address != self.auth_request.as_ref().map(|(address, _)| *address) {
            tracing::warn!(
                "auth_request.address: where this endpoint listens, and whether, counts from the next start"
            );
        }
        if let (Some((_, current)), Some(endpoint)) = (&self.auth_request, auth_request) {
            current.store(endpoint);
        }
        if let Some((own, prepared)) = own.zip(authorization_server) {
            own.replace(prepared);
        }
        Ok(())
    }
}

fn watch(rooms: &Rooms, prepared: Option<subnets::Prepared>) {
    if let Some((subnets, prepared)) = rooms.subnets.as_ref().zip(prepared) {
        subnets.watch(prepared);
    }
}

/// What a reload replaces, built and not in use yet.
struct Replaced {
    serving: Serving,
    decider: Option<Decider>,
    auth_request: Option<Arc<Endpoint>>,
    authorization_server: Option<authorization_server::Prepared>,
    subnets: Option<subnets::Prepared>,
}

impl Replaced {
    fn build(
        config: &Config,
        rooms: &Rooms,
        metrics: &Arc<Metrics>,
        authorization_server: Option<&AuthorizationServer>,
    ) -> anyhow::Result<Self> {
        if config.neurons.is_some() && rooms.subnets.is_none() {
            bail!("neurons: this section is new, and counts from the next start");
        }
        if config.oauth.is_some() && authorization_server.is_none() {
            bail!("oauth: this section is new, and counts from the next start");
        }
        let tokens = tokens(config)?.map(Arc::new);
        let subnets = rooms.subnets.as_ref().map(|subnets| subnets.prepare(config)).transpose()?;
        let neurons = subnets.as_ref().map(|prepared| Arc::clone(&prepared.tables));
        let auth_request = auth_request(config, neurons.as_ref(), metrics);
        let decisions =
            Arc::new(DecisionPoint::new(Arc::clone(&rooms.facts), Arc::clone(&rooms.ledger), neurons.clone()));
        let asked_about = config.routes.iter().find(|route| route.target == RouteTarget::Token);
        let decider = asked_about.zip(tokens.clone()).map(|(route, tokens)| Decider {
            route: route.clone(),
            tokens,
            decisions: Arc::clone(&decisions),
        });
        let prepared = authorization_server.map(|server| server.prepare(config.oauth.as_ref()));
        let (local, access_tokens) =
            prepared.as_ref().map(|prepared| (prepared.local.clone(), Arc::clone(&prepared.access_tokens))).unzip();
        let signed = |terms: SignedRequests| Signed {
            bodies: Budget::new(terms.max_held_bytes, metrics.held_body_bytes.clone()),
            terms,
        };
        let serving = Serving {
            routes: Routes::new(&config.routes, metrics),
            upstreams: Upstreams::new(&config.egress, config.upstreams.clone(), rooms.outside.clone()),
            tokens,
            access_tokens,
            neurons,
            signed: config.signed_requests.clone().map(signed),
            decisions,
            authorization_server: local,
            trusted_proxies: config.server.trusted_proxies.clone(),
            max_header_bytes: config.server.max_header_bytes,
            body_timeout: config.server.body_timeout,
            write_timeout: config.server.write_timeout,
        };
        Ok(Self { serving, decider, auth_request, authorization_server: prepared, subnets })
    }
}

/// The endpoint of nexus-auth, if it is wanted.
fn auth_request(config: &Config, tables: Option<&Arc<Neurons>>, metrics: &Arc<Metrics>) -> Option<Arc<Endpoint>> {
    // Nobody asks for the endpoint without a source of keys (config/checks.rs).
    let (settings, tables) = (config.auth_request.as_ref()?, tables?);
    let options = auth_request::Options {
        rules: match settings.compatibility {
            Compatibility::NexusAuth => Rules::NexusAuth,
            Compatibility::Standard | Compatibility::Nevermined => Rules::Strict,
        },
        policy: settings.neurons.clone(),
        trusted_peers: settings.trusted_peers.clone(),
        health_path: settings.health_path.clone(),
    };
    Some(Endpoint::new(options, Arc::clone(tables), Arc::clone(metrics)))
}

fn tokens(config: &Config) -> anyhow::Result<Option<TokenVerifier>> {
    let Some(settings) = &config.nevermined else { return Ok(None) };
    let backend = match (&settings.backend, &settings.proxy_auth_token) {
        (Some(url), Some(token)) => Some((Origin::of(url)?, token.clone())),
        _ => None,
    };
    let keys = settings.keys.clone();
    let verifier = TokenVerifier::new(keys, backend, settings.token_cache_entries, settings.max_token_bytes);
    Ok(Some(verifier.context("nevermined.proxy_auth_token")?))
}
