//! A node of the chain of neurons: JSON-RPC over `WebSocket` and HTTP on a real socket, over the recorded state in
//! `tests/data/subtensor/`, which a test can change, block by block.
//!
//! Nothing happens by itself: [`Node::mine`] makes a block, [`Node::finalize`] finalises it. Extrinsics wait in the pool
//! until then, unless the node was told to be [`Node::automatic`].

mod pallet;
mod runtime;
mod server;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde_json::{Value, json};
use sp_crypto_hashing::{blake2_128, blake2_256, twox_128};
use tokio::sync::mpsc::UnboundedSender;
use tollgate::model::hotkey::Hotkey;

pub use self::runtime::{NeuronOnChain, Release};
use self::{runtime::Runtime, server::Server};
use super::{Settings, free_port, loopback, run, spawn};

const STATE: &str = include_str!("../../data/subtensor/state-293.json");
const CALLS: &str = include_str!("../../data/subtensor/calls-293.json");

/// The hash of the recorded chain's first block.
pub const GENESIS: &str = "0x4545454545454545454545454545454545454545454545454545454545454545";
/// The subnet of the recorded chain that has neurons.
pub const NETUID: u16 = 2;

/// Its neurons and others, by name, from `accounts.json`.
pub const VALIDATOR: &str = "5CS3j9wEaMEt5tpEkF17ZVY8DCkLjrmkj3LxGnKzodS4ccoM";
/// Has published a key: its own public key.
pub const MINER: &str = "5GnAm62UXQTPnmevdJfS7q7Eh6gRJzjbxoa4y2wLZyoA7HQR";
pub const MINERS_KEY: &str = "d0908fc22cf88f0e6ee1da0842446f0c47cd2f4b92ebf4e5b9c1403a0f02a87f";
/// Registered, and nothing else.
pub const IDLE: &str = "5GisLmU7QUqeiNCxoQnREyMkpFeE2t8fRimWYYdGAug9GUTT";
/// No trace on chain.
pub const NOBODY: &str = "5FQzhS8MRMGNZfCxVJaWu4n4Q6jt53zv2hxYguM4Y5fVkcHZ";

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// Every HTTP request, and so every new `WebSocket`, gets this status.
    Status(u16),
    /// Every question is answered with this error.
    Error(i64, &'static str),
    /// Answers that are not JSON-RPC.
    Garbage,
    /// No answers.
    Silence,
    /// Headers and values of another block than was asked for.
    AnotherBlock,
}

/// A block's name: 32 bytes in hexadecimal, with `0x`.
pub type BlockHash = String;
/// Storage: keys and values in hexadecimal, with `0x`.
type Storage = BTreeMap<String, String>;

/// A node.
pub struct Node {
    pub address: SocketAddr,
    chain: Arc<Mutex<Chain>>,
    server: Mutex<Option<Server>>,
}

struct Block {
    number: u64,
    header: Value,
    state: Arc<Storage>,
    runtime: Arc<Runtime>,
    /// By subnet. None of ours: as recorded.
    neurons: BTreeMap<u16, Arc<Vec<NeuronOnChain>>>,
    extrinsics: Vec<Vec<u8>>,
}

/// What the node knows, and how it behaves.
struct Chain {
    genesis: String,
    blocks: HashMap<BlockHash, Arc<Block>>,
    best: BlockHash,
    finalized: BlockHash,
    calls: Value,
    pending: Vec<(String, Option<String>)>,
    pending_runtime: Option<Arc<Runtime>>,
    pending_neurons: BTreeMap<u16, Vec<NeuronOnChain>>,
    pool: Vec<Vec<u8>>,
    nonces: HashMap<[u8; 32], u32>,
    automatic: bool,
    /// The error of the pallet with which calls fail in their block.
    refusing: Option<&'static str>,
    /// Keys in calls are passed over, as those that are too long are.
    deaf_to_keys: bool,
    syncing: bool,
    /// The methods it has not.
    without: HashSet<&'static str>,
    trouble: Option<Trouble>,
    /// What goes wrong where somebody asks for what begins so.
    trouble_about: Option<(String, Trouble)>,
    asked: BTreeMap<String, usize>,
    subscribers: Vec<Subscriber>,
    made: u64,
}

struct Subscriber {
    to: UnboundedSender<String>,
    id: String,
    what: Subscription,
    /// Whether it has been told anything yet.
    greeted: bool,
}

enum Subscription {
    BestHeads,
    FinalizedHeads,
    /// An extrinsic: its bytes, and the block that has it.
    Extrinsic(Vec<u8>, Option<BlockHash>),
}

