//! Moves events from the spool into the store.
//!
//! A batch is acknowledged to the spool only after the store has committed it. Between the two stands the *settled*
//! hook: whoever counts charges in memory learns there which of them the store counts from now on. A reader of
//! balances holds [`Writer::commit_gate`] for reading meanwhile, so the two never count an event twice, nor miss it.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::RwLock,
    time::{Instant, sleep_until},
};

use super::spool::{Batch, Spool};
use crate::{
    model::usage::UsageEvent,
    store::{Store, StoreError},
};

/// How the writer works.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Events per transaction at most.
    pub batch: usize,
    /// How long more events are waited for before a batch that is not full is written.
    pub linger: Duration,
    /// The least time from one transaction to the next, unless a batch is full: each costs as much as hundreds of events.
    pub pace: Duration,
    /// The first pause after a failure. Doubled each time, up to `most_patience`.
    pub least_patience: Duration,
    /// The longest pause after a failure.
    pub most_patience: Duration,
    /// How long the end of the process may take to empty the spool. What is left stays on disk.
    pub drain: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            batch: 5000,
            linger: Duration::from_millis(30),
            pace: Duration::from_millis(250),
            least_patience: Duration::from_millis(100),
            most_patience: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// Figures for the metrics. The writer's lag is the age of [`super::spool::SpoolStats::oldest_at_micros`].
#[derive(Debug, Default)]
pub struct WriterStats {
    written: AtomicU64,
    known: AtomicU64,
    rejected: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
}

impl WriterStats {
    /// Events the store took.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Events the store had already: an earlier attempt had been committed.
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Events set aside, because the store can never take them. Somebody should look at `usage_rejected`.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Attempts that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }
}

/// Moves events from the spool into the store. One per spool.
#[derive(Debug)]
pub struct Writer {
    spool: Spool,
    store: Store,
    options: WriterOptions,
    gate: Arc<RwLock<()>>,
    stats: Arc<WriterStats>,
}

impl Writer {
    /// A writer, which does nothing until it is [`run`](Self::run).
    #[must_use]
    pub fn new(spool: Spool, store: Store, options: WriterOptions) -> Self {
        Self { spool, store, options, gate: Arc::default(), stats: Arc::default() }
    }

    /// Held for writing from before a transaction begins until after the settled hook has returned. Hold it for
    /// reading while a snapshot is taken out of the store and combined with what is counted in memory.
    #[must_use]
    pub fn commit_gate(&self) -> Arc<RwLock<()>> {
        Arc::clone(&self.gate)
    }

    /// Figures for the metrics.
    #[must_use]
    pub fn stats(&self) -> Arc<WriterStats> {
        Arc::clone(&self.stats)
    }

    /// Runs until `shutdown` is done, and then until the spool is empty or [`WriterOptions::drain`] has passed.
    ///
    /// `settled` is called once per commit, under the gate, with events the store has from now on. After a crash of the
    /// process it is called with events of the earlier run too, which nobody counts in memory. Events that were
    /// rejected are among them: they will not be charged, and must not weigh on anybody.
    pub async fn run(self, settled: impl Fn(&[UsageEvent]) + Send, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = self.spool.ready() => {}
            }
            if self.spool.depth() < u64::try_from(self.options.batch).unwrap_or(u64::MAX) {
                tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    () = sleep_until(next.max(after(self.options.linger))) => {}
                }
            }
            next = after(self.options.pace);
            // Not cut off by a shutdown: dropping a transaction half way costs nothing but the work done.
            if self.deliver(&settled, &mut shutdown).await.is_break() {
                break;
            }
        }
        let drained = async {
            while self.spool.depth() > 0 {
                let _ = self.deliver(&settled, &mut pin!(std::future::pending())).await;
            }
        };
        if tokio::time::timeout(self.options.drain, drained).await.is_err() {
            tracing::warn!(
                events = self.spool.depth(),
                "stopped before the store had all usage events; the next start delivers them"
            );
        }
    }

    /// Delivers one batch, however often it takes, unless `shutdown` comes between two attempts.
    async fn deliver(
        &self,
        settled: &(impl Fn(&[UsageEvent]) + Send),
        shutdown: &mut (impl Future<Output = ()> + Unpin),
    ) -> std::ops::ControlFlow<()> {
        let mut patience = self.options.least_patience;
        loop {
            match self.attempt(settled).await {
                Ok(()) => {
                    if self.stats.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("usage events are written again");
                    }
                    return std::ops::ControlFlow::Continue(());
                }
                Err(error) => {
                    self.stats.failures.fetch_add(1, Ordering::Relaxed);
                    let error = format!("{error:#}");
                    if self.stats.failing.swap(true, Ordering::Relaxed) {
                        tracing::debug!(%error, "usage events still cannot be written");
                    } else {
                        tracing::error!(%error, events = self.spool.depth(), "usage events cannot be written; they wait in the spool");
                    }
                }
            }
            tokio::select! {
                biased;
                () = &mut *shutdown => return std::ops::ControlFlow::Break(()),
                () = tokio::time::sleep(with_jitter(patience)) => {}
            }
            patience = patience.saturating_mul(2).min(self.options.most_patience);
        }
    }

    /// One batch, once.
    async fn attempt(&self, settled: &(impl Fn(&[UsageEvent]) + Send)) -> anyhow::Result<()> {
        let (spool, most) = (self.spool.clone(), self.options.batch);
        let batch = tokio::task::spawn_blocking(move || spool.next_batch(most)).await??;
        for record in &batch.unreadable {
            self.reject(&record.text(), &record.error).await?;
        }
        let _gate = self.gate.write().await;
        self.write(&batch, settled).await?;
        self.spool.ack(batch);
        Ok(())
    }

    /// Writes the batch, halving it where an event in it cannot be taken, until that one is alone and is set aside.
    async fn write(&self, batch: &Batch, settled: &(impl Fn(&[UsageEvent]) + Send)) -> Result<(), StoreError> {
        let mut pending = vec![batch.events.as_slice()];
        while let Some(events) = pending.pop() {
            if events.is_empty() {
                continue;
            }
            match self.store.append_usage(events).await {
                Ok(appended) => {
                    self.stats.written.fetch_add(appended.inserted, Ordering::Relaxed);
                    self.stats.known.fetch_add(appended.known, Ordering::Relaxed);
                }
                Err(error) if error.is_data() => {
                    if let [event] = events {
                        self.reject(&event.to_json(), &error.to_string()).await?;
                    } else {
                        let (first, second) = events.split_at(events.len() / 2);
                        pending.extend([second, first]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // Only when all of it is in: a batch that is tried again must not be counted twice.
        settled(&batch.events);
        Ok(())
    }

    async fn reject(&self, raw: &str, error: &str) -> Result<(), StoreError> {
        self.store.reject_usage(raw, error).await?;
        self.stats.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "a usage event cannot be written and was set aside in usage_rejected: it is not charged");
        Ok(())
    }
}

fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now)
}

/// Between half of it and all of it, so that gateways which lost the same database do not come back together. The
/// clock's last digits are random enough for that.
fn with_jitter(pause: Duration) -> Duration {
    let random = u32::try_from(crate::model::clock::now_micros().rem_euclid(1000)).unwrap_or(0);
    let half = pause / 2;
    half.saturating_add(half.saturating_mul(random) / 1000)
}
