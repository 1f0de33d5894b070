//! Where hotkeys' keys come from: the table of neurons, kept from a Pylon or from the chain itself.

mod front;
mod node;
mod pylon;
mod subnets;
mod subtensor;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tollgate::{
    chain::{
        cache::Clock,
        fault::Fault,
        neurons::{
            Glance, Neurons,
            reader::{Reader, Source},
        },
    },
    model::{
        decision::{Denial, Dependency},
        hotkey::Hotkey,
        neuron::{NetUid, Neuron, PublishedKey},
    },
};

use crate::support::{PATIENCE, eventually, run};

const SUBNET: NetUid = NetUid(2);
/// Read only where a test says so.
const OTHER: NetUid = NetUid(3);
const UNAVAILABLE: Result<Option<PublishedKey>, Denial> = Err(Denial::Unavailable(Dependency::Neurons));
/// A table is read at least this often, here.
const OFTEN: Duration = Duration::from_millis(50);

fn hotkey(text: &str) -> Hotkey {
    text.parse().unwrap()
}

fn bytes(digits: &str) -> [u8; 32] {
    alloy::hex::FromHex::from_hex(digits).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "it is what is asked for")]
fn ed25519(digits: &str) -> Result<Option<PublishedKey>, Denial> {
    Ok(Some(PublishedKey::Ed25519(bytes(digits))))
}

/// The tables, and readers that keep them, for as long as this is not dropped.
struct Kept {
    neurons: Arc<Neurons>,
    _readers: tokio::task::JoinSet<()>,
}

impl Kept {
    fn reading(neurons: Neurons, source: Source) -> Self {
        Self::reading_all(neurons, OFTEN, [(SUBNET, source)])
    }

    /// To be called on a runtime.
    fn reading_all(neurons: Neurons, refresh: Duration, sources: impl IntoIterator<Item = (NetUid, Source)>) -> Self {
        let neurons = Arc::new(neurons);
        let mut readers = tokio::task::JoinSet::new();
        for (netuid, source) in sources {
            readers.spawn(Reader { neurons: Arc::clone(&neurons), netuid, source, refresh }.run());
        }
        Self { neurons, _readers: readers }
    }

    fn key(&self, who: &str) -> Result<Option<PublishedKey>, Denial> {
        self.key_on(SUBNET, who)
    }

    fn key_on(&self, netuid: NetUid, who: &str) -> Result<Option<PublishedKey>, Denial> {
        run(self.neurons.key(netuid, &hotkey(who)))
    }

    fn neuron(&self, who: &str) -> Result<Option<Neuron>, Denial> {
        self.neurons.neuron(SUBNET, &hotkey(who))
    }

    #[track_caller]
    fn eventually(&self, who: &str, key: &Result<Option<PublishedKey>, Denial>) {
        self.eventually_on(SUBNET, who, key);
    }

    #[track_caller]
    fn eventually_on(&self, netuid: NetUid, who: &str, key: &Result<Option<PublishedKey>, Denial>) {
        eventually(&format!("{who} has {key:?} on {netuid}"), || (self.key_on(netuid, who) == *key).then_some(()));
    }

    /// Waits until the source has failed so.
    #[track_caller]
    fn fails(&self, fault: Fault) {
        let failures = || self.neurons.glances().map(|glance| glance.readings.failed(fault)).sum::<u64>();
        let before = failures();
        eventually(&format!("a failure: {fault:?}"), || (failures() > before).then_some(()));
    }

    /// Waits until the source has been read again.
    #[track_caller]
    fn succeeds(&self) {
        let readings = || glance(&self.neurons, SUBNET).readings.answered.load(Ordering::SeqCst);
        let before = readings();
        eventually("a reading", || (readings() > before).then_some(()));
    }

    fn block(&self) -> u64 {
        glance(&self.neurons, SUBNET).block
    }
}

fn glance(neurons: &Neurons, netuid: NetUid) -> Glance<'_> {
    neurons.glances().find(|glance| glance.netuid == netuid).unwrap()
}

fn tables(clock: &Clock) -> Neurons {
    let minutes = Duration::from_mins;
    Neurons::new([SUBNET, OTHER], minutes(10), clock.clone())
        .believed_while_stalled(minutes(5))
        .believed_of_absent(minutes(1))
}