impl Node {
    /// The recorded block, finalised.
    pub fn start() -> Self {
        let recorded: Value = serde_json::from_str(STATE).unwrap();
        let calls: Value = serde_json::from_str(CALLS).unwrap();
        let state = recorded["state"].as_object().unwrap().iter();
        let state = state.map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect();
        let hash = recorded["block"]["hash"].as_str().unwrap().to_owned();
        let header = recorded["block"]["header"].clone();
        let block = Block {
            number: number_of(&header),
            header,
            state: Arc::new(state),
            runtime: Runtime::of(Release::Recorded),
            neurons: BTreeMap::new(),
            extrinsics: Vec::new(),
        };
        let chain = Chain {
            genesis: GENESIS.to_owned(),
            blocks: HashMap::from([(hash.clone(), Arc::new(block))]),
            best: hash.clone(),
            finalized: hash,
            calls: calls["calls"].clone(),
            pending: Vec::new(),
            pending_runtime: None,
            pending_neurons: BTreeMap::new(),
            pool: Vec::new(),
            nonces: HashMap::new(),
            automatic: false,
            refusing: None,
            deaf_to_keys: false,
            syncing: false,
            without: HashSet::new(),
            trouble: None,
            trouble_about: None,
            asked: BTreeMap::new(),
            subscribers: Vec::new(),
            made: 0,
        };
        let node =
            Self { address: loopback(free_port()), chain: Arc::new(Mutex::new(chain)), server: Mutex::new(None) };
        node.restart();
        node
    }

    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap()
    }

    /// Where it is asked over a `WebSocket`.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Where it is asked over HTTP.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The sections of a gateway that asks it.
    pub fn configured(&self, settings: Settings, neurons: &str) -> Settings {
        let subtensor = format!("[subtensor]\nurl = \"{}\"\ngenesis_hash = \"{GENESIS}\"\n", self.url());
        settings.with(&format!("[neurons]\nnetuid = {NETUID}\n{neurons}")).with(&subtensor)
    }

    /// Nobody answers any more, and every connection is cut.
    pub fn stop(&self) {
        self.server.lock().unwrap().take();
        self.chain().subscribers.clear();
    }

    /// Answers again, at the same address, with what it knew.
    pub fn restart(&self) {
        let server = run(Server::start(self.address, Arc::clone(&self.chain)));
        *self.server.lock().unwrap() = Some(server);
    }

    /// Has it behave so from now on. Connections that are open are cut.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.stop();
        self.chain().trouble = trouble;
        self.restart();
    }

    /// Has questions about the published keys of one subnet fail from now on: with an error, or without an answer.
    pub fn trouble_with(&self, netuid: u16, trouble: Option<Trouble>) {
        let keys = storage_key("SubtensorModule", "NeuronCertificates", &netuid.to_le_bytes());
        self.chain().trouble_about = trouble.map(|trouble| (keys, trouble));
    }

    pub fn set_genesis(&self, genesis: &str) {
        genesis.clone_into(&mut self.chain().genesis);
    }

    pub fn set_syncing(&self, syncing: bool) {
        self.chain().syncing = syncing;
    }

    /// Takes a method away.
    pub fn lacks(&self, method: &'static str) {
        self.chain().without.insert(method);
    }

    /// Puts submitted extrinsics into a finalised block by itself, soon.
    pub fn automatic(&self) {
        self.chain().automatic = true;
    }

    /// From now on calls get into blocks and fail there, with this error of the pallet.
    pub fn refuse(&self, error: Option<&'static str>) {
        self.chain().refusing = error;
    }

    /// From now on calls succeed, and the keys in them are passed over.
    pub fn deaf_to_keys(&self, deaf: bool) {
        self.chain().deaf_to_keys = deaf;
    }

    /// How often a method was asked for.
    pub fn asked(&self, method: &str) -> usize {
        self.chain().asked.get(method).copied().unwrap_or(0)
    }

    /// How many questions there were.
    pub fn questions(&self) -> usize {
        self.chain().asked.values().sum()
    }

    /// How many extrinsics wait for a block.
    pub fn pool(&self) -> usize {
        self.chain().pool.len()
    }

    /// Changes a storage value, or removes it, in the next block.
    pub fn set(&self, key: String, value: Option<String>) {
        self.chain().pending.push((key, value));
    }

    /// Publishes a key in the next block, as `serve_axon_tls` would: any algorithm, up to 64 bytes.
    pub fn publish(&self, who: &str, algorithm: u8, key: &[u8]) {
        self.publish_on(NETUID, who, algorithm, key);
    }

    /// The same on another subnet.
    pub fn publish_on(&self, netuid: u16, who: &str, algorithm: u8, key: &[u8]) {
        self.set(certificate_key(netuid, who), Some(pallet::certificate(algorithm, key)));
    }

    /// Removes a published key in the next block.
    pub fn unpublish(&self, who: &str) {
        self.set(certificate_key(NETUID, who), None);
    }

    /// The blocks that must lie between two calls to `serve_axon`, from the next block on. The chain's own default is 50.
    pub fn serving_rate_limit(&self, blocks: u64) {
        let key = storage_key("SubtensorModule", "ServingRateLimit", &NETUID.to_le_bytes());
        self.set(key, Some(hex(&blocks.to_le_bytes())));
    }

    /// The neurons of the subnet at the best block.
    pub fn neurons(&self) -> Vec<NeuronOnChain> {
        let chain = self.chain();
        let best = &chain.blocks[&chain.best];
        let made = best.neurons.get(&NETUID).map(|neurons| neurons.to_vec());
        made.unwrap_or_else(|| runtime::recorded_neurons(&chain.calls))
    }

    /// Replaces them in the next block.
    pub fn set_neurons(&self, neurons: Vec<NeuronOnChain>) {
        self.set_neurons_of(NETUID, neurons);
    }

    /// The same of another subnet.
    pub fn set_neurons_of(&self, netuid: u16, neurons: Vec<NeuronOnChain>) {
        self.chain().pending_neurons.insert(netuid, neurons);
    }

    /// Another runtime from the next block on.
    pub fn upgrade(&self, release: Release) {
        let neurons = self.neurons();
        let mut chain = self.chain();
        chain.pending_runtime = Some(Runtime::of(release));
        chain.pending_neurons.entry(NETUID).or_insert(neurons);
    }

    /// Makes a block on top of the best one, with what waits, and announces it.
    pub fn mine(&self) -> BlockHash {
        self.chain().mine()
    }

    /// Finalises the best block, and announces it.
    pub fn finalize(&self) {
        self.chain().finalize();
    }

    /// Makes a block and finalises it.
    pub fn mine_and_finalize(&self) {
        let mut chain = self.chain();
        chain.mine();
        chain.finalize();
    }

    /// An earlier block is the best one again, so that the next is mined beside what came after it.
    pub fn reorganize(&self, to: &BlockHash) {
        self.chain().best.clone_from(to);
    }

    /// The last finalised block, as a node that was set back to a backup would have it.
    pub fn set_finalized(&self, to: &BlockHash) {
        let mut chain = self.chain();
        chain.finalized.clone_from(to);
        chain.best.clone_from(to);
    }

    pub fn best(&self) -> BlockHash {
        self.chain().best.clone()
    }

    pub fn best_number(&self) -> u64 {
        let chain = self.chain();
        chain.blocks[&chain.best].number
    }

    /// A storage value at the best block.
    pub fn storage(&self, key: &str) -> Option<String> {
        let chain = self.chain();
        chain.blocks[&chain.best].state.get(key).cloned()
    }

    /// The key that a hotkey has published at the best block: algorithm and bytes.
    pub fn published(&self, who: &str) -> Option<(u8, Vec<u8>)> {
        let value = alloy::hex::decode(self.storage(&certificate_key(NETUID, who))?).unwrap();
        let (algorithm, key) = value.split_last().unwrap();
        Some((*algorithm, key[1..].to_vec()))
    }
}

