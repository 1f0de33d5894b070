//! The chain of neurons itself: a client of a Subtensor node (subtensor.md).
//!
//! Questions are put to one block and decoded by the metadata that the node has of it, by names, so that a new runtime
//! is understood as far as it says the same things. subxt does the decoding; the connection is ours (`wire`), because
//! it must have limits, must not name its address, and has to say what went wrong in our words.

pub mod link;
pub mod owners;
pub mod serve;
pub mod table;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

use reqwest::Url;
use subxt::{
    Config, OnlineClient, SubstrateConfig,
    backend::LegacyBackend,
    client::OnlineClientAtBlock,
    config::{
        Hasher as _, RpcConfigFor,
        substrate::{BlakeTwo256, H256},
    },
    ext::codec::Encode as _,
    rpcs::{LegacyRpcMethods, RpcClient, client::RpcSubscription},
};

use self::wire::{Way, Wire};
use super::{
    fault::{Calls, Failed, Fault},
    http,
};

/// Where the node is and which chain it must have.
#[derive(Clone)]
pub struct Options {
    /// `ws`, `wss`, `http` or `https`. May contain a key.
    pub url: Url,
    /// The hash of the chain's first block. None: whichever it is.
    pub genesis_hash: Option<[u8; 32]>,
    /// The longest one question may take, and a connection to be made.
    pub timeout: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, genesis_hash, timeout } = self;
        f.debug_struct("Options").field("genesis_hash", genesis_hash).field("timeout", timeout).finish_non_exhaustive()
    }
}

/// A node that can be connected to. What is known of its runtimes outlives connections; clones share it.
#[derive(Clone)]
pub struct Node {
    options: Options,
    way: Way,
    config: SubstrateConfig,
    questions: Arc<Calls>,
}

impl Node {
    /// A node. Nothing is asked yet. The caller must have installed rustls' provider.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(options: Options) -> Result<Self, http::ClientError> {
        let way = Way::to(&options)?;
        Ok(Self { options, way, config: SubstrateConfig::new(), questions: Arc::default() })
    }

    /// The questions that were put to it, for the metrics.
    #[must_use]
    pub fn questions(&self) -> &Arc<Calls> {
        &self.questions
    }

    /// Connects, and sees whether it is the right chain and the node knows of now.
    ///
    /// # Errors
    /// When there is no connection, or it is another chain's, or the node is still catching up.
    pub async fn connect(&self) -> Result<Subtensor, Failed> {
        let chain = self.client(Wire::connect(&self.way, &self.options, Arc::clone(&self.questions)).await?).await?;
        if let Some(expected) = self.options.genesis_hash
            && chain.client.genesis_hash().0 != expected
        {
            let detail = format!("the node's chain begins with {:?}", chain.client.genesis_hash());
            return Err(Failed::new(Fault::Mismatch, detail));
        }
        chain.check_health().await?;
        Ok(chain)
    }

    /// Another client over the connection of this one, for somebody who asks at the same time.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(super) async fn beside(&self, chain: &Subtensor) -> Result<Subtensor, Failed> {
        self.client(chain.wire.another()).await
    }

    async fn client(&self, wire: Wire) -> Result<Subtensor, Failed> {
        let wire = Arc::new(wire);
        let rpc = RpcClient::new(Arc::clone(&wire));
        // Not the default: nodes in public serve the old methods best.
        let backend = LegacyBackend::builder().storage_page_size(PAGE).build(rpc.clone());
        let client = OnlineClient::from_backend_with_config(self.config.clone(), Arc::new(backend)).await;
        let client = client.map_err(|error| Failed::from(wire.explain(&error)))?;
        Ok(Subtensor { client, methods: LegacyRpcMethods::new(rpc), wire })
    }
}

/// Storage entries that are asked for at a time. A subnet has a few hundred.
const PAGE: u32 = 1_000;

/// A connection to a node. Clones share it. It ends when the last one is dropped, or breaks; then another is needed.
#[derive(Clone)]
pub struct Subtensor {
    client: OnlineClient<SubstrateConfig>,
    methods: LegacyRpcMethods<RpcConfigFor<SubstrateConfig>>,
    wire: Arc<Wire>,
}

/// The state of the chain at one block: every read is of that block.
pub type AtBlock = OnlineClientAtBlock<SubstrateConfig>;

