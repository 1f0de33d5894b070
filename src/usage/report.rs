//! Tells the marketplace's backend what was used (nevermined.md section 8.2).
//!
//! Events come out of the store's queue, never from the request path. Each is told at least once: a claim that is not
//! settled is due again when its lease has passed. An answer the backend will not change its mind about (4xx other
//! than 408 and 429) is given up on after a few attempts, and stays in the queue with the error for a person to look at.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use crate::{
    model::{clock, secret::Secret, usage::UsageEvent},
    store::{ReportJob, Store, StoreError},
};

/// Where and how reports are sent.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// The backend's base address; `/api/v1/metrics/asset/access` is appended.
    pub backend: url::Url,
    /// `BACKEND_AUTH_TOKEN`, sent as a bearer token.
    pub token: Secret,
    /// How long one report may take.
    pub timeout: Duration,
    /// How many are claimed at once and sent at the same time.
    pub concurrency: u32,
    /// How often the queue is looked at when it was empty.
    pub interval: Duration,
    /// The longest pause before an event is told again.
    pub most_patience: Duration,
    /// Attempts that the backend refused for good before an event is given up.
    pub attempts: u32,
}

impl ReportOptions {
    /// The usual figures.
    #[must_use]
    pub fn new(backend: url::Url, token: Secret) -> Self {
        Self {
            backend,
            token,
            timeout: Duration::from_secs(10),
            concurrency: 16,
            interval: Duration::from_secs(2),
            most_patience: Duration::from_mins(10),
            attempts: 10,
        }
    }
}

/// The body of a report, as the backend knows it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    /// The service.
    did: String,
    /// Its owner, as the token wrote it.
    owner: &'a str,
    /// The account, as the token wrote it.
    consumer: &'a str,
    /// Always `Service`.
    asset_type: &'static str,
    /// What was called.
    endpoint: &'a str,
    /// The upstream's status as text: the replaced system meant to send it and never did, and its burner retries an
    /// event without it for ever (section 10.7).
    access_result: String,
    /// What was charged: see `store/postgres/access.rs` on why it is not what the service reported. Nought is sent as
    /// such: left out, the backend's burner would take the ordinary price.
    nvm_credits: u64,
}

impl<'a> Report<'a> {
    /// What is told of an event.
    #[must_use]
    pub fn new(event: &'a UsageEvent) -> Self {
        Self {
            did: event.terms.service.to_string(),
            owner: &event.terms.owner,
            consumer: &event.terms.user_id,
            asset_type: "Service",
            endpoint: &event.endpoint,
            access_result: event.upstream_status.unwrap_or(event.status).to_string(),
            nvm_credits: event.charged.get(),
        }
    }
}

/// Figures for the metrics.
#[derive(Debug, Default)]
pub struct ReportStats {
    told: AtomicU64,
    delayed: AtomicU64,
    given_up: AtomicU64,
}

impl ReportStats {
    /// How many reports the backend took, how many attempts failed and are repeated, and how many were given up.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("told", read(&self.told)), ("delayed", read(&self.delayed)), ("given_up", read(&self.given_up))]
    }
}

/// Sends what the store has queued.
#[derive(Debug)]
pub struct Reporter {
    stats: Arc<ReportStats>,
    store: Store,
    client: reqwest::Client,
    options: ReportOptions,
    address: url::Url,
}

/// What became of one report.
enum Outcome {
    Told,
    Later(String),
    Never(String),
}

impl Reporter {
    /// A reporter, which does nothing until it is [`run`](Self::run). The client brings its own roots of trust.
    #[must_use]
    pub fn new(store: Store, client: reqwest::Client, options: ReportOptions) -> Self {
        let mut address = options.backend.clone();
        let path = format!("{}/api/v1/metrics/asset/access", address.path().trim_end_matches('/'));
        address.set_path(&path);
        Self { stats: Arc::default(), store, client, options, address }
    }

    /// Figures for the metrics.
    #[must_use]
    pub fn stats(&self) -> Arc<ReportStats> {
        Arc::clone(&self.stats)
    }

