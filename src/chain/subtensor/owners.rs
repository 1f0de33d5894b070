//! Which coldkey owns a hotkey: `SubtensorModule.Owner` at the finalised block, remembered for a while.
//!
//! Everybody can ask, with accounts that he has just made up: so questions are shared, bounded and limited
//! ([`Cache`]). What the chain does not know is *nobody*; what it was not asked, or did not answer, is unknown.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use subxt::dynamic;
use tokio::{runtime::Handle, sync::Mutex};

use super::{AtBlock, Node, Subtensor};
use crate::{
    chain::{
        cache::{self, Cache, Clock, Fetch, Statistics, Unanswered},
        fault::{Failed, Fault},
    },
    model::{decision::Dependency, hotkey::Hotkey},
};

/// How long an owner counts. Coldkeys are swapped days after it was announced.
const FRESH_FOR: Duration = Duration::from_mins(1);
/// How long an account counts as nobody's hotkey: a block, after which it may be registered.
const NEGATIVE_FOR: Duration = Duration::from_secs(12);
/// Where the rests after failures end: users wait before a page.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(5);
/// How long questions are put to the same block, which stays final, before the node is asked for a later one.
const SAME_BLOCK: Duration = Duration::from_secs(6);
/// How often a node is asked whether it is catching up.
const HEALTH_EVERY: Duration = Duration::from_mins(1);

/// Who owns which hotkey. Clones share everything.
#[derive(Clone)]
pub struct Owners {
    answers: Cache<Hotkey, Hotkey>,
    source: Arc<Source>,
}

impl Owners {
    /// Asks this node, within `timeout`, over a connection of its own on `handle`'s runtime. It is made at once and tried
    /// from time to time in the background, so that nobody who asks need wait for it, and so that [`Self::is_connected`]
    /// tells the truth also while nobody asks.
    #[must_use]
    pub fn new(node: Node, timeout: Duration, clock: Clock, handle: Handle) -> Self {
        let source = Arc::new(Source { node, connection: Mutex::default(), connected: AtomicBool::new(false) });
        handle.spawn(watch(Arc::downgrade(&source), timeout));
        let options = cache::Options {
            fresh_for: FRESH_FOR,
            // An owner of long ago is no answer to who signs in now.
            stale_for: FRESH_FOR,
            negative_for: NEGATIVE_FOR,
            retry_after_most: RETRY_AFTER_MOST,
            fetch_timeout: timeout,
            wait: timeout.saturating_add(Duration::from_secs(1)),
            ..cache::Options::default()
        };
        let asked = Arc::clone(&source);
        let fetch = move |account| -> Fetch<Hotkey> {
            let source = Arc::clone(&asked);
            Box::pin(async move { source.owner(account).await })
        };
        Self { answers: Cache::new(Dependency::Neurons, options, clock, handle, fetch), source }
    }

    /// Whether the node answered when it was last asked, which is never long ago.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.source.connected.load(Relaxed)
    }

    /// The coldkey that owns this account. None: nobody does, so it is no hotkey. For an account that we know already.
    ///
    /// # Errors
    /// When the chain does not answer, or has not a moment ago.
    pub async fn of(&self, account: Hotkey) -> Result<Option<Hotkey>, Unanswered> {
        Ok(self.answers.get(&account).await?.map(|owner| *owner))
    }

    /// As [`Self::of`], for an account that anybody may have made up.
    ///
    /// # Errors
    /// As [`Self::of`], and when too many unknown accounts are asked about.
    pub async fn of_stranger(&self, account: Hotkey) -> Result<Option<Hotkey>, Unanswered> {
        Ok(self.answers.get_unvouched(&account).await?.map(|owner| *owner))
    }

    /// What has happened to look-ups, for the metrics.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        self.answers.statistics()
    }
}

struct Source {
    node: Node,
    /// Held while it is made, so that it is made once.
    connection: Mutex<Option<Connection>>,
    connected: AtomicBool,
}

/// Keeps the connection, as long as somebody may ask.
async fn watch(source: Weak<Source>, patience: Duration) {
    let mut away = false;
    while let Some(source) = source.upgrade() {
        let reached = tokio::time::timeout(patience, source.reach()).await;
        let failed = reached.unwrap_or_else(|_| Err(Failed::new(Fault::Timeout, "no connection in time"))).err();
        source.connected.store(failed.is_none(), Relaxed);
        drop(source);
        match &failed {
            Some(failed) if !away => tracing::warn!(%failed, "the chain cannot be asked whose hotkeys are whose"),
            None if away => tracing::info!("the chain can be asked again whose hotkeys are whose"),
            _ => {}
        }
        away = failed.is_some();
        tokio::time::sleep(SAME_BLOCK).await;
    }
}

#[derive(Clone)]
struct Connection {
    chain: Subtensor,
    checked: Instant,
    block: AtBlock,
    read: Instant,
}

impl Source {
    async fn reach(&self) -> Result<(), Failed> {
        match self.connection().await {
            // Nodes end connections now and then, which says nothing about the next one.
            Err(failed) if failed.fault == Fault::Transport => self.connection().await.map(drop),
            reached => reached.map(drop),
        }
    }

    async fn owner(&self, account: Hotkey) -> Result<Option<Hotkey>, Failed> {
        match self.ask(account).await {
            // A connection that nobody has used for a while may have been broken all the time.
            Err(failed) if failed.fault == Fault::Transport => self.ask(account).await,
            answered => answered,
        }
    }

    async fn ask(&self, account: Hotkey) -> Result<Option<Hotkey>, Failed> {
        let connection = self.connection().await?;
        let owner = owner(&connection, account).await;
        if owner.is_err() {
            // It may be broken in ways that do not show. Somebody else may have made another meanwhile.
            let mut kept = self.connection.lock().await;
            if kept.as_ref().is_some_and(|kept| kept.chain.shares_connection(&connection.chain)) {
                *kept = None;
            }
        }
        owner
    }

    /// A connection, and a block that became final on it a moment ago.
    async fn connection(&self) -> Result<Connection, Failed> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept
            && connection.read.elapsed() < SAME_BLOCK
        {
            return Ok(connection.clone());
        }
        // Taken out: if it fails now, or we are cut off, nobody shall use it again.
        let connection = match kept.take() {
            Some(connection) => connection.moved_on().await?,
            None => Connection::new(self.node.connect().await?).await?,
        };
        *kept = Some(connection.clone());
        Ok(connection)
    }
}

impl Connection {
    async fn new(chain: Subtensor) -> Result<Self, Failed> {
        let block = chain.at(chain.finalized().await?).await?;
        let now = Instant::now();
        Ok(Self { chain, checked: now, block, read: now })
    }

    async fn moved_on(self) -> Result<Self, Failed> {
        let checked = if self.checked.elapsed() < HEALTH_EVERY {
            self.checked
        } else {
            self.chain.check_health().await?;
            Instant::now()
        };
        Ok(Self { checked, ..Self::new(self.chain).await? })
    }
}

/// Where nothing is stored, the account of zeros is read (subtensor.md section 3.3).
async fn owner(connection: &Connection, account: Hotkey) -> Result<Option<Hotkey>, Failed> {
    let item = dynamic::storage::<([u8; 32],), [u8; 32]>("SubtensorModule", "Owner");
    let explain = |error: &dyn std::fmt::Display| connection.chain.explain(&error);
    let found = connection.block.storage().try_fetch(item, (account.0,)).await.map_err(|error| explain(&error))?;
    let owner = found.map(|value| value.decode()).transpose().map_err(|error| explain(&error))?;
    Ok(owner.filter(|owner| *owner != [0; 32]).map(Hotkey))
}
