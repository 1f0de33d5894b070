//! From the configuration to the rooms.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::runtime::Handle;

use super::{STORE_PATIENCE, subnets::Subnets};
use crate::{
    chain::{
        self, Facts, ServiceFacts, cache, evm, marketplace,
        subtensor::{self, owners::Owners},
    },
    config::{Config, DatabaseTarget, Replay},
    credits::{Books, Ledger, LedgerOptions},
    model::{clock, secret::Secret},
    oauth,
    replay::Replays,
    store::{Store, StoreOptions, StoreTarget},
    usage::{
        report::{ReportOptions, ReportStats, Reporter},
        spool::{Spool, SpoolOptions},
        writer::{Writer, WriterOptions, WriterStats},
    },
};

/// What outlives a reload.
#[derive(Clone)]
pub struct Rooms {
    /// Usage, credits.
    pub store: Store,
    /// Usage on its way to the store.
    pub spool: Arc<Spool>,
    /// The figures of what takes it there.
    pub writer_stats: Arc<WriterStats>,
    /// The figures of what reports it, if anything does.
    pub report_stats: Option<Arc<ReportStats>>,
    /// Services, plans, balances on chain.
    pub facts: Arc<Facts>,
    /// Neurons and their keys, if there is a source of them.
    pub subnets: Option<Arc<Subnets>>,
    /// Whose hotkeys are whose, if somebody signs in and there is a node to ask.
    pub owners: Option<Owners>,
    /// Accounts.
    pub ledger: Arc<Ledger>,
    /// Signed requests that have been used.
    pub replays: Arc<Replays>,
    /// The runtime for outside questions.
    pub outside: Handle,
}

/// What moves usage on. Built with the rooms, run by the lifecycle.
pub struct Movers {
    /// From the spool to the store.
    pub writer: Writer,
    /// From the store to the backend, if it is told.
    pub reporter: Option<Reporter>,
}

/// How the store is opened, for the gateway and for the commands that look into it.
#[must_use]
pub fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        target: match &config.database.target {
            DatabaseTarget::Sqlite(path) => StoreTarget::Sqlite(path.clone()),
            DatabaseTarget::Postgres(url) => StoreTarget::Postgres(url.clone()),
        },
        max_connections: config.database.max_connections,
        timeout: config.database.timeout,
        access_tables: config.database.access_tables,
        reports: config.usage.report.is_some(),
    }
}

/// Builds them, and what moves usage on, which is not running yet. To be called on the runtime for outside questions.
///
/// # Errors
/// When something cannot be opened.
pub async fn rooms(config: &Config) -> anyhow::Result<(Rooms, Movers)> {
    let data_dir = &config.server.data_dir;
    std::fs::create_dir_all(data_dir).with_context(|| format!("making the data directory {}", data_dir.display()))?;
    let outside = Handle::current();
    let store = Store::open(&store_options(config)).context("opening the database")?;
    if config.database.migrate_at_start {
        migrate(&store).await?;
    }
    let spool = Spool::open(&SpoolOptions {
        directory: data_dir.join("spool"),
        max_bytes: config.usage.spool_max_bytes,
        segment_bytes: config.usage.segment_bytes,
        sync_interval: config.usage.sync_interval,
        shards: config.server.threads,
    });
    let spool = Arc::new(spool.context("opening the usage spool")?);
    let facts = Arc::new(facts(config, &outside)?);
    let writer = Writer::new(
        (*spool).clone(),
        store.clone(),
        WriterOptions { drain: config.server.grace_period, ..WriterOptions::default() },
    );
    let timeout = config.database.timeout.min(STORE_PATIENCE);
    let books = Books {
        store: store.clone(),
        facts: Arc::clone(&facts),
        recovered: spool.recovered(),
        commit_gate: writer.commit_gate(),
        timeout,
        silent_since: parking_lot::Mutex::default(),
    };
    let options = LedgerOptions {
        refresh: config.credits.refresh,
        stale_for: config.chain.as_ref().map_or(STALE_FOR, |chain| chain.stale_for),
        patience: timeout + config.chain.as_ref().map_or(Duration::ZERO, |chain| chain.timeout),
        max_accounts: config.credits.max_accounts,
    };
    let ledger = Ledger::new(options, Arc::new(books), outside.clone());
    let writer_stats = writer.stats();
    let reporter = reporter(config, &store)?;
    let report_stats = reporter.as_ref().map(Reporter::stats);
    let node = subtensor(config)?;
    let subnets = Subnets::new(config, node.clone(), &outside).map(Arc::new);
    let owners = node.zip(config.subtensor.as_ref()).filter(|_| config.oauth.is_some());
    let owners =
        owners.map(|(node, settings)| Owners::new(node, settings.timeout, cache::Clock::Steady, outside.clone()));
    let replays = match replay_place(config) {
        Replay::Memory => Replays::in_memory(clock::now_micros()),
        Replay::Store => Replays::in_store(store.clone(), outside.clone(), timeout),
    };
    let replays = Arc::new(replays);
    let rooms = Rooms { store, spool, writer_stats, report_stats, facts, subnets, owners, ledger, replays, outside };
    Ok((rooms, Movers { writer, reporter }))
}

