//! Every metric family, declared once.
//!
//! Labels come from the configuration or from enums, never from a request: no path, no account, no token. Names are
//! public: `conf/grafana.json` and `conf/alerts.yml` use them, and a test compares.

mod oauth;
mod outside;

use std::sync::Arc;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub use self::{oauth::OAuth, outside::Outside};

/// All families, and the registry they are in.
pub struct Metrics {
    registry: Registry,
    /// The authorization server's.
    pub oauth: Arc<OAuth>,
    /// Of those whom we ask.
    pub outside: Outside,
    requests: IntCounterVec,
    decision_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    credits_charged: IntCounterVec,
    /// Refused requests by route and reason.
    pub denials: IntCounterVec,
    /// Age of the table of neurons by subnet; without a table, of the gateway.
    pub neurons_age_seconds: GaugeVec,
    /// The block of that table.
    pub neurons_block: IntGaugeVec,
    /// The published keys in that table.
    pub neurons_keys: IntGaugeVec,
    /// The version of the chain's runtime, if the source says it.
    pub neurons_spec_version: IntGaugeVec,
    /// Readings of the source of neurons by subnet and outcome: `answered`, and `failed_` with the fault.
    pub neurons_readings: IntGaugeVec,
    /// Requests whose upstream failed, by route and kind.
    pub upstream_errors: IntCounterVec,
    /// Open client connections by listener.
    pub connections: IntGaugeVec,
    /// Connections refused because there are too many, or whose handshake failed, by listener and reason.
    pub connections_refused: IntCounterVec,
    /// Usage events on disk that the store does not have yet.
    pub spool_events: IntGauge,
    /// Bytes that the spool occupies.
    pub spool_bytes: IntGauge,
    /// Age of the oldest event that the store does not have yet.
    pub spool_oldest_seconds: Gauge,
    /// 1 while the spool takes events.
    pub spool_writable: IntGauge,
    /// Events that were delivered and could not be recorded. Stays 0 unless `usage.when_full = "serve-unmetered"`.
    pub spool_dropped: IntCounter,
    /// What became of usage events on disk: `appended`, `acknowledged` (the store has them), `recovered` (left by an
    /// earlier run), `torn` (files that ended in half a record), `damaged` (written and unreadable: look at the disk),
    /// `cut` (texts shortened to fit), `refused` (requests turned away because there was no room).
    pub spool_outcomes: IntGaugeVec,
    /// Events committed to the store.
    pub usage_written: IntGauge,
    /// Events the store will never take, kept aside for a person.
    pub usage_rejected: IntGauge,
    /// Failed attempts to write to the store.
    pub writer_failures: IntGauge,
    /// Events reported to the marketplace's backend: `told`, `delayed` (sent again later), `given_up`.
    pub reports: IntGaugeVec,
    /// Holders' accounts in memory.
    pub accounts: IntGauge,
    /// Bytes of signed requests' bodies that are held.
    pub held_body_bytes: IntGauge,
    /// Signed requests whose signature was right, by what the replay store said: `new`, `used` (refused as replayed),
    /// `full` (no room in memory), `too_young` (signed before this gateway could remember), `failed` (the database is away).
    pub replay_checks: IntGaugeVec,
    /// Used signed requests that are remembered in this process; 0 where the database does that.
    pub replay_remembered: IntGauge,
    /// Grants that were taken back lately, whose access tokens routes refuse.
    pub revoked_grants: IntGauge,
    /// How long ago that was known; before it was known, the age of the gateway. Stays 0 without `[oauth]`.
    pub revocations_age_seconds: Gauge,
    /// Days until a certificate ends, by its first name.
    pub certificate_days: GaugeVec,
    /// Access-log lines dropped because standard output did not take them.
    pub access_log_dropped: IntGauge,
}

/// The counters of one route, looked up once at start instead of for every request.
pub struct RouteMetrics {
    /// By status class: the index is the first digit; 0 is a connection that ended without an answer.
    by_class: [IntCounter; 6],
    /// Time from the request's header to the decision.
    pub decision_seconds: Histogram,
    /// Time from the decision to the upstream's response header.
    pub upstream_seconds: Histogram,
    /// Credits charged.
    pub credits_charged: IntCounter,
}

impl RouteMetrics {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        if let Some(counter) = self.by_class.get(usize::from(status / 100)) {
            counter.inc();
        }
    }
}

