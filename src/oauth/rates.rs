//! Rate limits: so many in a minute, counted by all gateways together.
//!
//! Minutes begin on the clock's minute. A gateway takes a tenth of a limit out of the store at a time and spends it without
//! asking, so that the store is asked rarely and never are more let through than the limit; some fewer may be, if another
//! gateway has taken what it does not need. While the store is away each gateway counts for itself.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Request, State as Extract},
    http::HeaderValue,
    middleware::Next,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;

use super::{ClientAddress, Error, State};
use crate::{metrics::OAuth as Metrics, model::clock, store::Store};

const WINDOW_MICROS: i64 = 60_000_000;

/// Keys that are remembered at a time. Forgetting one costs a question to the store.
const MAX_KEYS: usize = 100_000;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateKey {
    /// Which limit it is, for the metrics.
    limit: &'static str,
    key: String,
}

impl RateKey {
    /// What one address does at one place, as far as this limit goes. All of an IPv6 network that one customer gets (/64)
    /// counts as one.
    #[must_use]
    pub fn address(limit: &'static str, place: &str, address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).to_string(),
        };
        Self { limit, key: format!("address:{address}:{limit}:{place}") }
    }

    /// What one client does.
    #[must_use]
    pub fn client(id: &str) -> Self {
        Self { limit: "client", key: format!("client:{id}") }
    }

    /// What anybody does with one code that people type.
    #[must_use]
    pub fn user_code(code: &str) -> Self {
        Self { limit: "user_code", key: format!("code:{code}") }
    }
}

/// How many in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub u32);

/// Too many; this long until there are more, at least one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

/// One more was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many more would be, as far as is known here.
    pub remaining: u32,
}

/// What is known here of a key in the current window.
#[derive(Default)]
struct Known {
    window: i64,
    /// Taken out of the store and not spent.
    spare: u32,
    /// Left in the store when it was last asked.
    beyond: u32,
    /// Let through while the store was away.
    unasked: u32,
    /// The store had nothing left.
    empty: bool,
}

/// Counts.
pub struct Rates {
    store: Store,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<RateKey, Known>>,
}

impl From<RetryAfter> for Error {
    fn from(RetryAfter(wait): RetryAfter) -> Self {
        Self::too_many_requests(wait)
    }
}

impl Rates {
    pub(super) fn new(store: Store, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics, known: Mutex::default() }
    }

    /// Lets one more through, or says how long to wait.
    ///
    /// # Errors
    /// When there were as many as may be.
    pub async fn take(&self, key: RateKey, limit: Limit) -> Result<Taken, RetryAfter> {
        let refusals = self.metrics.limited.with_label_values(&[key.limit]);
        let taken = self.taken(key, limit).await;
        if taken.is_err() {
            refusals.inc();
        }
        taken
    }

    async fn taken(&self, key: RateKey, limit: Limit) -> Result<Taken, RetryAfter> {
        let now = clock::now_micros();
        let window = now.saturating_sub(now.rem_euclid(WINDOW_MICROS));
        let retry_after = retry_after(now, window);
        if let Some(known) = self.spend(&key, window) {
            return known.ok_or(retry_after);
        }
        let share = (limit.0 / 10).max(1);
        let answer = self.store.take_rate(&key.key, window, share).await;
        let mut all = self.known.lock();
        if all.len() >= MAX_KEYS {
            all.clear();
        }
        let known = all.entry(key).or_default();
        known.begin(window);
        match answer {
            Ok(total) => {
                let total = u32::try_from(total).unwrap_or(u32::MAX);
                let granted = share.min(limit.0.saturating_sub(total.saturating_sub(share)));
                known.beyond = limit.0.saturating_sub(total);
                known.empty = granted == 0;
                known.spare = known.spare.saturating_add(granted);
            }
            Err(error) => {
                tracing::debug!(%error, "a rate limit is counted by this gateway alone");
                known.unasked = known.unasked.saturating_add(1);
                known.spare = known.spare.saturating_add(u32::from(known.unasked <= limit.0));
            }
        }
        known.spend().ok_or(retry_after)
    }

    /// None: the store must be asked. Some(None): there is nothing left.
    #[expect(clippy::option_option, reason = "not known and nothing left are different")]
    fn spend(&self, key: &RateKey, window: i64) -> Option<Option<Taken>> {
        let mut all = self.known.lock();
        let known = all.get_mut(key)?;
        known.begin(window);
        if known.spare == 0 && !known.empty { None } else { Some(known.spend()) }
    }
}

impl Known {
    fn begin(&mut self, window: i64) {
        if self.window != window {
            *self = Self { window, ..Self::default() };
        }
    }

    fn spend(&mut self) -> Option<Taken> {
        self.spare = self.spare.checked_sub(1)?;
        Some(Taken { remaining: self.spare.saturating_add(self.beyond) })
    }
}

fn retry_after(now: i64, window: i64) -> RetryAfter {
    let left = window.saturating_add(WINDOW_MICROS).saturating_sub(now);
    let seconds = u64::try_from(left).unwrap_or_default().div_ceil(1_000_000);
    RetryAfter(Duration::from_secs(seconds.clamp(1, 60)))
}

/// Limits all that one address does at these endpoints together.
pub async fn limit_requests(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    request: Request,
    next: Next,
) -> Response {
    let limit = Limit(state.settings.limits.requests);
    limited(&state, RateKey::address("requests", "", address), limit, request, next).await
}

/// Limits what one address does at each of these endpoints.
pub async fn limit_challenges(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    request: Request,
    next: Next,
) -> Response {
    let limit = Limit(state.settings.limits.challenges);
    let key = RateKey::address("challenges", request.uri().path(), address);
    limited(&state, key, limit, request, next).await
}

/// With the headers that the replaced system's answers had.
async fn limited(state: &State, key: RateKey, limit: Limit, request: Request, next: Next) -> Response {
    let now = clock::now_micros();
    let RetryAfter(reset) = retry_after(now, now.saturating_sub(now.rem_euclid(WINDOW_MICROS)));
    let (mut response, remaining) = match state.rates.take(key, limit).await {
        Ok(taken) => (next.run(request).await, taken.remaining),
        Err(retry_after) => (Error::from(retry_after).into_response(), 0),
    };
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(limit.0));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(reset.as_secs()));
    response
}
