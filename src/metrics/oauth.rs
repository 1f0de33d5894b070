//! What the authorization server counts.
//!
//! Labels are words of ours: what clients and wallets are called, and what they ask for, stands in the event log alone.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::Declared;

/// The families of the authorization server.
pub struct OAuth {
    /// What happened, by kind (the words of the event log), outcome, `error` word, kind of wallet and grant type.
    pub events: IntCounterVec,
    /// Events that the event log does not have.
    pub events_lost: IntCounter,
    /// Scopes by kind and outcome: `granted` with a sign-in, or `rejected` at its begin.
    pub scopes: IntCounterVec,
    /// Requests above a limit, by limit.
    pub limited: IntCounterVec,
    /// Time from a request to its answer, by the pattern of the path and the status's class.
    pub request_seconds: HistogramVec,
    /// Time that the hash of a client's secret takes.
    pub secret_seconds: Histogram,
    /// Registered clients, by `active`.
    pub clients: IntGaugeVec,
    /// Refresh tokens that can be used.
    pub refresh_tokens: IntGauge,
}

/// Most answers need the database once or twice; some a hash, the chain or several minutes' patience.
const REQUEST_BUCKETS: [f64; 8] = [2e-3, 5e-3, 2e-2, 0.1, 0.25, 1.0, 5.0, 20.0];
/// A hash takes tens of milliseconds, and more where many are computed.
const SECRET_BUCKETS: [f64; 6] = [1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0];

impl OAuth {
    pub(super) fn declare(declared: &Declared) -> anyhow::Result<Self> {
        Ok(Self {
            events: declared.counters(
                "tollgate_oauth_events_total",
                "What happened at the authorization server.",
                &["event", "outcome", "reason", "wallet", "grant_type"],
            )?,
            events_lost: declared.family(IntCounter::new(
                "tollgate_oauth_events_lost_total",
                "Events that the event log does not have.",
            ))?,
            scopes: declared.counters(
                "tollgate_oauth_scopes_total",
                "Scopes that were granted or rejected, by kind.",
                &["scope", "outcome"],
            )?,
            limited: declared.counters("tollgate_oauth_limited_total", "Requests above a limit.", &["limit"])?,
            request_seconds: declared.family(HistogramVec::new(
                HistogramOpts::new("tollgate_oauth_request_seconds", "From a request to its answer.")
                    .buckets(REQUEST_BUCKETS.to_vec()),
                &["endpoint", "status"],
            ))?,
            secret_seconds: declared.family(Histogram::with_opts(
                HistogramOpts::new("tollgate_oauth_secret_seconds", "Hashing a client's secret.")
                    .buckets(SECRET_BUCKETS.to_vec()),
            ))?,
            clients: declared
                .family(IntGaugeVec::new(Opts::new("tollgate_oauth_clients", "Registered clients."), &["active"]))?,
            refresh_tokens: declared.gauge("tollgate_oauth_refresh_tokens", "Refresh tokens that can be used.")?,
        })
    }

    /// Counts an answer.
    pub fn answered(&self, endpoint: &str, status: u16, seconds: f64) {
        let class = super::CLASSES.get(usize::from(status / 100)).copied().unwrap_or("none");
        self.request_seconds.with_label_values(&[endpoint, class]).observe(seconds);
    }
}