impl Chain {
    fn mine(&mut self) -> BlockHash {
        let parent = Arc::clone(&self.blocks[&self.best]);
        let number = parent.number + 1;
        self.made += 1;
        let mut state = (*parent.state).clone();
        for (key, value) in self.pending.drain(..) {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
        let runtime = self.pending_runtime.take().unwrap_or_else(|| Arc::clone(&parent.runtime));
        let extrinsics = std::mem::take(&mut self.pool);
        let mut events = Vec::new();
        for (index, extrinsic) in extrinsics.iter().enumerate() {
            let call = pallet::ServeAxonTls::decode(extrinsic, &runtime).unwrap();
            let index = u32::try_from(index).unwrap();
            if let Some(error) = self.refusing {
                events.push(pallet::failed(&runtime, index, error));
                continue;
            }
            call.apply(&mut state, number, self.deaf_to_keys);
            call.events(&runtime, index, &mut events);
        }
        let count = u8::try_from(events.len() * 4).unwrap();
        state.insert(storage_key("System", "Events", &[]), hex(&[&[count][..], &events.concat()].concat()));
        state.insert(storage_key("System", "Number", &[]), hex(&u32::try_from(number).unwrap().to_le_bytes()));
        let header = header(&self.best, number, self.made);
        let hash = hash_of(&header);
        let mut neurons = parent.neurons.clone();
        let changed = std::mem::take(&mut self.pending_neurons).into_iter();
        neurons.extend(changed.map(|(netuid, neurons)| (netuid, Arc::new(neurons))));
        let block = Block { number, header, state: Arc::new(state), runtime, neurons, extrinsics };
        self.blocks.insert(hash.clone(), Arc::new(block));
        self.best.clone_from(&hash);
        self.announce_best();
        hash
    }

    fn finalize(&mut self) {
        self.finalized = self.best.clone();
        self.announce_finalized();
    }

    fn announce_best(&mut self) {
        let (hash, block) = (self.best.clone(), Arc::clone(&self.blocks[&self.best]));
        for subscriber in &mut self.subscribers {
            match &mut subscriber.what {
                Subscription::BestHeads => subscriber.tell("chain_newHead", &block.header),
                Subscription::Extrinsic(bytes, place) if block.extrinsics.contains(bytes) => {
                    *place = Some(hash.clone());
                    subscriber.tell("author_extrinsicUpdate", &json!({"inBlock": hash}));
                }
                Subscription::FinalizedHeads | Subscription::Extrinsic(..) => {}
            }
        }
    }

    fn announce_finalized(&mut self) {
        let block = Arc::clone(&self.blocks[&self.finalized]);
        for subscriber in &mut self.subscribers {
            match &subscriber.what {
                Subscription::FinalizedHeads => subscriber.tell("chain_finalizedHead", &block.header),
                Subscription::Extrinsic(_, Some(place)) => {
                    subscriber.tell("author_extrinsicUpdate", &json!({"finalized": place}));
                }
                Subscription::BestHeads | Subscription::Extrinsic(..) => {}
            }
        }
    }

    /// The hash of the block with this number on the way to the best one.
    fn canonical(&self, number: u64) -> Option<BlockHash> {
        if number == 0 {
            return Some(self.genesis.clone());
        }
        let mut hash = self.best.clone();
        while let Some(block) = self.blocks.get(&hash) {
            if block.number == number {
                return Some(hash);
            }
            hash = block.header["parentHash"].as_str().unwrap().to_owned();
        }
        None
    }

    fn block(&self, hash: Option<&str>) -> Result<Arc<Block>, server::RpcError> {
        let hash = hash.unwrap_or(&self.best);
        let unknown = || (4003, format!("Api called for an unknown Block: State already discarded for {hash}"));
        self.blocks.get(hash).cloned().ok_or_else(unknown)
    }
}

impl Subscriber {
    fn tell(&self, method: &str, result: &Value) {
        let params = json!({"subscription": self.id, "result": result});
        // Who is gone is not told.
        let _ = self.to.send(json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }
}

/// Puts what was submitted into a finalised block, a moment later.
fn mine_soon(chain: &Arc<Mutex<Chain>>) {
    let chain = Arc::clone(chain);
    spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !chain.lock().unwrap().pool.is_empty() {
            chain.lock().unwrap().mine();
            tokio::time::sleep(Duration::from_millis(20)).await;
            chain.lock().unwrap().finalize();
        }
    });
}