/// Decisions take microseconds when facts are known, and milliseconds when they must be asked for.
const DECISION_BUCKETS: [f64; 9] = [5e-6, 2e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 2.0, 10.0];
const UPSTREAM_BUCKETS: [f64; 10] = [1e-3, 5e-3, 2e-2, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0, 60.0];
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Makes families and keeps the first mistake: a duplicate or malformed name, which a test would show at once.
struct Declared {
    registry: Registry,
}

impl Declared {
    fn family<T: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<T>,
    ) -> anyhow::Result<T> {
        let family = made?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> anyhow::Result<IntCounterVec> {
        self.family(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> anyhow::Result<IntGaugeVec> {
        self.family(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> anyhow::Result<IntGauge> {
        self.family(IntGauge::new(name, help))
    }

    fn seconds(&self, name: &str, help: &str) -> anyhow::Result<Gauge> {
        self.family(Gauge::new(name, help))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64]) -> anyhow::Result<HistogramVec> {
        self.family(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &["route"]))
    }
}

impl Metrics {
    /// Declares every family.
    ///
    /// # Errors
    /// When two have the same name.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        let declared = Declared { registry: Registry::new() };
        let build =
            declared.gauges("tollgate_build_info", "Always 1; the label says which version runs.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Arc::new(Self {
            oauth: Arc::new(OAuth::declare(&declared)?),
            outside: Outside::declare(&declared)?,
            requests: declared.counters("tollgate_requests_total", "Answered requests.", &["route", "status"])?,
            decision_seconds: declared.histograms(
                "tollgate_decision_seconds",
                "From the request's header to the decision.",
                &DECISION_BUCKETS,
            )?,
            upstream_seconds: declared.histograms(
                "tollgate_upstream_seconds",
                "From the decision to the upstream's response header.",
                &UPSTREAM_BUCKETS,
            )?,
            credits_charged: declared.counters("tollgate_credits_charged_total", "Credits charged.", &["route"])?,
            denials: declared.counters("tollgate_denials_total", "Refused requests.", &["route", "reason"])?,
            neurons_age_seconds: declared.family(GaugeVec::new(
                Opts::new("tollgate_neurons_age_seconds", "Age of the table of neurons."),
                &["netuid"],
            ))?,
            neurons_block: declared.gauges("tollgate_neurons_block", "Block of the table of neurons.", &["netuid"])?,
            neurons_keys: declared.gauges(
                "tollgate_neurons_keys",
                "Published keys in the table of neurons.",
                &["netuid"],
            )?,
            neurons_spec_version: declared.gauges(
                "tollgate_neurons_spec_version",
                "Version of the runtime of the chain of neurons.",
                &["netuid"],
            )?,
            neurons_readings: declared.gauges(
                "tollgate_neurons_readings",
                "Readings of the table of neurons since the start, by what came of them.",
                &["netuid", "outcome"],
            )?,
            upstream_errors: declared.counters(
                "tollgate_upstream_errors_total",
                "Requests whose upstream failed.",
                &["route", "kind"],
            )?,
            connections: declared.gauges("tollgate_connections", "Open client connections.", &["listener"])?,
            connections_refused: declared.counters(
                "tollgate_connections_refused_total",
                "Connections closed before a request.",
                &["listener", "reason"],
            )?,
            spool_events: declared.gauge("tollgate_spool_events", "Usage events that the store does not have yet.")?,
            spool_bytes: declared.gauge("tollgate_spool_bytes", "Bytes that the spool occupies.")?,
            spool_oldest_seconds: declared
                .seconds("tollgate_spool_oldest_seconds", "Age of the oldest usage event that the store lacks.")?,
            spool_writable: declared.gauge("tollgate_spool_writable", "1 while the spool takes usage events.")?,
            spool_dropped: declared.family(IntCounter::new(
                "tollgate_spool_dropped_total",
                "Usage events of delivered answers that could not be recorded.",
            ))?,
            spool_outcomes: declared.gauges(
                "tollgate_spool_outcomes",
                "Usage events on disk since the start, by what became of them.",
                &["outcome"],
            )?,
            usage_written: declared.gauge("tollgate_usage_written", "Usage events committed since the start.")?,
            usage_rejected: declared
                .gauge("tollgate_usage_rejected", "Usage events the store cannot take, kept aside.")?,
            writer_failures: declared
                .gauge("tollgate_writer_failures", "Failed writes to the store since the start.")?,
            reports: declared.gauges(
                "tollgate_reports",
                "Events reported to the backend since the start.",
                &["outcome"],
            )?,
            accounts: declared.gauge("tollgate_accounts", "Holders' accounts in memory.")?,
            held_body_bytes: declared
                .gauge("tollgate_held_body_bytes", "Bytes of signed requests' bodies that are held.")?,
            replay_checks: declared.gauges(
                "tollgate_replay_checks",
                "Signed requests since the start, by what the replay store said.",
                &["outcome"],
            )?,
            replay_remembered: declared
                .gauge("tollgate_replay_remembered", "Used signed requests remembered in this process.")?,
            revoked_grants: declared.gauge("tollgate_revoked_grants", "Grants taken back lately.")?,
            revocations_age_seconds: declared
                .seconds("tollgate_revocations_age_seconds", "Age of what is known of grants taken back.")?,
            certificate_days: declared.family(GaugeVec::new(
                Opts::new("tollgate_certificate_days", "Days until a certificate ends."),
                &["name"],
            ))?,
            access_log_dropped: declared
                .gauge("tollgate_access_log_dropped", "Access-log lines dropped since the start.")?,
            registry: declared.registry,
        }))
    }

    /// The counters of one route.
    #[must_use]
    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics {
            by_class: CLASSES.map(|class| self.requests.with_label_values(&[name, class])),
            decision_seconds: self.decision_seconds.with_label_values(&[name]),
            upstream_seconds: self.upstream_seconds.with_label_values(&[name]),
            credits_charged: self.credits_charged.with_label_values(&[name]),
        }
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// When a family cannot be written down.
    pub fn render(&self) -> anyhow::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names as they appear in the exposition, with the suffixes of histograms.
    fn exposed() -> BTreeSet<String> {
        let metrics = Metrics::new().unwrap();
        metrics.route("x").answered(200);
        metrics.denials.with_label_values(&["x", "y"]).inc();
        metrics.outside.lookups.with_label_values(&["x", "y"]).inc();
        metrics.outside.lookup_seconds.with_label_values(&["x"]).set(1.0);
        metrics.outside.chain_connected.with_label_values(&["x"]).inc();
        metrics.outside.database_connections.with_label_values(&["x"]).inc();
        metrics.oauth.events.with_label_values(&["x"; 5]).inc();
        metrics.oauth.scopes.with_label_values(&["x", "y"]).inc();
        metrics.oauth.limited.with_label_values(&["x"]).inc();
        metrics.oauth.answered("x", 200, 1.0);
        metrics.oauth.clients.with_label_values(&["true"]).inc();
        metrics.neurons_age_seconds.with_label_values(&["x"]).set(1.0);
        metrics.neurons_block.with_label_values(&["x"]).inc();
        metrics.neurons_keys.with_label_values(&["x"]).inc();
        metrics.neurons_spec_version.with_label_values(&["x"]).inc();
        metrics.neurons_readings.with_label_values(&["x", "y"]).inc();
        metrics.upstream_errors.with_label_values(&["x", "y"]).inc();
        metrics.connections.with_label_values(&["x"]).inc();
        metrics.connections_refused.with_label_values(&["x", "y"]).inc();
        metrics.reports.with_label_values(&["x"]).inc();
        metrics.spool_outcomes.with_label_values(&["x"]).inc();
        metrics.replay_checks.with_label_values(&["x"]).inc();
        metrics.certificate_days.with_label_values(&["x"]).set(1.0);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let names = text.lines().filter(|line| !line.starts_with('#'));
        names.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
    }

    #[test]
    fn dashboards_and_alerts_name_only_metrics_that_exist() {
        let exposed = exposed();
        let word = regex::Regex::new(r"\btollgate_[a-z_]+").unwrap();
        for (file, text) in [
            ("conf/grafana.json", include_str!("../conf/grafana.json")),
            ("conf/alerts.yml", include_str!("../conf/alerts.yml")),
        ] {
            let named: BTreeSet<&str> = word.find_iter(text).map(|found| found.as_str()).collect();
            assert!(named.len() > 3, "{file} watches next to nothing");
            for name in named {
                assert!(exposed.contains(name), "{file} names {name}, which is not exposed: {exposed:?}");
            }
        }
    }
}
