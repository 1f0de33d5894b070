//! From the spool through the writer into the store, and on to the backend.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use tokio::sync::oneshot;
use tollgate::{
    model::{clock, credits::Credits, secret::Secret, usage::UsageEvent},
    store::{Store, StoreOptions, StoreTarget, UsageFilter},
    usage::{
        report::{ReportOptions, Reporter},
        spool::{Spool, SpoolError, SpoolOptions},
        writer::{Writer, WriterOptions},
    },
};
use uuid::Uuid;

use crate::store::{event, stores};

fn spool_in(directory: &Path) -> Spool {
    let options = SpoolOptions {
        directory: directory.join("spool"),
        max_bytes: 16 << 20,
        segment_bytes: 1 << 20,
        shards: 2,
        ..SpoolOptions::default()
    };
    // A writer that was stopped while a thread of its own was reading lets go of the directory when that has ended.
    crate::support::eventually("the spool opens", || match Spool::open(&options) {
        Err(SpoolError::Locked(_)) => None,
        opened => Some(opened.unwrap()),
    })
}

fn quick() -> WriterOptions {
    WriterOptions {
        batch: 50,
        linger: Duration::from_millis(2),
        pace: Duration::ZERO,
        least_patience: Duration::from_millis(5),
        most_patience: Duration::from_millis(20),
        drain: Duration::from_secs(10),
    }
}

