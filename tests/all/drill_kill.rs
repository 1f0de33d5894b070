//! What a client received completely is in the store exactly once, whatever breaks meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::{Connection, Executor, SqliteConnection};

use super::support::{
    Client, Gateway, Part, Reply, Request, Settings, Token, Upstream, cluster::Cluster, database::Database, eventually,
    gateway::storm, run, token::HOLDER, variable, within,
};

const GRANTED: u64 = 1_000_000;

/// Clients that never stop asking.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    /// The ids of the answers that came to their end.
    ids: Arc<Mutex<Vec<String>>>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr, token: &str, workers: usize) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            served: Arc::default(),
            refused: Arc::default(),
            ids: Arc::default(),
            workers: Vec::new(),
        };
        for number in 0..workers {
            let (stop, served, refused, ids) =
                (Arc::clone(&load.stop), Arc::clone(&load.served), Arc::clone(&load.refused), Arc::clone(&load.ids));
            let path = ["/length", "/chunked", "/large", "/empty"][number % 4];
            let bytes = Request::get(path).token(token).bytes();
            load.workers.push(std::thread::spawn(move || {
                let mut client = None;
                while !stop.load(Ordering::SeqCst) {
                    let connected = client.take().or_else(|| Client::try_connect(address).ok());
                    let Some(mut connected) = connected else {
                        std::thread::park_timeout(Duration::from_millis(2));
                        continue;
                    };
                    if connected.try_write(&bytes).is_err() {
                        continue;
                    }
                    let Ok(answer) = connected.try_answer("GET") else { continue };
                    if answer.status == 200 && answer.complete {
                        ids.lock().unwrap().push(answer.header("x-request-id").unwrap().to_owned());
                        served.fetch_add(1, Ordering::SeqCst);
                        client = Some(connected);
                    } else if answer.status != 200 {
                        assert!(matches!(answer.status, 502 | 503), "{}", answer.head);
                        refused.fetch_add(1, Ordering::SeqCst);
                        std::thread::park_timeout(Duration::from_millis(2));
                    }
                }
            }));
        }
        load
    }

    /// Waits until so many more have been served.
    #[track_caller]
    fn more(&self, number: usize) {
        let goal = self.served.load(Ordering::SeqCst) + number;
        eventually("more is served", || (self.served.load(Ordering::SeqCst) >= goal).then_some(()));
    }

    /// Stops asking, and gives the ids of what was received completely.
    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.workers.into_iter().for_each(|worker| worker.join().unwrap());
        Arc::into_inner(self.ids).unwrap().into_inner().unwrap()
    }
}

/// The same numbers every time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn upstream() -> Upstream {
    let upstream = Upstream::start();
    upstream.on("/length", Reply::ok("ok"));
    upstream.on("/empty", Reply::ok(""));
    upstream.on("/large", Reply::ok(vec![b'x'; 200_000]));
    upstream.on("/chunked", Reply::parts([Part::Data(b"one".to_vec()), Part::Data(b"two".to_vec())]));
    upstream
}

/// Compares what clients received with what the store has.
fn account(gateway: &Gateway, upstream: &Upstream, received: &[String]) {
    let usage = gateway.usage();
    let mut rows: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in &usage {
        rows.entry(row["request_id"].as_str().unwrap()).or_default().push(row);
    }
    let distinct: BTreeSet<&str> = received.iter().map(String::as_str).collect();
    assert_eq!(distinct.len(), received.len(), "ids are never given twice");
    let missing: Vec<_> = distinct.iter().filter(|id| !rows.contains_key(**id)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} received answers are not in the store: {missing:?}",
        missing.len(),
        received.len()
    );
    for (id, rows) in &rows {
        assert_eq!(rows.len(), 1, "{id} is there more than once");
    }
    for id in &distinct {
        assert_eq!(rows[id][0]["charged"], 1, "{}", rows[id][0]);
    }
    assert!(usage.len() <= upstream.requests(), "{} charges for {} requests", usage.len(), upstream.requests());
    let charged: u64 = usage.iter().map(|row| row["charged"].as_u64().unwrap()).sum();
    let left = gateway.cli(&["credits", "list", "--holder", &HOLDER.to_string()]);
    let left: u64 = left.lines().nth(1).unwrap().split_whitespace().nth(2).unwrap().parse().unwrap();
    assert_eq!(GRANTED - left, charged, "what is charged is what is gone");
    eprintln!(
        "{} answers received, {} events in the store, {} requests at the upstream",
        received.len(),
        usage.len(),
        upstream.requests()
    );
}

