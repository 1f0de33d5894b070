//! What happens beside requests: the writer, the reporter, housekeeping, and the end.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    assemble::{Movers, Rooms, replay_place},
    auth_listener::AuthListener,
    reload::Reloading,
};
use crate::{
    admin::Readiness,
    authn::jwt::AccessTokens,
    config::{Config, ConfigError, Replay},
    credits::{AccountKey, Ledger},
    metrics::{self, Metrics},
    model::{
        clock::{self, Timestamp},
        credits::Credits,
        usage::{Terms, UsageEvent},
    },
    oauth::{self, SigningKeys},
    store::{Store, StoreError},
    telemetry::AccessLog,
    tls::{Certificates, RELOAD_INTERVAL},
};

/// Tasks that end when they are told to, and are waited for.
pub struct Background {
    stop: watch::Sender<bool>,
    awaited: Vec<JoinHandle<()>>,
}

impl Background {
    /// Starts everything on the runtime for outside questions.
    pub fn start(
        outside: &Runtime,
        config: &Config,
        rooms: &Rooms,
        movers: Movers,
        auth_listener: Option<AuthListener>,
        certificates: Vec<Arc<Certificates>>,
        readiness: Readiness,
    ) -> Self {
        let stop = watch::Sender::new(false);
        let ledger = Arc::clone(&rooms.ledger);
        let settled = move |events: &[UsageEvent]| settle(&ledger, events);
        let mut awaited = vec![outside.spawn(movers.writer.run(settled, told_to_stop(stop.subscribe())))];
        if let Some(reporter) = movers.reporter {
            awaited.push(outside.spawn(reporter.run(told_to_stop(stop.subscribe()))));
        }
        if let Some(listener) = auth_listener {
            awaited.push(outside.spawn(listener.run(stop.subscribe())));
        }
        outside.spawn(watch_certificates(certificates));
        outside.spawn(sweep(Arc::clone(&rooms.ledger)));
        outside.spawn(keep_house(rooms.store.clone(), config.usage.retention, config.database.access_tables));
        if replay_place(config) == Replay::Store {
            outside.spawn(forget_nonces(rooms.store.clone()));
        }
        {
            let _entered = outside.enter();
            outside.spawn(pass_on_early_end(signal(SignalKind::terminate()), readiness.clone()));
        }
        outside.spawn(announce(config.listeners.iter().map(|listener| listener.address).collect(), readiness));
        Self { stop, awaited }
    }

    /// Tells the tasks to end, and waits until they have.
    async fn end(self) {
        self.stop.send_replace(true);
        for task in self.awaited {
            // A task that panicked has ended too.
            let _ = task.await;
        }
    }
}

/// Loads the configuration again at every SIGHUP. A mistake in it changes nothing.
pub async fn reload_on_hangup(load: impl Fn() -> Result<Config, ConfigError> + Send + 'static, reloading: Reloading) {
    let hangups = signal(SignalKind::hangup());
    let Ok(mut hangups) = hangups.inspect_err(|error| tracing::error!(%error, "SIGHUP cannot be heard")) else {
        return;
    };
    while hangups.recv().await.is_some() {
        let applied = load().map_err(anyhow::Error::from).and_then(|config| reloading.apply(&config));
        match applied {
            Ok(()) => tracing::info!(
                "routes, upstreams, keys, services, subnets, auth_request and oauth are loaded again; other settings \
                 count from the next start"
            ),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the configuration cannot be used; the old one stays");
            }
        }
    }
}

/// Waits for the word to stop.
pub async fn told_to_stop(mut stop: watch::Receiver<bool>) {
    // An error means that nobody can tell any more, which comes to the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn settle(ledger: &Ledger, events: &[UsageEvent]) {
    for events in events.chunk_by(|one, next| one.terms == next.terms) {
        let sum = events.iter().fold(Credits::ZERO, |sum, event| sum.plus(event.charged));
        if let Some(account) = events.first().and_then(|event| account(&event.terms)) {
            ledger.settled(&account, sum);
        }
    }
}

fn account(terms: &Terms) -> Option<AccountKey> {
    Some(AccountKey { source: terms.source, plan: terms.plan?, holder: terms.holder? })
}