/// A writer at work, and which events it called settled.
struct Working {
    settled: Arc<Mutex<BTreeMap<Uuid, usize>>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Working {
    fn start(writer: Writer) -> Self {
        let settled: Arc<Mutex<BTreeMap<Uuid, usize>>> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let hook = {
            let settled = Arc::clone(&settled);
            move |events: &[UsageEvent]| {
                let mut settled = settled.lock().unwrap();
                for event in events {
                    *settled.entry(event.event_id).or_default() += 1;
                }
            }
        };
        let task = tokio::spawn(writer.run(hook, async {
            let _ = stopped.await;
        }));
        Self { settled, stop, task }
    }

    async fn stop(self) -> BTreeMap<Uuid, usize> {
        let _ = self.stop.send(());
        self.task.await.unwrap();
        Arc::into_inner(self.settled).unwrap().into_inner().unwrap()
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn rows(store: &Store) -> usize {
    store.list_usage(&UsageFilter::default(), 10_000).await.unwrap().len()
}

#[tokio::test]
async fn what_is_spooled_is_written_settled_once_and_forgotten() {
    for fixture in stores().await {
        let directory = tempfile::tempdir().unwrap();
        let spool = spool_in(directory.path());
        let writer = Writer::new(spool.clone(), fixture.store.clone(), quick());
        let stats = writer.stats();
        let working = Working::start(writer);
        for number in 1..=500 {
            spool.append(&event(number).record()).unwrap();
            if number % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        eventually("the spool is empty", || spool.depth() == 0).await;
        let settled = working.stop().await;
        assert_eq!((settled.len(), settled.values().max()), (500, Some(&1)), "{}", fixture.name);
        assert_eq!(rows(&fixture.store).await, 500);
        assert_eq!((stats.written(), stats.known(), stats.rejected(), stats.is_failing()), (500, 0, 0, false));
    }
}

#[tokio::test]
async fn an_event_that_can_never_be_written_is_set_aside_and_holds_up_nobody() {
    for fixture in stores().await {
        let directory = tempfile::tempdir().unwrap();
        let spool = spool_in(directory.path());
        for number in 1..=20 {
            let status = if number == 7 || number == 13 { 1000 } else { 200 };
            let event = UsageEvent { status, ..event(number) };
            spool.append(&event.record()).unwrap();
        }
        let writer = Writer::new(spool.clone(), fixture.store.clone(), quick());
        let stats = writer.stats();
        let settled = Working::start(writer).stop().await;
        assert_eq!((spool.depth(), settled.len()), (0, 20), "{}: a stop drains first", fixture.name);
        assert_eq!((rows(&fixture.store).await, stats.rejected()), (18, 2));
        let mut rejected: Vec<_> = fixture
            .store
            .rejected_usage(10)
            .await
            .unwrap()
            .iter()
            .map(|rejected| UsageEvent::decode(rejected.raw.as_bytes()).unwrap().event_id)
            .collect();
        rejected.sort();
        assert_eq!(rejected, [7, 13].map(|number| event(number).event_id));
    }
}

#[tokio::test]
async fn nothing_leaves_the_spool_while_the_store_cannot_take_it() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool_in(directory.path());
    let target = StoreTarget::Sqlite(directory.path().join("tollgate.db"));
    let store = Store::open(&StoreOptions {
        target,
        max_connections: 2,
        timeout: Duration::from_secs(5),
        access_tables: false,
        reports: false,
    })
    .unwrap();
    let writer = Writer::new(spool.clone(), store.clone(), quick());
    let stats = writer.stats();
    let working = Working::start(writer);
    for number in 1..=120 {
        spool.append(&event(number).record()).unwrap();
    }
    // There are no tables yet.
    eventually("it has tried some times", || stats.failures() > 5).await;
    assert_eq!((spool.depth(), stats.is_failing(), stats.rejected()), (120, true, 0));
    assert!(working.settled.lock().unwrap().is_empty());
    store.migrate().await.unwrap();
    eventually("all is written", || spool.depth() == 0).await;
    let settled = working.stop().await;
    assert_eq!((rows(&store).await, settled.len(), settled.values().max()), (120, 120, Some(&1)));
}

#[tokio::test]
async fn a_stop_that_cannot_drain_leaves_the_rest_to_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool_in(directory.path());
    spool.append(&event(1).record()).unwrap();
    let target = StoreTarget::Sqlite(directory.path().join("tollgate.db"));
    let store = Store::open(&StoreOptions {
        target,
        max_connections: 2,
        timeout: Duration::from_secs(5),
        access_tables: false,
        reports: false,
    })
    .unwrap();
    let options = WriterOptions { drain: Duration::from_millis(50), ..quick() };
    Working::start(Writer::new(spool.clone(), store.clone(), options)).stop().await;
    drop(spool);

    let spool = spool_in(directory.path());
    assert!(!spool.recovered_drained());
    store.migrate().await.unwrap();
    let working = Working::start(Writer::new(spool.clone(), store.clone(), quick()));
    tokio::time::timeout(Duration::from_secs(10), spool.recovered().wait_for(|drained| *drained))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rows(&store).await, 1, "drained means committed");
    working.stop().await;
}

#[tokio::test]
async fn nothing_is_committed_while_somebody_reads_balances() {
    for fixture in stores().await {
        let directory = tempfile::tempdir().unwrap();
        let spool = spool_in(directory.path());
        let writer = Writer::new(spool.clone(), fixture.store.clone(), quick());
        let gate = writer.commit_gate();
        let working = Working::start(writer);
        for round in 1..=20_u64 {
            spool.append(&event(round).record()).unwrap();
            let reading = gate.read().await;
            // Both before or both after: what the store counts is what was called settled.
            let settled = working.settled.lock().unwrap().len();
            assert_eq!(rows(&fixture.store).await, settled, "{}", fixture.name);
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert_eq!(rows(&fixture.store).await, settled, "{}", fixture.name);
            drop(reading);
        }
        working.stop().await;
    }
}

/// A backend that answers in turn what it was given, and remembers what it was told.
async fn backend(answers: Vec<u16>) -> (url::Url, Arc<Mutex<Vec<serde_json::Value>>>) {
    type Told = Arc<Mutex<Vec<serde_json::Value>>>;
    async fn access(
        State((told, answers)): State<(Told, Arc<Mutex<Vec<u16>>>)>,
        headers: HeaderMap,
        Json(mut body): Json<serde_json::Value>,
    ) -> axum::http::StatusCode {
        body["authorization"] = headers["authorization"].to_str().unwrap().into();
        told.lock().unwrap().push(body);
        axum::http::StatusCode::from_u16(answers.lock().unwrap().pop().unwrap_or(201)).unwrap()
    }
    let told = Told::default();
    let answers: Vec<_> = answers.into_iter().rev().collect();
    let router = Router::new()
        .route("/base/api/v1/metrics/asset/access", post(access))
        .with_state((Arc::clone(&told), Arc::new(Mutex::new(answers))));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/base/").parse().unwrap(), told)
}

#[expect(clippy::disallowed_methods, reason = "a client for a server in the same process")]
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

#[tokio::test]
async fn the_backend_is_told_of_each_event_until_it_has_taken_it() {
    for fixture in stores().await {
        let (address, told) = backend(vec![500, 400, 429]).await;
        let store = &fixture.store;
        let reporter = Reporter::new(
            store.clone(),
            client(),
            ReportOptions { attempts: 1, ..ReportOptions::new(address, Secret::new("the-token".into())) },
        );
        let event = |number| UsageEvent { charged: Credits::new(number), ..event(number) };
        store.append_usage(&[event(1)]).await.unwrap();
        assert_eq!(reporter.round().await.unwrap(), 1);
        assert_eq!(reporter.round().await.unwrap(), 0, "{}: not at once", fixture.name);
        store.append_usage(&[event(2)]).await.unwrap();
        assert_eq!(reporter.round().await.unwrap(), 1);
        store.append_usage(&[event(3), event(4)]).await.unwrap();
        assert_eq!(reporter.round().await.unwrap(), 2);
        let heard: Vec<_> = told.lock().unwrap().clone();
        assert_eq!(
            (heard.len(), &heard[0]["authorization"], &heard[0]["nvmCredits"]),
            (4, &"Bearer the-token".into(), &1.into())
        );

        // 500 and 429 are due again; 400 is given up; of 3 and 4 one was taken.
        let later = clock::now_micros() + 3_600_000_000;
        let due: Vec<_> = store
            .claim_reports(10, later, Duration::from_secs(1))
            .await
            .unwrap()
            .iter()
            .map(|job| job.event.event_id)
            .collect();
        assert_eq!((due.len(), due[0]), (2, event(1).event_id), "{}", fixture.name);
    }
}
