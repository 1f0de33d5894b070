//! The subnets whose neurons may call: a table of each, and a reader that keeps it. A reload may change which they are.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{runtime::Handle, task::JoinSet};

use super::assemble::pem;
use crate::{
    chain::{
        self, cache,
        neurons::{
            Neurons,
            reader::{Reader, Source},
        },
        pylon::{self, Identities, Pylon},
        subtensor::{self, link::Link, table::Watch},
    },
    config::{self, Config, NeuronSource},
    model::neuron::NetUid,
};

/// Their tables and readers.
pub struct Subnets {
    asked: Asked,
    /// The tables that the configuration wants now.
    tables: Arc<ArcSwap<Neurons>>,
    /// One for each table. Those that are dropped end.
    readers: Mutex<JoinSet<()>>,
    outside: Handle,
}

/// Who is asked, which stays until the next start.
enum Asked {
    Pylon(Identities, chain::neurons::LookUps),
    Subtensor(Link, Arc<chain::fault::Calls>),
}

/// What a configuration makes of them, before it counts.
pub struct Prepared {
    /// The tables, which share what is known of subnets that stay.
    pub tables: Arc<Neurons>,
    identities: HashMap<NetUid, Pylon>,
    readers: Vec<Reader>,
}

impl Subnets {
    /// Who is asked by this configuration, and nothing asked about yet. None: nobody.
    #[must_use]
    pub fn new(config: &Config, node: Option<subtensor::Node>, outside: &Handle) -> Option<Self> {
        let settings = config.neurons.as_ref()?;
        let asked = match (settings.source, &config.pylon) {
            (NeuronSource::Pylon, Some(pylon)) => {
                let identities = Identities::default();
                let clock = cache::Clock::Steady;
                let look_ups = identities.look_ups(settings.refresh, pylon.timeout, clock, outside.clone());
                Asked::Pylon(identities, look_ups)
            }
            (NeuronSource::Subtensor, _) => {
                let node = node?;
                let questions = Arc::clone(node.questions());
                Asked::Subtensor(Link::new(node), questions)
            }
            (NeuronSource::Pylon, None) => return None,
        };
        let nothing = Neurons::new([], settings.stale_for, cache::Clock::Steady);
        let tables = Arc::new(ArcSwap::from_pointee(nothing));
        Some(Self { asked, tables, readers: Mutex::default(), outside: outside.clone() })
    }

    /// The tables, whichever the configuration wants.
    #[must_use]
    pub fn tables(&self) -> &Arc<ArcSwap<Neurons>> {
        &self.tables
    }

    /// What a configuration makes of them.
    ///
    /// # Errors
    /// When somebody else is to be asked, or a client cannot be built.
    pub fn prepare(&self, config: &Config) -> anyhow::Result<Prepared> {
        let subnets = config.subnets();
        let Some(settings) = &config.neurons else {
            let tables = Neurons::new([], Duration::ZERO, cache::Clock::Steady);
            return Ok(Prepared { tables: Arc::new(tables), identities: HashMap::new(), readers: Vec::new() });
        };
        let tables = Neurons::new(subnets.keys().copied(), settings.stale_for, cache::Clock::Steady)
            .believed_while_stalled(settings.stalled_for)
            .believed_of_absent(settings.stale_for.min(settings.refresh.saturating_mul(3)))
            .sharing(&self.tables.load());
        let (tables, identities) = match (&self.asked, settings.source, &config.pylon) {
            (Asked::Pylon(_, look_ups), NeuronSource::Pylon, Some(pylon)) => {
                let identities = identities(pylon, settings.netuid, &subnets)?;
                (tables.with_look_ups(look_ups.clone()), identities)
            }
            (Asked::Subtensor(_, questions), NeuronSource::Subtensor, _) => {
                (tables.with_questions(Arc::clone(questions)), HashMap::new())
            }
            _ => anyhow::bail!("neurons.source: another source counts from the next start"),
        };
        let tables = Arc::new(tables);
        let reader = |netuid: NetUid| {
            let source = match &self.asked {
                Asked::Pylon(..) => Source::Pylon(identities.get(&netuid)?.clone()),
                Asked::Subtensor(link, _) => Source::Subtensor(Box::new(Watch::new(link.clone()))),
            };
            Some(Reader { neurons: Arc::clone(&tables), netuid, source, refresh: settings.refresh })
        };
        let readers = subnets.keys().filter_map(|netuid| reader(*netuid)).collect();
        for (netuid, _) in subnets.iter().filter(|(_, registered)| **registered) {
            tables.want_registered(*netuid);
        }
        Ok(Prepared { tables, identities, readers })
    }

    /// Has it count from now on.
    pub fn watch(&self, prepared: Prepared) {
        let Prepared { tables, identities, readers } = prepared;
        if let Asked::Pylon(asked, _) = &self.asked {
            asked.replace(identities);
        }
        self.tables.store(tables);
        let mut running = JoinSet::new();
        for reader in readers {
            running.spawn_on(reader.run(), &self.outside);
        }
        *self.readers.lock() = running;
    }
}

/// A client for each subnet.
fn identities(
    settings: &config::Pylon,
    default: NetUid,
    subnets: &BTreeMap<NetUid, bool>,
) -> anyhow::Result<HashMap<NetUid, Pylon>> {
    let mut identities = HashMap::new();
    for netuid in subnets.keys() {
        // Every subnet has an identity (config/checks.rs).
        let Some(identity) = settings.identity_of(*netuid, default) else { continue };
        let options = pylon::Options {
            url: settings.url.clone(),
            identity: identity.name.clone(),
            token: identity.token.clone(),
            http: chain::http::Options { timeout: settings.timeout, extra_ca_pem: pem(settings.ca.as_ref())? },
        };
        identities.insert(*netuid, Pylon::new(&options).context("[pylon]")?);
    }
    Ok(identities)
}
