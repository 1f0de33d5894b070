//! Reads the table of one subnet, again and again. Each subnet has a reader of its own, so that what fails for one is
//! nothing to the others.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::sleep;

use super::Neurons;
use crate::{
    chain::{
        fault::{Failed, Fault},
        pylon::Pylon,
        subtensor::table::Watch,
    },
    model::neuron::{NetUid, Subnet},
};

/// Who is asked.
pub enum Source {
    /// The service that reads the chain for others.
    Pylon(Pylon),
    /// The chain itself, at a node.
    Subtensor(Box<Watch>),
}

/// What reads one subnet.
pub struct Reader {
    /// Where the tables go.
    pub neurons: Arc<Neurons>,
    /// Which subnet.
    pub netuid: NetUid,
    /// Who is asked.
    pub source: Source,
    /// How long to wait after a reading at most, while all is well.
    pub refresh: Duration,
}

/// How long a source that fails is left in peace: doubled with each failure, up to the second.
const REST: Duration = Duration::from_millis(500);
const REST_MOST: Duration = Duration::from_secs(15);

impl Reader {
    /// Reads until it is cut off.
    pub async fn run(mut self) {
        let mut failures = 0;
        let mut complaint = String::new();
        loop {
            let read = self.read().await;
            let well = read.is_ok();
            let wait = match read {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(netuid = %self.netuid, "the subnet's table can be read again");
                    }
                    failures = 0;
                    complaint.clear();
                    self.refresh
                }
                Err(failed) => {
                    let text = failed.to_string();
                    if text != complaint {
                        complain(self.netuid, &failed);
                        complaint = text;
                    }
                    failures += 1;
                    rest(failures)
                }
            };
            let Some(slot) = self.neurons.subnets.get(&self.netuid) else { return };
            slot.spec_version.store(self.source.spec_version(), Relaxed);
            tokio::select! {
                () = sleep(wait) => {}
                () = slot.wake.notified() => {}
                () = self.source.changed(), if well => {}
            }
        }
    }

    async fn read(&mut self) -> Result<(), Failed> {
        let registered = self.neurons.subnets.get(&self.netuid).is_some_and(|slot| slot.registered.load(Relaxed));
        let reading = self.source.subnet(self.netuid, registered);
        self.neurons.refresh(self.netuid, reading).await
    }
}

impl Source {
    async fn subnet(&mut self, netuid: NetUid, registered: bool) -> Result<Subnet, Failed> {
        match self {
            Self::Pylon(pylon) => pylon.subnet(netuid, registered).await,
            Self::Subtensor(watch) => watch.subnet(netuid, registered).await,
        }
    }

    /// Comes back when there is something new, if the source says so by itself.
    async fn changed(&mut self) {
        match self {
            Self::Pylon(_) => std::future::pending().await,
            Self::Subtensor(watch) => watch.changed().await,
        }
    }

    /// The version of the chain's runtime; 0: the source does not say.
    fn spec_version(&self) -> u64 {
        match self {
            Self::Pylon(_) => 0,
            Self::Subtensor(watch) => watch.spec_version(),
        }
    }
}

/// Once for each thing that goes wrong, not at every attempt.
fn complain(netuid: NetUid, failed: &Failed) {
    let (fault, detail) = (failed.fault.as_str(), failed.detail.as_str());
    if failed.fault == Fault::Mismatch {
        tracing::error!(%netuid, fault, detail, "this source is not the configured one: nobody is admitted by it");
    } else {
        tracing::warn!(%netuid, fault, detail, "the subnet's table cannot be read; the one before counts for a while");
    }
}

/// How long to wait after so many failures, and up to half as much again: gateways that lost the same source should not
/// come back all at once.
fn rest(failures: u32) -> Duration {
    let rest = REST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(REST_MOST);
    let random = u32::try_from(RandomState::new().hash_one(failures) & 0xff).unwrap_or(0);
    rest + rest / 512 * random
}
