//! What is remembered of sign-ins: for the statistics and the event list of the admin API (auth-gateway.md section 12).
//!
//! Nobody waits for it. Events go through a queue of a fixed length to one task that writes them; what does not fit, or
//! cannot be written, is lost, and said so in the log.

use std::{sync::Arc, time::Duration};

use prometheus::IntCounter;
use tokio::{runtime::Handle, sync::mpsc};
use uuid::Uuid;

use super::opaque::sha256;
use crate::{
    metrics::OAuth as Metrics,
    model::{
        client::{GrantType, SignMethod},
        clock,
        scope::Scope,
    },
    store::{Store, event::Event},
};

/// Takes events.
pub struct Events {
    queue: Option<mpsc::Sender<Event>>,
    metrics: Arc<Metrics>,
}

/// Something to remember; what it lacks is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Happened<'a> {
    /// Why not, if not.
    pub reason: Option<&'static str>,
    /// With what kind of wallet.
    pub wallet: Option<SignMethod>,
    /// By which grant.
    pub grant_type: Option<GrantType>,
    /// Whose: only its digest is kept.
    pub account: Option<&'a str>,
    /// For which scopes.
    pub scope: &'a str,
    /// More of it: a name and a word.
    pub detail: Option<(&'a str, &'a str)>,
}

const QUEUE: usize = 4096;
const BATCH: usize = 1024;
/// How long a batch grows: each is a commit, and where there is one writer refresh tokens wait for it.
const PAUSE: Duration = Duration::from_millis(50);

impl Events {
    /// Starts the task that writes, on this runtime. Without it nothing is remembered.
    #[must_use]
    pub fn start(store: Store, enabled: bool, runtime: &Handle, metrics: Arc<Metrics>) -> Self {
        let queue = enabled.then(|| {
            let (queue, events) = mpsc::channel(QUEUE);
            runtime.spawn(write(store, events, metrics.events_lost.clone()));
            queue
        });
        Self { queue, metrics }
    }

    /// Where they are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Counts something that happened with nobody's client, or with a client that did not prove to be one.
    pub fn count(&self, kind: &'static str, outcome: &'static str, happened: Happened<'_>) {
        let wallet = happened.wallet.map_or("", SignMethod::as_str);
        let grant_type = happened.grant_type.map_or("", GrantType::as_str);
        let reason = happened.reason.unwrap_or_default();
        self.metrics.events.with_label_values(&[kind, outcome, reason, wallet, grant_type]).inc();
        let scopes = match (kind, outcome) {
            ("token_exchange", "success") => "granted",
            ("scope_rejected", _) => "rejected",
            _ => return,
        };
        for scope in happened.scope.split_ascii_whitespace() {
            let kind = scope.parse::<Scope>().map_or("unknown", |scope| scope.kind().word());
            self.metrics.scopes.with_label_values(&[kind, scopes]).inc();
        }
    }

    /// Counts and remembers something that happened with a client.
    pub fn record(&self, client_id: &str, kind: &'static str, outcome: &'static str, happened: Happened<'_>) {
        self.count(kind, outcome, happened);
        let Some(queue) = &self.queue else { return };
        let at_micros = clock::now_micros();
        let detail = happened
            .detail
            .map_or_else(|| "{}".to_owned(), |(name, word)| serde_json::json!({ name: word }).to_string());
        let event = Event {
            id: id(at_micros),
            at_micros,
            client_id: client_id.to_owned(),
            kind: kind.to_owned(),
            outcome: outcome.to_owned(),
            reason: happened.reason.map(str::to_owned),
            wallet: happened.wallet.map(|wallet| wallet.as_str().to_owned()),
            subject: happened.account.map(|account| sha256(account.as_bytes())),
            scope: happened.scope.to_owned(),
            detail,
        };
        if queue.try_send(event).is_err() {
            if self.metrics.events_lost.get().is_multiple_of(1024) {
                tracing::warn!("events of the authorization server come faster than they can be written, and are lost");
            }
            self.metrics.events_lost.inc();
        }
    }
}

/// In the order of time, as far as its milliseconds go.
fn id(at_micros: i64) -> Uuid {
    let random = Uuid::new_v4();
    let (_, tail) = random.as_bytes().split_at(6);
    let tail: [u8; 10] = tail.try_into().unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(at_micros / 1000).unwrap_or(0), &tail).into_uuid()
}

async fn write(store: Store, mut events: mpsc::Receiver<Event>, lost: IntCounter) {
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, BATCH).await > 0 {
        tokio::time::sleep(PAUSE).await;
        while batch.len() < BATCH
            && let Ok(event) = events.try_recv()
        {
            batch.push(event);
        }
        if let Err(error) = store.append_oauth_events(&batch).await {
            tracing::warn!(%error, lost = batch.len(), "events of the authorization server cannot be written");
            lost.inc_by(batch.len().try_into().unwrap_or(u64::MAX));
            // What waits meanwhile is written with the next batch.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        batch.clear();
    }
}
