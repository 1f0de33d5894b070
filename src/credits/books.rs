//! Where balances come from: our own store, and the chain.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{RwLock, watch};

use super::{Account, AccountKey};
use crate::{
    chain::Facts,
    model::{
        credits::{CreditSource, Credits},
        decision::Dependency,
    },
    store::Store,
};

/// What an account has and owes, as of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// What the holder has.
    pub balance: Credits,
    /// What anybody has charged and nobody has burned, as far as the store knows.
    pub unburned: Credits,
    /// What of our own charges the store knew at that moment ([`Account::committed`]).
    pub committed: Credits,
}

/// Who knows balances. In a test somebody else does.
#[async_trait]
pub trait BalanceSource: Send + Sync {
    /// Asks for an account.
    ///
    /// # Errors
    /// What could not be asked.
    async fn snapshot(&self, account: &Account) -> Result<Snapshot, Dependency>;

    /// Whom a question about this account depends on most.
    fn dependency(&self, key: &AccountKey) -> Dependency;
}

/// The store, for what is charged and for local balances, and the chain for the others.
pub struct Books {
    /// Charges and local balances.
    pub store: Store,
    /// Balances on chain.
    pub facts: Arc<Facts>,
    /// Whether the charges of an earlier run are all in the store.
    pub recovered: watch::Receiver<bool>,
    /// Held by the writer while it moves charges into the store.
    pub commit_gate: Arc<RwLock<()>>,
    /// How long the store may take. The chain has a limit of its own.
    pub timeout: Duration,
    /// When the store last did not answer: nobody else waits for it in the next moment.
    pub silent_since: Mutex<Option<Instant>>,
}

/// How long a store that did not answer is left alone.
const SILENCE: Duration = Duration::from_secs(1);

impl Books {
    /// What the store knows of an account, and what of our own charges was in it then.
    async fn charges(&self, account: &Account) -> Result<(crate::store::Snapshot, Credits), Dependency> {
        let key = account.key();
        // An error means that nobody will say any more: the gateway is ending.
        self.recovered.clone().wait_for(|drained| *drained).await.map_err(|_| Dependency::Store)?;
        // The writer moves charges from one side of the sum to the other. Not now.
        let _gate = self.commit_gate.read().await;
        let known = self.store.snapshot(&key.source, &key.plan, &key.holder).await.map_err(|error| {
            tracing::warn!(%error, "the store does not say what is charged");
            Dependency::Store
        })?;
        Ok((known, account.committed()))
    }
}

#[async_trait]
impl BalanceSource for Books {
    async fn snapshot(&self, account: &Account) -> Result<Snapshot, Dependency> {
        let key = *account.key();
        if self.silent_since.lock().is_some_and(|since| since.elapsed() < SILENCE) {
            return Err(Dependency::Store);
        }
        let charges = tokio::time::timeout(self.timeout, self.charges(account)).await;
        let charges = charges.unwrap_or(Err(Dependency::Store));
        *self.silent_since.lock() = charges.is_err().then(Instant::now);
        let (known, committed) = charges?;
        let balance = match key.source {
            CreditSource::Local => known.balance.unwrap_or(Credits::ZERO),
            CreditSource::Chain { contract } => {
                self.facts.balance(contract, key.holder, key.plan).await.map_err(|failed| {
                    tracing::warn!(%failed, "the chain does not say what a holder has");
                    Dependency::Chain
                })?
            }
        };
        Ok(Snapshot { balance, unburned: known.unburned, committed })
    }

    fn dependency(&self, key: &AccountKey) -> Dependency {
        match key.source {
            CreditSource::Local => Dependency::Store,
            CreditSource::Chain { .. } => Dependency::Chain,
        }
    }
}