async fn watch_certificates(certificates: Vec<Arc<Certificates>>) {
    let mut tick = interval(RELOAD_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What was complained of: the same once, not at every look.
    let mut complaints = vec![String::new(); certificates.len()];
    loop {
        tick.tick().await;
        for (watched, complaint) in certificates.iter().zip(&mut complaints) {
            let watched = Arc::clone(watched);
            // Files are read on a thread that may wait.
            let Ok(reloaded) = tokio::task::spawn_blocking(move || watched.reload()).await else { continue };
            let problem = match reloaded {
                Ok(changed) => {
                    if changed {
                        tracing::info!("certificates changed; new connections get the new ones");
                    }
                    String::new()
                }
                Err(error) => format!("{error:#}"),
            };
            if !problem.is_empty() && problem != *complaint {
                tracing::error!(error = problem, "changed certificates cannot be used; the old ones stay");
            }
            *complaint = problem;
        }
    }
}

/// Takes up signing keys that `tollgate key` has made.
pub async fn watch_signing_keys(keys: SigningKeys) {
    let mut tick = interval(RELOAD_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (keys, mut complaint) = (Arc::new(keys), String::new());
    loop {
        tick.tick().await;
        let watched = Arc::clone(&keys);
        // Files are read on a thread that may wait.
        let Ok(reloaded) = tokio::task::spawn_blocking(move || watched.reload()).await else { continue };
        let problem = match reloaded {
            Ok(changed) => {
                if changed {
                    tracing::info!("signing keys changed");
                }
                String::new()
            }
            Err(error) => format!("{error:#}"),
        };
        if !problem.is_empty() && problem != complaint {
            tracing::error!(error = problem, "changed signing keys cannot be used; the old ones stay");
        }
        complaint = problem;
    }
}

/// Reads which grants were taken back, for the routes that accept access tokens: all of those whose tokens may still live, at
/// every look, because a revocation may be seen later than it is dated.
pub async fn follow_revocations(store: Store, tokens: Arc<ArcSwap<AccessTokens>>) {
    let mut tick = interval(REVOCATIONS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let tokens = tokens.load_full();
        let memory = i64::try_from(tokens.memory().as_micros()).unwrap_or(i64::MAX);
        let (as_of, since) = (tokens.revocations().now(), clock::now_micros().saturating_sub(memory));
        match store.revoked_grants(since).await {
            Ok(grants) => {
                let since = Timestamp(since.div_euclid(1_000_000).saturating_add(1));
                tokens.revocations().publish(grants.into_iter().collect(), since, as_of);
            }
            // tollgate_revocations_age_seconds says for how long.
            Err(error) => tracing::debug!(%error, "it cannot be read which grants were taken back"),
        }
    }
}

const REVOCATIONS_INTERVAL: Duration = Duration::from_secs(2);

/// Removes what nobody can present to the authorization server any more, and old events. However much there was, it is
/// gone before the next look. What is left is counted.
pub async fn keep_authorization_server(state: Arc<ArcSwap<oauth::State>>) {
    let mut tick = interval(Duration::from_mins(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (store, metrics, retention) = {
            let state = state.load();
            (state.store.clone(), Arc::clone(&state.metrics), state.settings.events.retention)
        };
        let kept = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
        let now = clock::now_micros();
        loop {
            let swept = store.sweep_oauth(now, HOUSEKEEPING_ROWS).await;
            let events = store.delete_oauth_events_before(now.saturating_sub(kept), HOUSEKEEPING_ROWS).await;
            match (swept, events) {
                (Ok(swept), Ok(events)) if swept.max(events) >= u64::from(HOUSEKEEPING_ROWS) => {}
                (Ok(_), Ok(_)) => break,
                (Err(error), _) | (_, Err(error)) => {
                    tracing::debug!(%error, "what has expired cannot be deleted");
                    break;
                }
            }
        }
        if let Err(error) = count(&store, &metrics).await {
            tracing::debug!(%error, "clients and refresh tokens cannot be counted");
        }
    }
}

async fn count(store: &Store, metrics: &metrics::OAuth) -> Result<(), StoreError> {
    let (active, inactive): (Vec<_>, Vec<_>) = store.clients().await?.into_iter().partition(|client| client.active);
    for (word, clients) in [("true", active), ("false", inactive)] {
        metrics.clients.with_label_values(&[word]).set(i64::try_from(clients.len()).unwrap_or(i64::MAX));
    }
    let tokens = store.usable_refresh_tokens(clock::now_micros()).await?;
    metrics.refresh_tokens.set(i64::try_from(tokens).unwrap_or(i64::MAX));
    Ok(())
}

/// Looks how many connections to the database there are.
pub async fn watch_database(store: Store, metrics: Arc<Metrics>) {
    let mut tick = interval(Duration::from_secs(15));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (used, idle) = store.connections();
        for (state, number) in [("used", used), ("idle", idle)] {
            metrics.outside.database_connections.with_label_values(&[state]).set(number.into());
        }
    }
}

async fn sweep(ledger: Arc<Ledger>) {
    let mut tick = interval(Duration::from_secs(30));
    loop {
        tick.tick().await;
        ledger.sweep();
    }
}

/// Removes old settled events, and learns from the replaced system's tables what its burner has burned.
async fn keep_house(store: Store, retention: Option<Duration>, access_tables: bool) {
    let mut tick = interval(Duration::from_secs(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if access_tables && let Err(error) = store.adopt_burns(HOUSEKEEPING_ROWS).await {
            tracing::debug!(%error, "the access tables cannot be read");
        }
        let ended = clock::now_micros().saturating_sub(RATES_KEPT_MICROS);
        if let Err(error) = store.delete_rates_before(ended, HOUSEKEEPING_ROWS).await {
            tracing::debug!(%error, "old rates cannot be deleted");
        }
        if let Some(retention) = retention {
            let micros = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
            let before = clock::now_micros().saturating_sub(micros);
            loop {
                match store.delete_usage_before(before, HOUSEKEEPING_ROWS).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "old usage cannot be deleted");
                        break;
                    }
                }
            }
        }
    }
}