#[test]
fn drill_fifty_kills_under_load_lose_and_double_nothing() {
    let upstream = upstream();
    let mut gateway = Gateway::start(Settings::file().paid(""));
    gateway.grant(&HOLDER, GRANTED);
    let load = Load::start(gateway.http, &Token::covering(upstream.everything()).mint(), 8);
    let mut seeded = Seeded(0x5eed_0000_0001);
    for _ in 0..50 {
        load.more(usize::try_from(1 + seeded.below(80)).unwrap());
        std::thread::park_timeout(Duration::from_micros(seeded.below(5000)));
        gateway.kill();
        gateway.restart();
    }
    load.more(10);
    let received = load.finish();
    account(&gateway, &upstream, &received);
}

#[test]
fn drill_kills_while_postgres_is_away_lose_and_double_nothing() {
    let outage =
        if variable("TOLLGATE_DRILL_FULL").is_some() { Duration::from_mins(1) } else { Duration::from_secs(10) };
    let upstream = upstream();
    let mut cluster = Cluster::start();
    let mut gateway =
        Gateway::start(Settings::file().database(&format!("url = \"{}\"\ntimeout = \"2s\"", cluster.url())).paid(""));
    for expected in ["usage events cannot be written", "the database cannot be reached", "reports cannot be read"] {
        gateway.expect_error(expected);
    }
    gateway.grant(&HOLDER, GRANTED);
    let load = Load::start(gateway.http, &Token::covering(upstream.everything()).mint(), 8);
    let mut seeded = Seeded(0x5eed_0000_0002);
    let mut kills = |gateway: &mut Gateway, load: &Load, number: usize| {
        for _ in 0..number {
            load.more(usize::try_from(1 + seeded.below(60)).unwrap());
            gateway.kill();
            gateway.restart();
        }
    };
    kills(&mut gateway, &load, 8);
    load.more(20);

    let begun = Instant::now();
    cluster.stop();
    // Who is known goes on being served: the spool keeps what the store misses.
    load.more(200);
    gateway.kill();
    gateway.restart();
    // What the holder owes from before is not known to anybody now, so nobody is let in for it.
    let refused = load.refused.load(Ordering::SeqCst);
    eventually("requests are refused", || (load.refused.load(Ordering::SeqCst) > refused + 20).then_some(()));
    gateway.kill();
    gateway.restart();
    assert_eq!(gateway.admin("/readyz").unwrap().status, 200, "a database that is away is no reason to be taken out");
    while begun.elapsed() < outage {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    cluster.again();

    within(Duration::from_mins(1), "it is served again", || {
        let before = load.served.load(Ordering::SeqCst);
        std::thread::park_timeout(Duration::from_millis(20));
        (load.served.load(Ordering::SeqCst) > before).then_some(())
    });
    kills(&mut gateway, &load, 8);
    load.more(10);
    let received = load.finish();
    account(&gateway, &upstream, &received);
}

/// Fills the spool, sees that metered requests are refused and others not, makes room, and accounts for everything.
fn full_spool(mut gateway: Gateway, break_store: impl FnOnce(), mend_store: impl FnOnce(), upstream: &Upstream) {
    for expected in ["usage events cannot be written", "spool"] {
        gateway.expect_error(expected);
    }
    gateway.launch();
    gateway.ready();
    gateway.grant(&HOLDER, GRANTED);
    let load = Load::start(gateway.http, &Token::covering(upstream.everything()).mint(), 8);
    load.more(50);
    break_store();
    within(Duration::from_mins(1), "the spool is full", || (load.refused.load(Ordering::SeqCst) > 20).then_some(()));
    let line = gateway.logged(|line| line["status"] == 503);
    assert_eq!(line["reason"], "spool_unavailable", "{line}");
    eventually("it is not ready", || gateway.admin("/readyz").filter(|answer| answer.status == 503));
    // Room that a request did not need is there again for a moment, until the next one takes it.
    eventually("it says so", || (gateway.metric("tollgate_spool_writable", &[]) == 0).then_some(()));
    let open = gateway.send(&Request::get("/open/x"));
    assert_eq!(open.status, 200, "an open route needs no spool: {}", open.text());
    // A restart does not help, and loses nothing.
    gateway.kill();
    gateway.launch();
    eventually("it answers again", || gateway.admin("/healthz"));
    mend_store();
    within(Duration::from_mins(1), "there is room again", || {
        gateway.admin("/readyz").filter(|answer| answer.status == 200)
    });
    load.more(100);
    let received = load.finish();
    account(&gateway, upstream, &received);
}

fn with_open_route(settings: Settings, upstream: &Upstream) -> Settings {
    settings.open(upstream.address, "path = \"/open\"").paid("")
}

/// Keeps everybody from writing into a database file.
struct Locked(Option<SqliteConnection>, PathBuf);

impl Locked {
    fn lock(&mut self) {
        let url = format!("sqlite://{}", self.1.display());
        self.0 = Some(run(async {
            let mut connection = SqliteConnection::connect(&url).await.unwrap();
            eventually_async(&mut connection).await;
            connection
        }));
    }

    fn unlock(&mut self) {
        let mut connection = self.0.take().unwrap();
        run(async { connection.execute("rollback").await.unwrap() });
    }
}

async fn eventually_async(connection: &mut SqliteConnection) {
    let begun = Instant::now();
    while let Err(error) = connection.execute("begin immediate").await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
    }
}