/// Unlike any other block's, by its digest.
fn header(parent: &str, number: u64, made: u64) -> Value {
    let log = [&[6, 0x74, 0x65, 0x73, 0x74, 32][..], &made.to_le_bytes()].concat();
    let zeros = hex(&[0; 32]);
    json!({"parentHash": parent, "number": format!("0x{number:x}"), "stateRoot": zeros, "extrinsicsRoot": zeros,
        "digest": {"logs": [hex(&log)]}})
}

fn hash_of(header: &Value) -> BlockHash {
    let header: subxt::config::substrate::SubstrateHeader<subxt::utils::H256> =
        serde_json::from_value(header.clone()).unwrap();
    hex(&blake2_256(&subxt::ext::codec::Encode::encode(&header)))
}

fn number_of(header: &Value) -> u64 {
    u64::from_str_radix(header["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    alloy::hex::encode_prefixed(bytes)
}

/// The key of a storage item (subtensor.md section 3.2). `keys` are hashed already.
pub fn storage_key(pallet: &str, item: &str, keys: &[u8]) -> String {
    hex(&[&twox_128(pallet.as_bytes())[..], &twox_128(item.as_bytes()), keys].concat())
}

/// A subnet and an account, hashed as most items of neurons have them.
fn of_account(netuid: u16, account: &[u8; 32]) -> Vec<u8> {
    [&netuid.to_le_bytes()[..], &blake2_128(account), account].concat()
}

/// The key of who owns a hotkey.
pub fn owner_key(who: &str) -> String {
    let hotkey: Hotkey = who.parse().unwrap();
    storage_key("SubtensorModule", "Owner", &[&blake2_128(&hotkey.0)[..], &hotkey.0].concat())
}

/// The key of a published key.
pub fn certificate_key(netuid: u16, who: &str) -> String {
    let hotkey: Hotkey = who.parse().unwrap();
    storage_key("SubtensorModule", "NeuronCertificates", &of_account(netuid, &hotkey.0))
}
