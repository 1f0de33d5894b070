//! The authorization server: users sign in with a wallet, applications get tokens (RFC 6749, OpenID Connect Core).
//!
//! One file per endpoint, each with its `routes`; [`router`] puts them together. Nothing here knows by which listener a
//! request came: the proxy and the listeners of the composition root call the router, and say in a
//! [`ConnectInfo`](axum::extract::ConnectInfo) who is at the other end of the connection.

pub mod address;
pub mod admin;
pub mod body;
pub mod client;
pub mod cors;
pub mod error;
pub mod keys;
pub mod metadata;
pub mod rates;
pub mod registration;
pub mod scope;
pub mod secret;

use std::{sync::Arc, time::Instant};

use axum::{Router, middleware};

pub use self::{
    address::ClientAddress,
    body::Body,
    client::Clients,
    error::{Code, Error},
    keys::SigningKeys,
    rates::{Limit, RateKey, Rates, RetryAfter},
};
pub use crate::config::OAuth as Settings;
use crate::store::Store;

/// What every endpoint may use. Cheap to clone.
#[derive(Clone)]
pub struct State {
    /// Clients, codes, tokens: whatever several gateways share.
    pub store: Store,
    /// How it was configured.
    pub settings: Arc<Settings>,
    /// What tokens are signed with.
    pub keys: Arc<SigningKeys>,
    /// Who may ask for tokens.
    pub clients: Arc<Clients>,
    /// How often things may be done.
    pub rates: Arc<Rates>,
    /// When the process began.
    pub started: Instant,
}

impl State {
    /// Puts the parts together.
    #[must_use]
    pub fn new(settings: Settings, keys: Arc<SigningKeys>, store: Store) -> Self {
        let rates = Arc::new(Rates::new(store.clone()));
        let clients = Clients::new(store.clone(), Arc::clone(&rates), settings.compatibility, settings.limits.secrets);
        Self { store, settings: Arc::new(settings), keys, clients: Arc::new(clients), rates, started: Instant::now() }
    }

    /// Whether the admin API is on a listener of its own.
    #[must_use]
    pub fn has_admin_listener(&self) -> bool {
        self.settings.admin_address.is_some()
    }
}

/// Everything but what has a listener of its own.
pub fn router(state: State) -> Router {
    let mut limited = Router::new();
    if !state.has_admin_listener() {
        limited = limited.merge(admin::routes(&state));
    }
    let limited = limited.layer(middleware::from_fn_with_state(state.clone(), rates::limit_requests));
    let router = with_fallbacks(Router::new().merge(limited).merge(metadata::routes()));
    finish(router.layer(middleware::from_fn_with_state(state.clone(), cors::answer)), state)
}

/// The listener for administrators: the admin API, health and metadata.
pub fn admin_router(state: State) -> Router {
    let admin = admin::routes(&state).layer(middleware::from_fn_with_state(state.clone(), rates::limit_requests));
    finish(with_fallbacks(Router::new().merge(admin).merge(metadata::routes())), state)
}

/// To come before the layers, which would otherwise not be around what is not there.
fn with_fallbacks(router: Router<State>) -> Router<State> {
    router.fallback(error::not_found).method_not_allowed_fallback(error::method_not_allowed)
}

/// What stands around all endpoints: who is calling, how errors are told, how large a body may be.
fn finish(router: Router<State>, state: State) -> Router {
    router
        .layer(axum::extract::DefaultBodyLimit::max(state.settings.max_body_bytes))
        .layer(middleware::from_fn_with_state(state.clone(), address::find))
        .layer(middleware::from_fn_with_state(state.clone(), error::render))
        .with_state(state)
}