/// Gateways may share Postgres, and then they must share this. `SQLite` would write each request to its disk for nobody.
#[must_use]
pub fn replay_place(config: &Config) -> Replay {
    let chosen = config.signed_requests.as_ref().and_then(|settings| settings.replay);
    chosen.unwrap_or(match config.database.target {
        DatabaseTarget::Postgres(_) => Replay::Store,
        DatabaseTarget::Sqlite(_) => Replay::Memory,
    })
}

/// How old a local balance may be while the store is away.
const STALE_FOR: Duration = Duration::from_mins(2);

/// A database that cannot be reached does not keep the gateway from starting: the spool keeps what it misses, and routes
/// that need it answer 503 until it is there. One that can be reached and refuses is a mistake of the operator's.
async fn migrate(store: &Store) -> anyhow::Result<()> {
    match tokio::time::timeout(STORE_PATIENCE, store.migrate()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if !error.is_retryable() => Err(error).context("migrating the database"),
        unreachable => {
            let error = unreachable.map_or_else(
                |_| "timeout".to_owned(),
                |result| result.map_or_else(|e| e.to_string(), |()| String::new()),
            );
            tracing::error!(error, "the database cannot be reached; it is tried again in the background");
            let store = store.clone();
            tokio::spawn(async move {
                while let Err(error) = store.migrate().await {
                    tracing::debug!(%error, "the database still cannot be reached");
                    tokio::time::sleep(STORE_PATIENCE).await;
                }
                tracing::info!("the database is there");
            });
            Ok(())
        }
    }
}

/// A bundle of certificates, if one is configured.
pub(super) fn pem(path: Option<&PathBuf>) -> anyhow::Result<Option<Vec<u8>>> {
    path.map(|path| std::fs::read(path).with_context(|| format!("reading {}", path.display()))).transpose()
}

/// The Ethereum node, if there is one.
fn node(config: &Config) -> anyhow::Result<Option<evm::Options>> {
    let Some(node) = &config.chain else { return Ok(None) };
    let http = chain::http::Options { timeout: node.timeout, extra_ca_pem: pem(node.ca.as_ref())? };
    Ok(Some(evm::Options { url: node.rpc.expose().clone(), http }))
}

/// Whom the authorization server asks about wallets.
///
/// # Errors
/// When a client cannot be built.
pub fn wallet_facts(config: &Config, rooms: &Rooms) -> anyhow::Result<oauth::WalletFacts> {
    let ethereum = node(config)?.map(|options| evm::Evm::new(&options)).transpose()?;
    Ok(oauth::WalletFacts { ethereum, owners: rooms.owners.clone() })
}

fn facts(config: &Config, outside: &Handle) -> anyhow::Result<Facts> {
    let http = |timeout, extra_ca_pem| chain::http::Options { timeout, extra_ca_pem };
    let marketplace = match &config.marketplace {
        None => None,
        Some(market) => Some(marketplace::Options {
            url: market.url.clone(),
            http: http(market.timeout, pem(market.ca.as_ref())?),
            answer_limit: usize::try_from(market.max_body_bytes)?,
        }),
    };
    let node = node(config)?;
    let cache = config.marketplace.as_ref().map_or_else(cache::Options::default, |market| cache::Options {
        capacity: market.freshness.max_entries,
        fresh_for: market.freshness.fresh_for,
        stale_for: market.freshness.stale_for,
        negative_for: market.freshness.negative_for,
        fetch_timeout: market.timeout,
        wait: market.timeout.saturating_add(Duration::from_secs(1)),
        ..cache::Options::default()
    });
    let facts = Facts::new(chain::Options { marketplace, node, cache }, &cache::Clock::Steady, outside.clone())?;
    facts.configure(services(config));
    Ok(facts)
}

/// The node of the chain of neurons.
///
/// # Errors
/// When its client cannot be built.
pub fn subtensor(config: &Config) -> anyhow::Result<Option<subtensor::Node>> {
    let Some(settings) = &config.subtensor else { return Ok(None) };
    let options = subtensor::Options {
        url: settings.url.expose().clone(),
        genesis_hash: settings.genesis_hash,
        timeout: settings.timeout,
    };
    subtensor::Node::new(options).map(Some).context("[subtensor]")
}

pub(super) fn services(config: &Config) -> impl Iterator<Item = ServiceFacts> {
    config.services.iter().map(|service| ServiceFacts {
        service: service.id,
        plan: Some(service.plan),
        plan_kind: service.plan_kind,
        price: service.price.clone(),
        owner: service.owner.clone(),
        creator: String::new(),
        source: service.credits,
        open_endpoints: service.open_endpoints.clone(),
    })
}

fn reporter(config: &Config, store: &Store) -> anyhow::Result<Option<Reporter>> {
    let Some(report) = &config.usage.report else { return Ok(None) };
    let client =
        chain::http::client(&report.url, &chain::http::Options { timeout: report.timeout, extra_ca_pem: None })?;
    // Without a token the backend refuses, which the log and the metrics then tell.
    let token = report.token.clone().unwrap_or_else(|| Secret::new(String::new()));
    let options = ReportOptions { timeout: report.timeout, ..ReportOptions::new(report.url.clone(), token) };
    Ok(Some(Reporter::new(store.clone(), client, options)))
}
