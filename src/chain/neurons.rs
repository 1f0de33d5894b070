//! What is known of neurons, for every subnet that somebody asks about.
//!
//! A whole subnet is one table of at most a few hundred entries. Whoever reads the source ([`reader`]) replaces it as a
//! whole, block by block; requests read it without waiting, asking or locking. A hotkey that is not in the table does
//! not exist, or, where the source can be asked for a single one, is asked for once ([`Neurons::with_look_ups`]). So
//! strangers cost a known neuron nothing.

pub mod reader;

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    cache::{Cache, Clock, Statistics, Unanswered},
    fault::{Calls, Failed, Fault},
};
use crate::model::{
    decision::{Denial, Dependency},
    hotkey::Hotkey,
    neuron::{NetUid, Neuron, PublishedKey, Subnet},
};

/// The tables.
pub struct Neurons {
    subnets: HashMap<NetUid, Arc<Slot>>,
    /// How long a table is believed after it was read.
    stale_for: Duration,
    /// How long a table is believed that is read again and again of the same block.
    stalled_for: Duration,
    /// How long after it was read a table is believed where it says nothing of a hotkey.
    absent_for: Duration,
    look_ups: Option<LookUps>,
    /// The source's questions, if it counts them.
    questions: Option<Arc<Calls>>,
    clock: Clock,
}

/// Single hotkeys' keys. None instead of a hotkey: the one of the source's own wallet.
pub type LookUps = Cache<(NetUid, Option<Hotkey>), PublishedKey>;

/// One subnet's place.
struct Slot {
    table: ArcSwapOption<Table>,
    /// The reader is told to read now.
    wake: Notify,
    /// When a reading was asked for last.
    asked: Mutex<Option<Instant>>,
    /// When the last reading that has ended, well or not, was begun.
    ended: watch::Sender<Option<Instant>>,
    readings: Calls,
    /// Whether somebody wants to know who is registered.
    registered: AtomicBool,
    /// The version of the chain's runtime; 0: the source does not say.
    spec_version: AtomicU64,
    /// Since when it is wanted.
    since: Instant,
}

/// A table, and since when it is known.
struct Table {
    subnet: Subnet,
    /// When the reading of it began.
    at: Instant,
    /// When the first reading of this block began.
    moved: Instant,
}

/// What the metrics show of a subnet.
#[derive(Debug)]
pub struct Glance<'a> {
    /// Which.
    pub netuid: NetUid,
    /// How long ago the table was read; if there is none, for how long it has been wanted.
    pub age: Duration,
    /// The table's block; 0 if there is none.
    pub block: u64,
    /// Published keys in the table.
    pub keys: usize,
    /// The version of the chain's runtime; 0: the source does not say.
    pub spec_version: u64,
    /// Readings of the source.
    pub readings: &'a Calls,
}

/// A table this young is not read again because of one caller.
const YOUNG: Duration = Duration::from_secs(1);
/// Callers together cause no more than one reading in this time.
const AGAIN_EVERY: Duration = Duration::from_secs(5);
/// How long a caller waits for it.
const AGAIN_PATIENCE: Duration = Duration::from_secs(3);

impl Neurons {
    /// Knows nothing yet of these subnets, and will never know anything of others. A table is believed for `stale_for`
    /// after it was read; then nobody is admitted by it.
    #[must_use]
    pub fn new(netuids: impl IntoIterator<Item = NetUid>, stale_for: Duration, clock: Clock) -> Self {
        let slot = || Arc::new(Slot::new(clock.now()));
        let subnets = netuids.into_iter().map(|netuid| (netuid, slot())).collect();
        Self {
            subnets,
            stale_for,
            stalled_for: stale_for,
            absent_for: stale_for,
            look_ups: None,
            questions: None,
            clock,
        }
    }

    /// Shares with others what they know, and will know, of the subnets that both have.
    #[must_use]
    pub fn sharing(mut self, others: &Self) -> Self {
        for (netuid, slot) in &mut self.subnets {
            if let Some(known) = others.subnets.get(netuid) {
                *slot = Arc::clone(known);
            }
        }
        self
    }

    /// A table is believed for so long that is read again and again of the same block. By our own clock: what a chain
    /// says of the time is worth nothing.
    #[must_use]
    pub fn believed_while_stalled(mut self, stalled_for: Duration) -> Self {
        self.stalled_for = stalled_for;
        self
    }