#[test]
fn drill_a_full_spool_refuses_metered_requests_until_there_is_room() {
    let upstream = upstream();
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("tollgate.db");
    let settings = Settings::file()
        .usage("spool_max_bytes = \"512KiB\"\nsegment_bytes = \"64KiB\"")
        .database(&format!("url = \"sqlite://{}\"\ntimeout = \"1s\"", database.display()));
    let gateway = Gateway::prepare(with_open_route(settings, &upstream));
    let locked = Mutex::new(Locked(None, database));
    full_spool(gateway, || locked.lock().unwrap().lock(), || locked.lock().unwrap().unlock(), &upstream);
}

/// A small disk of its own. None: we may not mount one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tollgate-drill"])
            .arg(directory.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn drill_a_full_disk_refuses_metered_requests_until_there_is_room() {
    let Some(disk) = Disk::mount("1m") else {
        assert!(!rustix::process::geteuid().is_root() || variable("CI").is_some(), "root could not mount a tmpfs");
        eprintln!("not run: only root may mount a disk");
        return;
    };
    let upstream = upstream();
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("tollgate.db");
    let settings = Settings::file()
        .usage("spool_max_bytes = \"64MiB\"\nsegment_bytes = \"64KiB\"")
        .database(&format!("url = \"sqlite://{}\"\ntimeout = \"1s\"", database.display()));
    let gateway = Gateway::prepare_at(with_open_route(settings, &upstream), &disk.path().join("data"));
    let locked = Mutex::new(Locked(None, database));
    full_spool(gateway, || locked.lock().unwrap().lock(), || locked.lock().unwrap().unlock(), &upstream);
}

#[test]
fn drill_two_gateways_on_one_database_overspend_no_more_than_the_bound() {
    let upstream = Upstream::start();
    let database = Database::fresh();
    let settings = || Settings::file().database(&format!("url = \"{}\"", database.url)).paid("");
    let gateways = [Gateway::start(settings()), Gateway::start(settings())];
    gateways[0].grant(&HOLDER, 10);
    let token = Token::covering(upstream.everything()).mint();
    let request = Request::get("/x").token(&token);
    let storms = gateways.each_ref().map(|gateway| {
        let (address, request) = (gateway.http, request.clone());
        std::thread::spawn(move || storm(address, &request, 500, 50))
    });
    let answers: Vec<_> = storms.into_iter().flat_map(|storm| storm.join().unwrap()).collect();
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 402).count();
    assert_eq!(served + refused, 1000);
    // (gateways − 1) × the balance, beyond the balance itself: docs/operations.md.
    assert!((10..=20).contains(&served), "{served}");
    gateways.iter().for_each(Gateway::settle);
    let charged: i64 = gateways[0].usage().iter().map(|row| row["charged"].as_i64().unwrap()).sum();
    assert_eq!(charged, i64::try_from(served).unwrap(), "what was served is charged, if on credit");
    // Both know now.
    for gateway in &gateways {
        eventually("nothing is left", || (gateway.send(&request).status == 402).then_some(()));
    }
}
