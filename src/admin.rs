//! The admin listener: is it alive, is it ready, and what has it counted.
//!
//! For operators and their machines alone: loopback unless configured otherwise. It changes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use crate::{
    authn::jwt::revocations::Revocations,
    chain::{
        Facts,
        cache::Statistics,
        fault::{Calls, Fault},
        neurons::Neurons,
        subtensor::owners::Owners,
    },
    credits::Ledger,
    metrics::Metrics,
    model::clock::{self, Timestamp},
    replay::Replays,
    telemetry::AccessLog,
    tls::Certificates,
    usage::{report::ReportStats, spool::Spool, writer::WriterStats},
};

/// Whether requests should be sent here.
#[derive(Clone)]
pub struct Readiness {
    phase: Arc<AtomicU8>,
    spool: Arc<Spool>,
}

const STARTING: u8 = 0;
const LISTENING: u8 = 1;
const STOPPING: u8 = 2;

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { phase: Arc::new(AtomicU8::new(STARTING)), spool }
    }

    /// Every listener answers.
    pub fn listening(&self) {
        self.phase.store(LISTENING, Ordering::Relaxed);
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.phase.store(STOPPING, Ordering::Relaxed);
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == STOPPING
    }

    /// What is missing. A slow database is not: the spool exists for that.
    fn missing(&self) -> Option<&'static str> {
        match self.phase.load(Ordering::Relaxed) {
            STARTING => Some("starting"),
            STOPPING => Some("stopping"),
            _ if !self.spool.is_writable() => Some("the usage spool takes nothing: its disk is full or broken"),
            _ => None,
        }
    }
}

/// What the metrics are read from when somebody asks.
#[derive(Clone)]
pub struct Watched {
    /// The families.
    pub metrics: Arc<Metrics>,
    /// The spool.
    pub spool: Arc<Spool>,
    /// The writer's figures.
    pub writer: Arc<WriterStats>,
    /// Reports to the backend, if there are any.
    pub reports: Option<Arc<ReportStats>>,
    /// Look-ups.
    pub facts: Arc<Facts>,
    /// Neurons, if there are any.
    pub neurons: Option<Arc<ArcSwap<Neurons>>>,
    /// Whose hotkeys are whose, if anybody asks.
    pub owners: Option<Owners>,
    /// What verifies our own access tokens, if there are any.
    pub revocations: Option<Arc<Revocations>>,
    /// Accounts.
    pub ledger: Arc<Ledger>,
    /// Used signed requests.
    pub replays: Arc<Replays>,
    /// Certificates.
    pub certificates: Vec<Arc<Certificates>>,
    /// The access log.
    pub access_log: Option<Arc<AccessLog>>,
    /// Readiness.
    pub readiness: Readiness,
}

/// The three pages.
pub fn router(watched: Watched) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(watched)
}

async fn ready(State(watched): State<Watched>) -> impl IntoResponse {
    match watched.readiness.missing() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
    }
}

async fn metrics(State(watched): State<Watched>) -> impl IntoResponse {
    watched.observe();
    let content_type = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    match watched.metrics.render() {
        Ok(text) => (StatusCode::OK, content_type, text),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "metrics cannot be written down");
            (StatusCode::INTERNAL_SERVER_ERROR, content_type, Vec::new())
        }
    }
}