    /// A table is believed for so long after it was read where it says nothing of a hotkey: later that hotkey may have
    /// come, and it is unknown what it is.
    #[must_use]
    pub fn believed_of_absent(mut self, absent_for: Duration) -> Self {
        self.absent_for = absent_for;
        self
    }

    /// The source may be asked because of a caller: for a single hotkey that is in no table, and for the table again.
    #[must_use]
    pub fn with_look_ups(mut self, look_ups: LookUps) -> Self {
        self.look_ups = Some(look_ups);
        self
    }

    /// The source counts its questions here.
    #[must_use]
    pub fn with_questions(mut self, questions: Arc<Calls>) -> Self {
        self.questions = Some(questions);
        self
    }

    /// Has it read from now on who is registered in a subnet, not only who has published which key.
    pub fn want_registered(&self, netuid: NetUid) {
        if let Some(slot) = self.subnets.get(&netuid)
            && !slot.registered.swap(true, Relaxed)
        {
            slot.wake.notify_one();
        }
    }

    /// The key that a hotkey has published; None: it has published none, or is not there.
    ///
    /// # Errors
    /// [`Denial::Unavailable`] when there is no table, only one that is too old, or no answer about this hotkey;
    /// [`Denial::TooManyRequests`] when too many hotkeys that are in no table are asked for.
    pub async fn key(&self, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<PublishedKey>, Denial> {
        let table = self.table(netuid)?;
        if let Some(key) = table.subnet.keys.get(hotkey) {
            return Ok(Some(*key));
        }
        let Some(look_ups) = &self.look_ups else { return self.absent(&table) };
        match look_ups.get_unvouched(&(netuid, Some(*hotkey))).await {
            Ok(answer) => Ok(answer.map(|key| *key)),
            Err(Unanswered::Unavailable(_)) => Err(UNAVAILABLE),
            Err(Unanswered::Limited { retry_after }) => Err(Denial::TooManyRequests { retry_after }),
        }
    }

    /// The same for a caller who proved another key than [`Self::key`] said: it may have been published a moment ago, so
    /// the table is read again first, if callers may cause that. However many there are, they cause few readings.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub async fn key_again(&self, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<PublishedKey>, Denial> {
        if let Some(slot) = self.subnets.get(&netuid).filter(|_| self.look_ups.is_some()) {
            slot.read_again(self.clock.now()).await;
        }
        self.key(netuid, hotkey).await
    }

    /// The key that the source's own wallet has published; None: it has published none, or the source has no wallet.
    ///
    /// # Errors
    /// As [`Self::key`].
    pub async fn own_key(&self, netuid: NetUid) -> Result<Option<PublishedKey>, Denial> {
        self.table(netuid)?;
        let Some(look_ups) = &self.look_ups else { return Ok(None) };
        let answer = look_ups.get(&(netuid, None)).await.map_err(|_| UNAVAILABLE)?;
        Ok(answer.map(|key| *key))
    }

    /// The neuron of a hotkey; None: it is not registered.
    ///
    /// # Errors
    /// As [`Self::key`]; also when the source did not say who is registered.
    pub fn neuron(&self, netuid: NetUid, hotkey: &Hotkey) -> Result<Option<Neuron>, Denial> {
        let table = self.table(netuid)?;
        let neurons = table.subnet.neurons.as_ref().ok_or(UNAVAILABLE)?;
        neurons.get(hotkey).map_or_else(|| self.absent(&table), |neuron| Ok(Some(*neuron)))
    }

    /// What single look-ups came to, for the metrics.
    #[must_use]
    pub fn look_up_statistics(&self) -> Option<&Statistics> {
        self.look_ups.as_ref().map(Cache::statistics)
    }

    /// The source's questions, for the metrics.
    #[must_use]
    pub fn questions(&self) -> Option<&Calls> {
        self.questions.as_deref()
    }

