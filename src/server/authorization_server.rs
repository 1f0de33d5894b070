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
    config::{Config, OAuth},
    oauth::{self, Events, SigningKeys, State},
    proxy::local::Local,
};

/// What is made at the start, and what it answers now.
pub struct AuthorizationServer {
    state: Arc<ArcSwap<State>>,
    /// For administrators, if they have a listener of their own.
    admin: Arc<ArcSwap<Router>>,
    outside: Handle,
}

impl AuthorizationServer {
    /// Makes it, if there is to be one.
    ///
    /// # Errors
    /// When its keys cannot be read or a client cannot be built.
    pub fn start(config: &Config, rooms: &Rooms) -> anyhow::Result<Option<Self>> {
        let Some(settings) = &config.oauth else { return Ok(None) };
        let keys = SigningKeys::load(settings.keys.clone()).context("the authorization server's signing keys")?;
        let keys = Arc::new(keys);
        let facts = wallet_facts(config, rooms)?;
        let events = Events::start(rooms.store.clone(), settings.events.enabled, &rooms.outside);
        let state = State::new(settings.clone(), Arc::clone(&keys), rooms.store.clone(), facts, events);
        let admin = Arc::new(ArcSwap::from_pointee(oauth::admin_router(state.clone())));
        let state = Arc::new(ArcSwap::from_pointee(state));
        rooms.outside.spawn(lifecycle::watch_signing_keys(keys));
        rooms.outside.spawn(lifecycle::keep_authorization_server(Arc::clone(&state)));
        Ok(Some(Self { state, admin, outside: rooms.outside.clone() }))
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
        Prepared { local, state }
    }

    /// Has it count from now on, but for the proxy's routes, which have it of `prepared.local`.
    pub fn replace(&self, state: State) {
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
        current.with(settings, &self.outside)
    }
}

/// What a reload makes of it, before it counts.
pub struct Prepared {
    /// For the proxy's routes.
    pub local: Local,
    /// For everything else.
    pub state: State,
}