impl Subtensor {
    /// What subxt has to offer, for more than reading.
    #[must_use]
    pub fn client(&self) -> &OnlineClient<SubstrateConfig> {
        &self.client
    }

    /// The last block that will stay.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn finalized(&self) -> Result<H256, Failed> {
        self.methods.chain_get_finalized_head().await.map_err(|error| self.explain(&error))
    }

    /// The best block, which may yet be replaced by another.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn best(&self) -> Result<H256, Failed> {
        let best = self.methods.chain_get_block_hash(None).await.map_err(|error| self.explain(&error))?;
        best.ok_or_else(|| Failed::new(Fault::Malformed, "the node names no best block"))
    }

    /// The state at a block. Also asks for the runtime's metadata, if it is a new one.
    ///
    /// # Errors
    /// When the node does not answer, does not know the block, or answers with another.
    pub async fn at(&self, block: H256) -> Result<AtBlock, Failed> {
        let number = self.number_of(block).await?;
        self.at_known(block, number).await
    }

    /// The same for a block whose number is known.
    pub(super) async fn at_known(&self, block: H256, number: u64) -> Result<AtBlock, Failed> {
        self.client.at_block_hash_and_number(block, number).await.map_err(|error| self.explain(&error))
    }

    /// The number of a block.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub(super) async fn number_of(&self, block: H256) -> Result<u64, Failed> {
        let header = self.methods.chain_get_header(Some(block)).await.map_err(|error| self.explain(&error))?;
        let header =
            header.ok_or_else(|| Failed::new(Fault::Malformed, "the node does not know the block it named"))?;
        if BlakeTwo256.hash(&header.encode()) != block && self.named(header.number).await? != Some(block) {
            return Err(Failed::new(Fault::Malformed, "the node answered with another block than was asked for"));
        }
        Ok(header.number)
    }

    /// Whether both ask over the same connection.
    pub(super) fn shares_connection(&self, other: &Self) -> bool {
        self.wire.shares_connection(&other.wire)
    }

    /// What the node calls its block with this number: for chains whose blocks are not called by the BLAKE2 hash of their
    /// header, as those of development nodes may be.
    async fn named(&self, number: u64) -> Result<Option<H256>, Failed> {
        let name = self.methods.chain_get_block_hash(Some(number.into())).await;
        name.map_err(|error| self.explain(&error))
    }

    /// What a failure of subxt's means: what went wrong on the wire, or else that the answer cannot be read.
    #[must_use]
    pub fn explain(&self, error: &impl fmt::Display) -> Failed {
        self.wire.explain(error).into()
    }

    /// Whether the node has caught up with its chain. One that does not say so is believed to have: not every node in
    /// public answers this question.
    ///
    /// # Errors
    /// When it says that it has not.
    pub(super) async fn check_health(&self) -> Result<(), Failed> {
        match self.methods.system_health().await {
            Ok(health) if health.is_syncing => {
                Err(Failed::new(Fault::Behind, "the node is still catching up with its chain"))
            }
            _ => Ok(()),
        }
    }

    /// News of blocks. None: the node gives none, as over HTTP.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn heads(&self) -> Result<Option<Heads>, Failed> {
        if !self.wire.can_subscribe() {
            return Ok(None);
        }
        match (self.methods.chain_subscribe_new_heads().await, self.methods.chain_subscribe_finalized_heads().await) {
            (Ok(best), Ok(finalized)) => Ok(Some(Heads { best, finalized })),
            (Err(subxt::rpcs::Error::User(_)), _) | (_, Err(subxt::rpcs::Error::User(_))) => Ok(None),
            (Err(error), _) | (_, Err(error)) => Err(self.explain(&error)),
        }
    }
}

/// The code of JSON-RPC for a method that there is not.
const METHOD_NOT_FOUND: i32 = -32601;

/// News of blocks.
pub(super) struct Heads {
    best: RpcSubscription<<SubstrateConfig as Config>::Header>,
    finalized: RpcSubscription<<SubstrateConfig as Config>::Header>,
}

impl Heads {
    /// Comes back when there is another best or finalised block. False: the connection is gone.
    pub(super) async fn next(&mut self) -> bool {
        let news = tokio::select! {
            news = self.best.next() => news,
            news = self.finalized.next() => news,
        };
        matches!(news, Some(Ok(_)))
    }
}