    /// Every subnet, for the metrics.
    pub fn glances(&self) -> impl Iterator<Item = Glance<'_>> {
        let now = self.clock.now();
        self.subnets.iter().map(move |(netuid, slot)| {
            let table = slot.table.load();
            Glance {
                netuid: *netuid,
                age: now.saturating_duration_since(table.as_ref().map_or(slot.since, |table| table.at)),
                block: table.as_ref().map_or(0, |table| table.subnet.block),
                keys: table.as_ref().map_or(0, |table| table.subnet.keys.len()),
                spec_version: slot.spec_version.load(Relaxed),
                readings: &slot.readings,
            }
        })
    }

    /// Replaces the table of a subnet by one that has just been read.
    pub fn publish(&self, netuid: NetUid, subnet: Subnet) {
        if let Some(slot) = self.subnets.get(&netuid) {
            let now = self.clock.now();
            slot.replace(subnet, now, now);
        }
    }

    /// Has a subnet read, and what was read put in its place. A table of an earlier block than the one before is refused
    /// while that one is believed: a node that fell behind would bring back keys that were replaced.
    ///
    /// # Errors
    /// When it could not be read.
    pub(super) async fn refresh(
        &self,
        netuid: NetUid,
        reading: impl Future<Output = Result<Subnet, Failed>>,
    ) -> Result<(), Failed> {
        let Some(slot) = self.subnets.get(&netuid) else { return Ok(()) };
        let began = self.clock.now();
        let call = slot.readings.begin();
        let read = reading.await.and_then(|subnet| {
            let before = self.table(netuid).map_or(0, |table| table.subnet.block);
            if subnet.block > 0 && subnet.block < before {
                let detail = format!("the source went back from block {before} to block {}", subnet.block);
                return Err(Failed::new(Fault::Behind, detail));
            }
            slot.replace(subnet, began, self.clock.now());
            Ok(())
        });
        call.end(read.as_ref().err());
        slot.ended.send_replace(Some(began));
        read
    }

    fn table(&self, netuid: NetUid) -> Result<Arc<Table>, Denial> {
        let table = self.subnets.get(&netuid).and_then(|slot| slot.table.load_full()).ok_or(UNAVAILABLE)?;
        let age = self.clock.now().saturating_duration_since(table.at);
        let stood_still = table.at.saturating_duration_since(table.moved);
        if age <= self.stale_for && stood_still <= self.stalled_for { Ok(table) } else { Err(UNAVAILABLE) }
    }

    /// The answer about a hotkey of which this table says nothing.
    fn absent<T>(&self, table: &Table) -> Result<Option<T>, Denial> {
        let age = self.clock.now().saturating_duration_since(table.at);
        if age <= self.absent_for { Ok(None) } else { Err(UNAVAILABLE) }
    }
}

const UNAVAILABLE: Denial = Denial::Unavailable(Dependency::Neurons);

impl Slot {
    fn new(since: Instant) -> Self {
        Self {
            table: ArcSwapOption::empty(),
            wake: Notify::new(),
            asked: Mutex::default(),
            ended: watch::Sender::new(None),
            readings: Calls::default(),
            registered: AtomicBool::new(false),
            spec_version: AtomicU64::new(0),
            since,
        }
    }

    /// A block of 0 is one that the source did not name, and counts as a new one.
    fn replace(&self, subnet: Subnet, at: Instant, now: Instant) {
        let before = self.table.load();
        let same = before.as_ref().filter(|before| subnet.block > 0 && before.subnet.block == subnet.block);
        let moved = same.map_or(now, |before| before.moved);
        self.table.store(Some(Arc::new(Table { subnet, at, moved })));
    }

    /// Has the table read again, unless it is young or was a moment ago, and waits until it has been.
    async fn read_again(&self, now: Instant) {
        let young = self.table.load().as_ref().is_some_and(|table| now.saturating_duration_since(table.at) < YOUNG);
        if young {
            return;
        }
        let mut ended = self.ended.subscribe();
        let asked = {
            let mut asked = self.asked.lock();
            match *asked {
                // Also answers those who come while it is being read.
                Some(before) if now.saturating_duration_since(before) < AGAIN_EVERY => before,
                _ => {
                    *asked = Some(now);
                    self.wake.notify_one();
                    now
                }
            }
        };
        let answered = ended.wait_for(|began| began.is_some_and(|began| began >= asked));
        // Who waited in vain is answered from the table that there is.
        let _ = timeout(AGAIN_PATIENCE, answered).await;
    }
}

#[cfg(test)]
mod tests;
