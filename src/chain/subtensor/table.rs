//! The table of a subnet's neurons, read from the chain (nexus.md section 5.4).
//!
//! A whole subnet is a page of storage and one question to the runtime, all of one block. What somebody may is taken
//! from two blocks: **granted by the finalised one, revoked already by the best one**. So a key counts if both have it,
//! and no block that is thrown away again can admit anybody.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use subxt::{config::substrate::H256, dynamic, ext::scale_decode::DecodeAsType};
use tokio::sync::watch;

use super::{
    AtBlock, Subtensor,
    link::{Block, Link, Now},
    wire::Explained,
};
use crate::{
    chain::fault::{Failed, Fault},
    model::{
        hotkey::Hotkey,
        neuron::{NetUid, Neuron, PublishedKey, Subnet},
    },
};

/// What reads the table of one subnet.
pub struct Watch {
    link: Link,
    news: watch::Receiver<u64>,
    /// Our own client over the link's connection.
    chain: Option<Subtensor>,
    /// The blocks that were read last, the newest at the end: a best block becomes the finalised one soon.
    recent: VecDeque<Arc<Snapshot>>,
    spec_version: u64,
    /// What the runtime last lacked, so that it is said once.
    lacking: Option<String>,
}

/// A subnet at one block.
struct Snapshot {
    hash: H256,
    number: u64,
    spec_version: u64,
    keys: HashMap<Hotkey, PublishedKey>,
    /// None: nobody wanted to know, or the runtime does not say.
    neurons: Option<HashMap<Hotkey, Neuron>>,
    /// Whether somebody wanted to know.
    registered: bool,
}

/// Final blocks follow the best one by a few.
const REMEMBERED: usize = 32;
/// More entries than any subnet has.
const MOST_KEYS: usize = 20_000;

impl Watch {
    /// Reads over this connection, which others may share.
    #[must_use]
    pub fn new(link: Link) -> Self {
        let news = link.news();
        Self { link, news, chain: None, recent: VecDeque::new(), spec_version: 0, lacking: None }
    }

    /// The version of the runtime that was read last; 0: none was.
    #[must_use]
    pub fn spec_version(&self) -> u64 {
        self.spec_version
    }

    /// The subnet as it is now.
    ///
    /// # Errors
    /// When the node does not answer, or not with what can be read.
    pub async fn subnet(&mut self, netuid: NetUid, registered: bool) -> Result<Subnet, Failed> {
        // What is told from now on is news.
        self.news.mark_unchanged();
        let now = self.link.now().await?;
        let read = self.read(&now, netuid, registered).await;
        // What cannot be read comes over every connection; anything else may be this one's fault.
        if read.as_ref().is_err_and(|failed| failed.fault != Fault::Malformed) {
            self.chain = None;
            self.link.lost(&now).await;
        }
        read
    }