const HOUSEKEEPING_ROWS: u32 = 1000;

/// Removes used requests that have ended. However many there were, they are gone before the next look, or the table would
/// grow as long as requests come faster than they go.
async fn forget_nonces(store: Store) {
    let mut tick = interval(Duration::from_secs(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // Other gateways' clocks may be behind ours.
        let before = clock::now_micros().saturating_sub(60_000_000);
        loop {
            match store.delete_nonces_before(before, HOUSEKEEPING_ROWS).await {
                Ok(rows) if rows >= u64::from(HOUSEKEEPING_ROWS) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "used requests cannot be deleted");
                    break;
                }
            }
        }
    }
}

/// Repeats a SIGTERM until it is heard: Pingora listens for it only some time after it was started, which without listeners of its
/// own is after everybody was told that we are ready. Until somebody listens, the signal would end the process at once.
async fn pass_on_early_end(ends: std::io::Result<Signal>, readiness: Readiness) {
    let Ok(mut ends) = ends else { return };
    ends.recv().await;
    loop {
        sleep(Duration::from_millis(100)).await;
        if readiness.is_stopping() {
            break;
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    }
}
/// Windows of rate limits are a minute long; clocks of gateways may differ by some.
const RATES_KEPT_MICROS: i64 = 5 * 60_000_000;

/// Says that the gateway is ready once every listener answers, and ends the process if one never does: Pingora reports
/// a failed bind by a panic in a task that nobody watches.
async fn announce(listeners: Vec<SocketAddr>, readiness: Readiness) {
    for address in listeners {
        let reachable = SocketAddr::new(reachable(address.ip()), address.port());
        let answers = async {
            while tokio::net::TcpStream::connect(reachable).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(Duration::from_secs(10), answers).await.is_err() {
            tracing::error!(%address, "the listener did not come up");
            std::process::exit(1);
        }
    }
    readiness.listening();
    tracing::info!("ready");
}

/// Where a listener on every address can be reached.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// Waits for Pingora's word to stop, and ends the process as soon as nothing is in flight any more. Pingora alone would
/// wait the whole grace period, also when nobody is connected.
pub struct Stopping {
    /// Tasks to end.
    pub background: parking_lot::Mutex<Option<Background>>,
    /// Open connections.
    pub open: Arc<AtomicUsize>,
    /// How long requests in flight may take.
    pub grace: Duration,
    /// To be flushed at the end.
    pub access_log: Option<Arc<AccessLog>>,
    /// No longer ready once stopping.
    pub readiness: Readiness,
}

#[async_trait]
impl BackgroundService for Stopping {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let _ = shutdown.wait_for(|stopping| *stopping).await;
        self.readiness.stopping();
        let idle = async {
            while self.open.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(self.grace, idle).await.is_err() {
            tracing::warn!(connections = self.open.load(Ordering::Relaxed), "stopped with connections open");
        }
        let background = self.background.lock().take();
        if let Some(background) = background {
            background.end().await;
        }
        if let Some(log) = &self.access_log {
            log.flush();
        }
        tracing::info!("stopped");
        std::process::exit(0);
    }
}
