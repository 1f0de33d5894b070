//! What is known of neurons, for every subnet that somebody asks about.
//!
//! A whole subnet is one table of at most a few hundred entries. Whoever reads the source ([`Neurons::publish`]) replaces
//! it as a whole, block by block; requests read it without waiting, asking or locking. What is not in a table of a moment
//! ago does not exist: a stranger can cause no questions to the outside.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::cache::Clock;
use crate::model::{
    decision::{Denial, Dependency},
    hotkey::Hotkey,
    neuron::{NetUid, Neuron, PublishedKey, Subnet},
};

/// The tables.
pub struct Neurons {
    subnets: HashMap<NetUid, ArcSwapOption<Read>>,
    own_keys: HashMap<NetUid, ArcSwapOption<PublishedKey>>,
    stale_for: Duration,
    clock: Clock,
}

/// A table, and when it was read.
struct Read {
    subnet: Subnet,
    at: Instant,
}

impl Neurons {
    /// Knows nothing yet of these subnets, and will never know anything of others. A table is believed for `stale_for`
    /// after it was read; then nobody is admitted by it.
    #[must_use]
    pub fn new(netuids: impl IntoIterator<Item = NetUid>, stale_for: Duration, clock: Clock) -> Self {
        let netuids: HashSet<NetUid> = netuids.into_iter().collect();
        let own_keys = netuids.iter().map(|netuid| (*netuid, ArcSwapOption::empty())).collect();
        let subnets = netuids.into_iter().map(|netuid| (netuid, ArcSwapOption::empty())).collect();
        Self { subnets, own_keys, stale_for, clock }
    }

    /// Replaces the table of a subnet by one that has just been read.
    pub fn publish(&self, netuid: NetUid, subnet: Subnet) {
        if let Some(slot) = self.subnets.get(&netuid) {
            slot.store(Some(Arc::new(Read { subnet, at: self.clock.now() })));
        }
    }

    /// The key that a hotkey has published; None: it has published none, or is not there.
    ///
    /// # Errors
    /// [`Denial::Unavailable`] when there is no table, or only one that is too old.
    pub async fn key(&self, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<PublishedKey>, Denial> {
        Ok(self.table(netuid)?.subnet.keys.get(hotkey).copied())
    }

    /// Says which key the neuron that this gateway itself is has published, if it has.
    pub fn publish_own_key(&self, netuid: NetUid, key: Option<PublishedKey>) {
        if let Some(slot) = self.own_keys.get(&netuid) {
            slot.store(key.map(Arc::new));
        }
    }

    /// The key that the neuron which this gateway itself is has published; None: none, or the source knows of no such neuron.
    ///
    /// # Errors
    /// As [`Self::key`]: the key is as old as the table.
    pub fn own_key(&self, netuid: NetUid) -> Result<Option<PublishedKey>, Denial> {
        self.table(netuid)?;
        Ok(self.own_keys.get(&netuid).and_then(ArcSwapOption::load_full).map(|key| *key))
    }

    /// The neuron of a hotkey; None: it is not registered.
    ///
    /// # Errors
    /// As [`Self::key`]; also when the source did not say who is registered.
    pub fn neuron(&self, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<Neuron>, Denial> {
        let table = self.table(netuid)?;
        let neurons = table.subnet.neurons.as_ref().ok_or(Denial::Unavailable(Dependency::Neurons))?;
        Ok(neurons.get(hotkey).copied())
    }

    fn table(&self, netuid: NetUid) -> Result<Arc<Read>, Denial> {
        let table = self.subnets.get(&netuid).and_then(ArcSwapOption::load_full);
        let current = table.filter(|table| self.clock.now().saturating_duration_since(table.at) <= self.stale_for);
        current.ok_or(Denial::Unavailable(Dependency::Neurons))
    }
}