    /// Comes back when there is a new block, if the node tells; and when the connection is lost, which the next reading
    /// will find out.
    pub async fn changed(&mut self) {
        // An error means that nobody can tell any more.
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn read(&mut self, now: &Now, netuid: NetUid, registered: bool) -> Result<Subnet, Failed> {
        let chain = match self.chain.take().filter(|chain| chain.shares_connection(&now.chain)) {
            Some(chain) => chain,
            None => self.link.node().beside(&now.chain).await?,
        };
        self.chain = Some(chain.clone());
        let settled = self.snapshot(&chain, now.settled, netuid, registered).await?;
        let latest = self.snapshot(&chain, now.latest, netuid, registered).await?;
        if self.spec_version != latest.spec_version {
            tracing::info!(%netuid, before = self.spec_version, now = latest.spec_version, "the chain has another runtime");
            self.spec_version = latest.spec_version;
        }
        Ok(merge(&settled, &latest))
    }

    async fn snapshot(
        &mut self,
        chain: &Subtensor,
        block: Block,
        netuid: NetUid,
        registered: bool,
    ) -> Result<Arc<Snapshot>, Failed> {
        let known = self.recent.iter().find(|it| it.hash == block.hash && (it.registered || !registered));
        if let Some(known) = known {
            return Ok(Arc::clone(known));
        }
        let at = chain.at_known(block.hash, block.number).await?;
        let keys = keys(chain, &at, netuid).await?;
        let neurons = if registered { self.neurons(chain, &at, netuid).await? } else { None };
        let (Block { hash, number }, spec_version) = (block, at.spec_version().into());
        let snapshot = Arc::new(Snapshot { hash, number, spec_version, keys, neurons, registered });
        if self.recent.len() >= REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Who is registered. None: this runtime does not say so, or not in a way that we understand; then what needs it is
    /// unavailable, and everything else goes on.
    async fn neurons(
        &mut self,
        chain: &Subtensor,
        at: &AtBlock,
        netuid: NetUid,
    ) -> Result<Option<HashMap<Hotkey, Neuron>>, Failed> {
        let detail = match metagraph(chain, at, netuid).await {
            Ok(neurons) => {
                self.lacking = None;
                return Ok(Some(neurons));
            }
            Err(Explained::Undecodable(detail)) => detail,
            Err(Explained::Unanswered(failed)) => return Err(failed),
        };
        if self.lacking.as_ref() != Some(&detail) {
            let spec_version = at.spec_version();
            tracing::error!(%netuid, spec_version, detail, "this runtime does not say who is registered");
            self.lacking = Some(detail);
        }
        Ok(None)
    }
}

/// An entry of `NeuronCertificates`.
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Certificate {
    public_key: Vec<u8>,
    algorithm: u8,
}

async fn keys(chain: &Subtensor, at: &AtBlock, netuid: NetUid) -> Result<HashMap<Hotkey, PublishedKey>, Failed> {
    let item = dynamic::storage::<(u16, [u8; 32]), Certificate>("SubtensorModule", "NeuronCertificates");
    let storage = at.storage();
    let mut entries = storage.iter(item, (netuid.0,)).await.map_err(|error| chain.explain(&error))?;
    let mut keys = HashMap::new();
    while let Some(entry) = entries.next().await {
        let entry = entry.map_err(|error| chain.explain(&error))?;
        let name = entry.key().and_then(|key| key.decode()).map_err(|error| chain.explain(&error))?;
        let certificate = entry.value().decode().map_err(|error| chain.explain(&error))?;
        if name.0 != netuid.0 || keys.len() >= MOST_KEYS {
            return Err(Failed::new(Fault::Malformed, "the node lists keys that were not asked for"));
        }
        // The zero account is nobody.
        if name.1 != [0; 32] {
            keys.insert(Hotkey(name.1), PublishedKey::new(certificate.algorithm.into(), &certificate.public_key));
        }
    }
    Ok(keys)
}

/// What we look at of a metagraph: vectors by uid. (The subnet's number is 0 in it unless that too is selected.)
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Selected {
    hotkeys: Option<Vec<[u8; 32]>>,
    validator_permit: Option<Vec<bool>>,
    total_stake: Option<Vec<u64>>,
}

/// The same where nothing can be selected.
#[derive(DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Whole {
    hotkeys: Vec<[u8; 32]>,
    validator_permit: Vec<bool>,
    total_stake: Vec<u64>,
}

/// The numbers of the fields that answer who is what in a subnet (subtensor.md section 4): owners, epochs, hotkeys,
/// coldkeys, permits, dividends, stakes. Fewer would cost the node as much.
const FIELDS: [u16; 17] = [5, 6, 7, 8, 9, 10, 52, 53, 56, 57, 59, 61, 62, 66, 67, 68, 69];
const API: &str = "SubnetInfoRuntimeApi";

async fn metagraph(chain: &Subtensor, at: &AtBlock, netuid: NetUid) -> Result<HashMap<Hotkey, Neuron>, Explained> {
    let metadata = at.metadata_ref();
    let has =
        |method: &str| metadata.runtime_api_trait_by_name(API).is_some_and(|api| api.method_by_name(method).is_some());
    let found = if has("get_selective_metagraph") {
        let arguments = (netuid.0, FIELDS.to_vec());
        let call = dynamic::runtime_api_call::<_, Option<Selected>>(API, "get_selective_metagraph", arguments);
        let selected = at.runtime_apis().call(call).await.map_err(|error| chain.wire.explain(&error))?;
        selected.map(|it| (it.hotkeys, it.validator_permit, it.total_stake))
    } else {
        let call = dynamic::runtime_api_call::<_, Option<Whole>>(API, "get_metagraph", (netuid.0,));
        let whole = at.runtime_apis().call(call).await.map_err(|error| chain.wire.explain(&error))?;
        whole.map(|it| (Some(it.hotkeys), Some(it.validator_permit), Some(it.total_stake)))
    };
    let Some((hotkeys, permits, stakes)) = found else {
        tracing::debug!(%netuid, "the chain has no such subnet");
        return Ok(HashMap::new());
    };
    let (Some(hotkeys), Some(permits), Some(stakes)) = (hotkeys, permits, stakes) else {
        return Err(Explained::Undecodable("the metagraph lacks hotkeys, permits or stakes".to_owned()));
    };
    let neurons = hotkeys.into_iter().enumerate().filter(|(_, hotkey)| *hotkey != [0; 32]);
    let neurons = neurons.filter_map(|(index, hotkey)| {
        // Vectors may be shorter than there are neurons: what is not said is not granted.
        let validator_permit = permits.get(index).copied().unwrap_or(false);
        let stake = stakes.get(index).copied().unwrap_or(0);
        Some((Hotkey(hotkey), Neuron { uid: u16::try_from(index).ok()?, validator_permit, stake }))
    });
    Ok(neurons.collect())
}

/// Grants what both blocks grant.
fn merge(settled: &Snapshot, latest: &Snapshot) -> Subnet {
    let key = |(hotkey, key): (&Hotkey, &PublishedKey)| {
        let lasting = settled.keys.get(hotkey) == Some(key);
        (*hotkey, if lasting { *key } else { PublishedKey::NOT_FINAL })
    };
    let neuron = |(hotkey, now): (&Hotkey, &Neuron)| {
        let before = settled.neurons.as_ref()?.get(hotkey)?;
        let validator_permit = before.validator_permit && now.validator_permit;
        Some((*hotkey, Neuron { uid: now.uid, validator_permit, stake: before.stake.min(now.stake) }))
    };
    let known = settled.neurons.is_some();
    let neurons = latest.neurons.as_ref().filter(|_| known).map(|all| all.iter().filter_map(neuron).collect());
    Subnet { block: settled.number, keys: latest.keys.iter().map(key).collect(), neurons }
}