    /// Runs until `shutdown` is done. What is not told stays in the store.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        let mut failing = false;
        loop {
            let pause = match self.round().await {
                Ok(sent) if sent == self.options.concurrency => Duration::ZERO,
                Ok(_) => {
                    failing = false;
                    self.options.interval
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(%error, "reports cannot be read out of the store");
                    }
                    failing = true;
                    self.options.interval.saturating_mul(2)
                }
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Claims what is due and tells it. Says how many were claimed.
    ///
    /// # Errors
    /// When the store is away; a backend that is away is noted in the queue.
    pub async fn round(&self) -> Result<u32, StoreError> {
        // Twice the time a report may take: nobody else claims it while it is being sent.
        let lease = self.options.timeout.saturating_mul(2).saturating_add(Duration::from_secs(5));
        let jobs = self.store.claim_reports(self.options.concurrency, clock::now_micros(), lease).await?;
        let claimed = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        let mut sending = tokio::task::JoinSet::new();
        for job in jobs {
            let request = self
                .client
                .post(self.address.clone())
                .bearer_auth(self.options.token.expose())
                .header(reqwest::header::ACCEPT, "application/json")
                .timeout(self.options.timeout)
                .json(&Report::new(&job.event));
            sending.spawn(async move { (job, outcome(request.send().await)) });
        }
        let mut told = Vec::new();
        while let Some(sent) = sending.join_next().await {
            // A task that panicked leaves its claim to the lease.
            let Ok((job, outcome)) = sent else { continue };
            match outcome {
                Outcome::Told => told.push(job.event.event_id),
                Outcome::Later(error) => self.failed(&job, &error, false).await?,
                Outcome::Never(error) => self.failed(&job, &error, job.attempts >= self.options.attempts).await?,
            }
        }
        self.store.mark_reported(&told).await?;
        self.stats.told.fetch_add(u64::try_from(told.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(claimed)
    }

    async fn failed(&self, job: &ReportJob, error: &str, for_good: bool) -> Result<(), StoreError> {
        let event_id = job.event.event_id;
        let counted = if for_good { &self.stats.given_up } else { &self.stats.delayed };
        counted.fetch_add(1, Ordering::Relaxed);
        if for_good {
            tracing::error!(%event_id, %error, "the backend refuses a usage report; given up");
        } else {
            tracing::warn!(%event_id, %error, attempts = job.attempts, "a usage report failed; it will be sent again");
        }
        let pause = Duration::from_secs(1 << job.attempts.min(16)).min(self.options.most_patience);
        let retry_at = clock::now_micros().saturating_add(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX));
        self.store.fail_reports(&[event_id], (!for_good).then_some(retry_at), error).await
    }
}

fn outcome(answer: reqwest::Result<reqwest::Response>) -> Outcome {
    match answer {
        Ok(response) => match response.status().as_u16() {
            200..=299 => Outcome::Told,
            status @ (408 | 429) => Outcome::Later(format!("status {status}")),
            status @ 400..=499 => Outcome::Never(format!("status {status}")),
            status => Outcome::Later(format!("status {status}")),
        },
        // Without the address: it may carry credentials.
        Err(error) => Outcome::Later(format!("{:#}", anyhow::Error::from(error.without_url()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::usage::tests::sample;

    #[test]
    fn a_report_says_what_the_upstream_answered_and_what_was_charged() {
        let event = UsageEvent {
            charged: crate::model::credits::Credits::ZERO,
            reported: None,
            upstream_status: Some(201),
            ..sample(1)
        };
        assert_eq!(
            serde_json::to_value(Report::new(&event)).unwrap(),
            serde_json::json!({
                "did": format!("did:nv:{}", "55".repeat(32)),
                "owner": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                "consumer": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
                "assetType": "Service",
                "endpoint": "https://api.example.com/v1/forecast/daily",
                "accessResult": "201",
                "nvmCredits": 0,
            })
        );
    }
}
