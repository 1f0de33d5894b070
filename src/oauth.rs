//! The authorization server: users sign in with a wallet, applications get tokens (RFC 6749, OpenID Connect Core).
//!
//! One file per endpoint, each with its `routes`; [`router`] puts them together. Nothing here knows by which listener a
//! request came: the proxy and the listeners of the composition root call the router, and say in a
//! [`ConnectInfo`](axum::extract::ConnectInfo) who is at the other end of the connection.

pub mod account;
pub mod address;
pub mod admin;
pub mod asked;
pub mod authorize;
pub mod body;
pub mod browser;
pub mod claims;
pub mod client;
pub mod consent;
pub mod cors;
pub mod demo;
pub mod device;
pub mod direct;
pub mod error;
pub mod events;
pub mod facts;
pub mod introspection;
pub mod issue;
pub mod keys;
pub mod message;
pub mod metadata;
pub mod opaque;
pub mod origin;
pub mod page;
pub mod pkce;
pub mod rates;
pub mod redirect;
pub mod refresh_token;
pub mod registration;
pub mod resource;
pub mod secret;
pub mod sign_in;
pub mod statistics;
pub mod takeover;
pub mod token;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request, State as Extract},
    http::{HeaderValue, header},
    middleware::{self, Next},
    response::Response,
};
use tokio::runtime::Handle;

pub use self::{
    address::ClientAddress,
    body::Body,
    client::Clients,
    error::{Code, Error},
    events::Events,
    facts::WalletFacts,
    keys::SigningKeys,
    rates::{Limit, RateKey, Rates, RetryAfter},
};
pub use crate::config::OAuth as Settings;
use crate::{jose::KeySet, metrics::OAuth as Metrics, model::scope, store::Store, wallet::throwaway::ThrowawayKey};

/// What every endpoint may use. Cheap to clone.
#[derive(Clone)]
pub struct State {
    /// Clients, codes, tokens: whatever several gateways share.
    pub store: Store,
    /// How it was configured.
    pub settings: Arc<Settings>,
    /// What tokens are signed with.
    pub keys: Arc<KeySet>,
    /// Who may ask for tokens.
    pub clients: Arc<Clients>,
    /// How often things may be done.
    pub rates: Arc<Rates>,
    /// What the chains say of wallets.
    pub facts: Arc<WalletFacts>,
    /// What is remembered of sign-ins.
    pub events: Arc<Events>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Signs in the demonstration for those who have no wallet. None: there is no demonstration, or this is no place for it.
    pub throwaway_key: Option<Arc<ThrowawayKey>>,
    /// When the process began.
    pub started: Instant,
}

impl State {
    /// Puts the parts together.
    #[must_use]
    pub fn new(settings: Settings, keys: Arc<KeySet>, store: Store, facts: WalletFacts, events: Events) -> Self {
        let metrics = Arc::clone(events.metrics());
        let rates = Arc::new(Rates::new(store.clone(), Arc::clone(&metrics)));
        let clients = Clients::new(store.clone(), Arc::clone(&rates), Arc::clone(&metrics), &settings);
        let throwaway_key = (settings.demo && !settings.production).then(Arc::default);
        Self {
            store,
            settings: Arc::new(settings),
            keys,
            clients: Arc::new(clients),
            rates,
            facts: Arc::new(facts),
            events: Arc::new(events),
            metrics,
            throwaway_key,
            started: Instant::now(),
        }
    }

    /// The same with other settings. What was counted and what is remembered stays, as far as they allow. If events are to
    /// be written now, they are on this runtime.
    #[must_use]
    pub fn with(&self, settings: Settings, runtime: &Handle) -> Self {
        let mut changed = self.clone();
        let clients = |settings: &Settings| (settings.compatibility, settings.limits.secrets);
        if clients(&settings) != clients(&self.settings) {
            let (rates, metrics) = (Arc::clone(&self.rates), Arc::clone(&self.metrics));
            changed.clients = Arc::new(Clients::new(self.store.clone(), rates, metrics, &settings));
        }
        if settings.events.enabled != self.settings.events.enabled {
            // What is in the queue of the one before is still written.
            let (store, metrics) = (self.store.clone(), Arc::clone(&self.metrics));
            changed.events = Arc::new(Events::start(store, settings.events.enabled, runtime, metrics));
        }
        let throwaway = settings.demo && !settings.production;
        changed.throwaway_key = throwaway.then(|| self.throwaway_key.clone().unwrap_or_default());
        changed.settings = Arc::new(settings);
        changed
    }

    /// Whether the admin API is on a listener of its own.
    #[must_use]
    pub fn has_admin_listener(&self) -> bool {
        self.settings.admin_address.is_some()
    }
}

/// Everything but what has a listener of its own.
pub fn router(state: State) -> Router {
    let mut limited = Router::new()
        .merge(authorize::routes())
        .merge(token::routes())
        .merge(device::device_routes())
        .merge(introspection::routes());
    if !state.has_admin_listener() {
        limited = limited.merge(admin::routes(&state));
    }
    let limited = limited.layer(middleware::from_fn_with_state(state.clone(), rates::limit_requests));
    let router = Router::new()
        .merge(limited)
        .merge(direct::routes(&state))
        .merge(consent::routes(&state))
        .merge(device::routes(&state))
        .merge(demo::routes(&state))
        .merge(page::routes())
        .merge(metadata::routes());
    let router = with_fallbacks(router);
    finish(router.layer(middleware::from_fn_with_state(state.clone(), cors::answer)), state)
}

/// The listener for administrators: the admin API, health and metadata.
pub fn admin_router(state: State) -> Router {
    let admin = admin::routes(&state).layer(middleware::from_fn_with_state(state.clone(), rates::limit_requests));
    finish(with_fallbacks(Router::new().merge(admin).merge(metadata::routes())), state)
}

/// Times an answer. A path is counted under its pattern, and one that there is not under `-`.
async fn measure(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let endpoint = path.as_ref().map_or("-", MatchedPath::as_str);
    state.metrics.answered(endpoint, response.status().as_u16(), begun.elapsed().as_secs_f64());
    response
}

async fn unkept(mut response: Response) -> Response {
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// To come before the layers, which would otherwise not be around what is not there.
fn with_fallbacks(router: Router<State>) -> Router<State> {
    router.fallback(error::not_found).method_not_allowed_fallback(error::method_not_allowed)
}

/// What stands around all endpoints: who is calling, how errors are told, how large a body may be, and that nobody keeps
/// an answer that does not say it may be kept.
fn finish(router: Router<State>, state: State) -> Router {
    router
        .layer(axum::extract::DefaultBodyLimit::max(state.settings.max_body_bytes))
        .layer(middleware::from_fn_with_state(state.clone(), address::find))
        .layer(middleware::from_fn_with_state(state.clone(), error::render))
        .layer(middleware::map_response(unkept))
        .layer(middleware::from_fn_with_state(state.clone(), measure))
        .with_state(state)
}