impl Watched {
    fn observe(&self) {
        let metrics = &self.metrics;
        let spool = self.spool.stats();
        metrics.spool_events.set(signed(spool.depth));
        metrics.spool_bytes.set(signed(spool.allocated_bytes));
        let age_micros = spool.oldest_at_micros.map_or(0, |at| clock::now_micros().saturating_sub(at).max(0));
        metrics.spool_oldest_seconds.set(seconds(age_micros));
        metrics.spool_writable.set(self.spool.is_writable().into());
        for (outcome, count) in [
            ("appended", spool.appended_total),
            ("acknowledged", spool.acked_total),
            ("recovered", spool.recovered_total),
            ("torn", spool.torn_total),
            ("damaged", spool.damaged_total),
            ("cut", spool.cut_total),
            ("refused", spool.refused_total),
        ] {
            metrics.spool_outcomes.with_label_values(&[outcome]).set(signed(count));
        }
        if let Some(reports) = &self.reports {
            for (outcome, count) in reports.counts() {
                metrics.reports.with_label_values(&[outcome]).set(signed(count));
            }
        }
        metrics.usage_written.set(signed(self.writer.written()));
        metrics.usage_rejected.set(signed(self.writer.rejected()));
        metrics.writer_failures.set(signed(self.writer.failures()));
        metrics.accounts.set(i64::try_from(self.ledger.len()).unwrap_or(i64::MAX));
        metrics.access_log_dropped.set(signed(self.access_log.as_ref().map_or(0, |log| log.dropped())));
        for (outcome, count) in self.replays.counts() {
            metrics.replay_checks.with_label_values(&[outcome]).set(signed(count));
        }
        metrics.replay_remembered.set(i64::try_from(self.replays.remembered()).unwrap_or(i64::MAX));
        // Names change with the files: one that is gone must not count down for ever.
        metrics.certificate_days.reset();
        for (name, ends) in self.certificates.iter().flat_map(|certificates| certificates.expiry()) {
            let left = ends.0.saturating_sub(Timestamp::now().0);
            metrics
                .certificate_days
                .with_label_values(&[&*name])
                .set(seconds(left.saturating_mul(1_000_000)) / 86_400.0);
        }
        let statistics = [("plans", self.facts.plan_statistics()), ("services", self.facts.service_statistics())];
        for (name, statistics) in statistics {
            if let Some(statistics) = statistics {
                self.observe_cache(name, statistics);
            }
        }
        if let Some(calls) = self.facts.node_calls() {
            self.observe_calls("balances", calls);
        }
        if let Some(neurons) = &self.neurons {
            self.observe_neurons(&neurons.load());
        }
        if let Some(owners) = &self.owners {
            self.observe_cache("owners", owners.statistics());
            metrics.outside.chain_connected.with_label_values(&["owners"]).set(owners.is_connected().into());
        }
        if let Some(revocations) = &self.revocations {
            let (count, age) = revocations.glance();
            metrics.revoked_grants.set(i64::try_from(count).unwrap_or(i64::MAX));
            metrics.revocations_age_seconds.set(age.as_secs_f64());
        }
    }

    fn observe_neurons(&self, neurons: &Neurons) {
        let metrics = &self.metrics;
        // A reload may change which subnets there are: one that is gone must not grow older for ever.
        metrics.neurons_age_seconds.reset();
        for family in
            [&metrics.neurons_block, &metrics.neurons_keys, &metrics.neurons_spec_version, &metrics.neurons_readings]
        {
            family.reset();
        }
        for glance in neurons.glances() {
            let netuid = glance.netuid.to_string();
            metrics.neurons_age_seconds.with_label_values(&[&netuid]).set(glance.age.as_secs_f64());
            metrics.neurons_block.with_label_values(&[&netuid]).set(signed(glance.block));
            metrics.neurons_keys.with_label_values(&[&netuid]).set(i64::try_from(glance.keys).unwrap_or(i64::MAX));
            if glance.spec_version > 0 {
                metrics.neurons_spec_version.with_label_values(&[&netuid]).set(signed(glance.spec_version));
            }
            for (outcome, count) in outcomes(glance.readings) {
                metrics.neurons_readings.with_label_values(&[&*netuid, &*outcome]).set(signed(count));
            }
        }
        if let Some(questions) = neurons.questions() {
            self.observe_calls("subtensor", questions);
        }
        if let Some(statistics) = neurons.look_up_statistics() {
            self.observe_cache("neurons", statistics);
        }
    }

    fn observe_cache(&self, name: &str, statistics: &Statistics) {
        for (outcome, count) in [
            ("fresh", &statistics.fresh),
            ("stale", &statistics.stale),
            ("negative", &statistics.negative),
            ("missing", &statistics.missing),
            ("limited", &statistics.limited),
            ("remembered", &statistics.remembered),
            ("busy", &statistics.busy),
        ] {
            let count = signed(count.load(Ordering::Relaxed));
            self.metrics.outside.lookups.with_label_values(&[name, outcome]).set(count);
        }
        self.observe_calls(name, &statistics.fetches);
    }

    fn observe_calls(&self, name: &str, calls: &Calls) {
        for (outcome, count) in outcomes(calls) {
            self.metrics.outside.lookups.with_label_values(&[name, &*outcome]).set(signed(count));
        }
        let micros = signed(calls.micros.load(Ordering::Relaxed));
        self.metrics.outside.lookup_seconds.with_label_values(&[name]).set(seconds(micros));
    }
}

/// What came of questions that have ended.
fn outcomes(calls: &Calls) -> impl Iterator<Item = (String, u64)> {
    let failed = Fault::ALL.into_iter().map(|fault| (format!("failed_{}", fault.as_str()), calls.failed(fault)));
    failed.chain([("answered".to_owned(), calls.answered.load(Ordering::Relaxed))])
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge for people: microseconds in the far future need not be exact")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
