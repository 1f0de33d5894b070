//! The authorization server: its router for the proxy, its listener for administrators, and what keeps its house. A
//! reload replaces its settings; what is kept in the database, and with it everything that is under way, stays.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::{Router, extract::Request};
use tokio::runtime::Handle;
use tower::ServiceExt as _;

use super::{
    assemble::{Rooms, wallet_facts},
    lifecycle,
};
use crate::{
    authn::jwt::{AccessTokens, revocations::Revocations},
    chain::cache::Clock,
    config::{Config, OAuth},
    metrics::Metrics,
    oauth::{self, Events, SigningKeys, State},
    proxy::local::Local,
};

/// What is made at the start, and what it answers now.
pub struct AuthorizationServer {
    state: Arc<ArcSwap<State>>,
    /// What verifies its access tokens on routes.
    access_tokens: Arc<ArcSwap<AccessTokens>>,
    /// For administrators, if they have a listener of their own.
    admin: Arc<ArcSwap<Router>>,
    outside: Handle,
}

impl AuthorizationServer {
    /// Makes it, if there is to be one.
    ///
    /// # Errors
    /// When its keys cannot be read or a client cannot be built.
    pub fn start(config: &Config, rooms: &Rooms, metrics: &Metrics) -> anyhow::Result<Option<Self>> {
        let Some(settings) = &config.oauth else { return Ok(None) };
        let keys = SigningKeys::load(settings.keys.clone()).context("the authorization server's signing keys")?;
        let facts = wallet_facts(config, rooms)?;
        let (enabled, metrics) = (settings.events.enabled, Arc::clone(&metrics.oauth));
        let events = Events::start(rooms.store.clone(), enabled, &rooms.outside, metrics);
        let state = State::new(settings.clone(), Arc::clone(keys.set()), rooms.store.clone(), facts, events);
        let revocations = Revocations::new(settings.revocations_stale_for, Clock::Steady);
        let access_tokens = access_tokens(&state, Arc::new(revocations));
        let server = Self {
            admin: Arc::new(ArcSwap::from_pointee(oauth::admin_router(state.clone()))),
            state: Arc::new(ArcSwap::from_pointee(state)),
            access_tokens: Arc::new(ArcSwap::from_pointee(access_tokens)),
            outside: rooms.outside.clone(),
        };
        let outside = &server.outside;
        outside.spawn(lifecycle::watch_signing_keys(keys));
        outside.spawn(lifecycle::follow_revocations(rooms.store.clone(), Arc::clone(&server.access_tokens)));
        outside.spawn(lifecycle::keep_authorization_server(Arc::clone(&server.state)));
        Ok(Some(server))
    }

    /// Which grants were taken back.
    #[must_use]
    pub fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(self.access_tokens.load().revocations())
    }

    /// The listener for administrators: where, and what answers there, whatever it is by then.
    #[must_use]
    pub fn admin(&self) -> Option<(SocketAddr, Router)> {
        let current = Arc::clone(&self.admin);
        let answer = move |request: Request| {
            let router = Router::clone(&current.load());
            async move { router.oneshot(request).await }
        };
        let address = self.state.load().settings.admin_address?;
        Some((address, Router::new().fallback(answer)))
    }

    /// What these settings make of it. None: there are none any more, and it stays as it is.
    pub fn prepare(&self, settings: Option<&OAuth>) -> Prepared {
        let current = self.state.load();
        let state = settings.map_or_else(|| State::clone(&current), |settings| self.with(settings, &current));
        let local = Local {
            max_body_bytes: state.settings.max_body_bytes,
            router: oauth::router(state.clone()),
            outside: self.outside.clone(),
        };
        let access_tokens = Arc::new(access_tokens(&state, self.revocations()));
        Prepared { local, access_tokens, state }
    }

    /// Has it count from now on, but for the proxy, which has it of `prepared` itself.
    pub fn replace(&self, prepared: Prepared) {
        let Prepared { local: _, access_tokens, state } = prepared;
        self.access_tokens.store(access_tokens);
        self.admin.store(Arc::new(oauth::admin_router(state.clone())));
        self.state.store(Arc::new(state));
    }

    fn with(&self, settings: &OAuth, current: &State) -> State {
        let mut settings = settings.clone();
        let fixed = &current.settings;
        if settings.admin_address != fixed.admin_address {
            tracing::warn!("oauth.admin_address counts from the next start");
            settings.admin_address = fixed.admin_address;
        }
        if settings.keys.directory() != fixed.keys.directory() {
            tracing::warn!("oauth.signing_keys counts from the next start");
            settings.keys = fixed.keys.clone();
        }
        if settings.revocations_stale_for != fixed.revocations_stale_for {
            tracing::warn!("oauth.revocations_stale_for counts from the next start");
        }
        current.with(settings, &self.outside)
    }
}

/// What verifies the tokens that are issued by these settings.
fn access_tokens(state: &State, revocations: Arc<Revocations>) -> AccessTokens {
    let (issuer, lifetime) = (state.settings.issuer.clone(), state.settings.lifetimes.access_token);
    AccessTokens::new(Arc::clone(&state.keys), issuer, lifetime, revocations)
}

/// What a reload makes of it, before it counts.
pub struct Prepared {
    /// For the proxy's routes to it.
    pub local: Local,
    /// For the proxy's routes that take its tokens.
    pub access_tokens: Arc<AccessTokens>,
    state: State,
}
