//! The one connection over which all subnets of a chain are read, and the two blocks that count now.
//!
//! Whoever reads a subnet asks as a client of their own over this connection (`Node::beside`), so that what fails for
//! one is not taken for another's. Which blocks count is found out once for all who ask at the same time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use subxt::config::substrate::H256;
use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
    time::sleep,
};

use super::{Heads, Node, Subtensor};
use crate::chain::fault::{Failed, Fault};

/// The connection. Clones share it; it is made when it is needed, on the runtime of who needs it.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    node: Node,
    /// Held while the node is asked, so that it is asked once.
    state: Mutex<State>,
    /// Counts what readers should hear of: new blocks, and the loss of the connection.
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    look: Option<Look>,
}

struct Open {
    chain: Subtensor,
    /// None: the node gives no news.
    listener: Option<Listener>,
    checked: Instant,
}

/// A block, by its name and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub hash: H256,
    pub number: u64,
}

/// Where the chain stands.
#[derive(Clone)]
pub(super) struct Now {
    /// A client over the connection.
    pub chain: Subtensor,
    /// The last block that will stay.
    pub settled: Block,
    /// The best block.
    pub latest: Block,
}

/// What came of asking where the chain stands.
struct Look {
    /// What had been told before.
    news: u64,
    began: Instant,
    ended: Instant,
    outcome: Result<Now, Failed>,
}

/// News of the best and of the final block come together: one reading is enough.
const TOGETHER: Duration = Duration::from_millis(100);
/// How long the same blocks count without asking again, where nothing new is heard of.
const SAME_BLOCKS: Duration = Duration::from_millis(500);
/// How often a node is asked whether it is catching up.
const HEALTH_EVERY: Duration = Duration::from_mins(1);

impl Link {
    /// To this node. Nothing is asked yet.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self(Arc::new(Shared { node, state: Mutex::default(), news: watch::Sender::new(0) }))
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }

    /// Changes when there is a new block, if the node tells, and when the connection is lost.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    /// Where the chain stands.
    ///
    /// # Errors
    /// When the node does not answer, is another chain's, or is behind.
    pub(super) async fn now(&self) -> Result<Now, Failed> {
        let arrived = Instant::now();
        let mut state = self.0.state.lock().await;
        let news = *self.0.news.borrow();
        if let Some(look) = state.look.as_ref().filter(|look| look.counts(arrived, news)) {
            return look.outcome.clone();
        }
        let began = Instant::now();
        // Taken out: if it fails now, or we are cut off, nobody shall use it again.
        let (open, before) = (state.open.take(), state.look.take().and_then(|look| look.outcome.ok()));
        let looked = self.look(open, before.as_ref()).await;
        let outcome = looked.map(|(open, now)| {
            state.open = Some(open);
            now
        });
        state.look = Some(Look { news, began, ended: Instant::now(), outcome: outcome.clone() });
        outcome
    }

    /// To be called when something failed over the connection of `now` that may have been its fault: it may be broken in
    /// ways that do not show.
    pub(super) async fn lost(&self, now: &Now) {
        let mut state = self.0.state.lock().await;
        // Somebody else may have made another meanwhile.
        if state.open.as_ref().is_some_and(|open| open.chain.shares_connection(&now.chain)) {
            state.open = None;
            tell(&self.0.news);
        }
    }

    async fn look(&self, open: Option<Open>, before: Option<&Now>) -> Result<(Open, Now), Failed> {
        let open = match open.filter(|open| !open.has_ended()) {
            Some(open) => open.checked().await?,
            None => self.open().await?,
        };
        let chain = &open.chain;
        let (settled, latest) = (chain.finalized().await?, chain.best().await?);
        let mut known: Vec<Block> = before.iter().flat_map(|now| [now.settled, now.latest]).collect();
        let settled = block(chain, settled, &known).await?;
        known.push(settled);
        let latest = block(chain, latest, &known).await?;
        if latest.number < settled.number {
            let detail = format!("the best block {} is before the finalised {}", latest.number, settled.number);
            return Err(Failed::new(Fault::Behind, detail));
        }
        let now = Now { chain: chain.clone(), settled, latest };
        Ok((open, now))
    }

    async fn open(&self) -> Result<Open, Failed> {
        let chain = self.0.node.connect().await?;
        let listener = chain.heads().await?.map(|heads| Listener::start(heads, self.0.news.clone()));
        Ok(Open { chain, listener, checked: Instant::now() })
    }
}

async fn block(chain: &Subtensor, hash: H256, known: &[Block]) -> Result<Block, Failed> {
    match known.iter().find(|block| block.hash == hash) {
        Some(block) => Ok(*block),
        None => Ok(Block { hash, number: chain.number_of(hash).await? }),
    }
}

impl Look {
    /// Whether it answers somebody who came then, when so much had been told.
    fn counts(&self, arrived: Instant, news: u64) -> bool {
        let young = self.outcome.is_ok() && self.began.elapsed() < SAME_BLOCKS;
        // Who came while it was being found out has waited for it.
        self.news == news && (young || arrived < self.ended)
    }
}

impl Open {
    fn has_ended(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.ended.load(Relaxed))
    }

    async fn checked(self) -> Result<Self, Failed> {
        if self.checked.elapsed() < HEALTH_EVERY {
            return Ok(self);
        }
        self.chain.check_health().await?;
        Ok(Self { checked: Instant::now(), ..self })
    }
}

/// Passes on the news of blocks, until it is dropped or the connection ends.
struct Listener {
    task: AbortHandle,
    ended: Arc<AtomicBool>,
}

impl Listener {
    fn start(heads: Heads, news: watch::Sender<u64>) -> Self {
        let ended = Arc::<AtomicBool>::default();
        let task = tokio::spawn({
            let ended = Arc::clone(&ended);
            async move {
                listen(heads, &news).await;
                ended.store(true, Relaxed);
                tell(&news);
            }
        });
        Self { task: task.abort_handle(), ended }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(mut heads: Heads, news: &watch::Sender<u64>) {
    while heads.next().await {
        let rest = sleep(TOGETHER);
        tokio::pin!(rest);
        loop {
            tokio::select! {
                () = &mut rest => break,
                still = heads.next() => if !still { return },
            }
        }
        tell(news);
    }
}

fn tell(news: &watch::Sender<u64>) {
    news.send_modify(|count| *count = count.wrapping_add(1));
}
