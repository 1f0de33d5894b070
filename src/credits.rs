//! Who holds how many credits: accounts, holds, charges.
//!
//! What a holder may spend is the balance less what is charged and not yet burned, less what is held for requests in
//! flight. Balance and unburned charges are facts that are asked for in the background and grow old; holds and our own
//! charges are counted here, under a lock that only requests of the same account share. A hold is taken with the
//! decision, so a thousand simultaneous requests on one credit serve one request.
//!
//! The arithmetic, per account: the store's snapshot says how much was charged by anybody and not burned when it was
//! taken. `committed` counts our own charges that the writer has brought to the store, `charged` all our own. A snapshot
//! remembers `committed` as it was at that moment, so `charged` less that is exactly what the snapshot cannot know. The
//! writer and the snapshot exclude each other (see [`crate::usage::writer`]), or one charge could be counted twice or not
//! at all. The balance is read after the unburned charges: a burn that happens in between makes us too strict for one
//! refresh, never too generous.
//!
//! Several gateways on one database see each other's charges at their next refresh. Until then each may spend what it
//! last saw: the overspend is bounded by (gateways − 1) × the balance, and by what the others can serve within
//! `credits.refresh` (docs/operations.md).

mod account;
mod books;

use std::{hash::BuildHasher, sync::Arc, time::Instant};

use hashbrown::HashTable;
use parking_lot::RwLock;
use quick_cache::DefaultHashBuilder;
use tokio::runtime::Handle;

pub use account::{Account, Charge, Hold};
pub use books::{BalanceSource, Books, Snapshot};

use crate::model::{
    address::EvmAddress,
    credits::{CreditSource, Credits},
    decision::Denial,
    did::Did,
};

/// Whose credits of which plan, and where they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountKey {
    /// Where the balance is kept.
    pub source: CreditSource,
    /// The plan, which is the token id.
    pub plan: Did,
    /// Who holds the credits.
    pub holder: EvmAddress,
}

/// How old facts about an account may be.
#[derive(Clone, Copy, Debug)]
pub struct LedgerOptions {
    /// Older facts are used, and asked for again in the background.
    pub refresh: std::time::Duration,
    /// Older facts are not used: the request waits for new ones.
    pub stale_for: std::time::Duration,
    /// How long a request waits for facts.
    pub patience: std::time::Duration,
    /// How many accounts are kept at the most before idle ones are forgotten.
    pub max_accounts: usize,
}

const SHARDS: usize = 64;

/// Accounts whose keys hash alike. Read by requests, written when a holder is new. The hash is seeded and quick rather than
/// hard to foresee: only who holds a genuine token adds a key.
type Shard = RwLock<HashTable<Arc<Account>>>;

/// All accounts that have been asked for lately.
pub struct Ledger {
    shards: Box<[Shard]>,
    hasher: DefaultHashBuilder,
    options: LedgerOptions,
    source: Arc<dyn BalanceSource>,
    /// Facts are asked for here: the question outlives the request that made it necessary.
    outside: Handle,
}

impl Ledger {
    /// An empty ledger that asks `source`, on the runtime `outside`.
    #[must_use]
    pub fn new(options: LedgerOptions, source: Arc<dyn BalanceSource>, outside: Handle) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Arc::new(Self { shards, hasher: DefaultHashBuilder::default(), options, source, outside })
    }

    /// Takes `amount` out of what the holder may spend, if at least `required` is there. Facts that are fresh `now` answer
    /// without waiting; without usable ones the request waits for the source, but not longer than the options' patience.
    ///
    /// # Errors
    /// [`Denial::InsufficientCredits`], or [`Denial::Unavailable`] when nobody can say what the holder has.
    pub async fn hold(
        self: &Arc<Self>,
        key: AccountKey,
        amount: Credits,
        required: Credits,
        now: Instant,
    ) -> Result<Hold, Denial> {
        let needed = amount.max(required);
        let insufficient = Denial::InsufficientCredits { needed };
        let stale_for = self.options.stale_for;
        let (account, if_unavailable) = match self.account(key).try_hold(amount, needed, stale_for, now) {
            account::Attempt::Held(hold, age) => {
                if age > self.options.refresh {
                    drop(self.refresh(hold.account()));
                }
                return Ok(hold);
            }
            // Exhausted credits may have been topped up a moment ago: look again, at most once a second.
            account::Attempt::Insufficient(_, age) if age < RETRY_AFTER => return Err(insufficient),
            account::Attempt::Insufficient(account, _) => (account, Some(insufficient.clone())),
            account::Attempt::NoFacts(account) => (account, None),
        };
        if let Err(unavailable) = self.wait_for_facts(&account).await {
            return Err(if_unavailable.unwrap_or(unavailable));
        }
        match account.try_hold(amount, needed, stale_for, Instant::now()) {
            account::Attempt::Held(hold, _) => Ok(hold),
            account::Attempt::Insufficient(..) => Err(insufficient),
            account::Attempt::NoFacts(_) => Err(Denial::Unavailable(self.source.dependency(&key))),
        }
    }

    /// What the holder may spend, as far as known now; waits for facts as [`Self::hold`] does.
    ///
    /// # Errors
    /// [`Denial::Unavailable`] when nobody can say.
    pub async fn spendable(self: &Arc<Self>, key: AccountKey) -> Result<Credits, Denial> {
        let account = self.account(key);
        if let Some(spendable) = account.spendable(self.options.stale_for) {
            if account.is_older_than(self.options.refresh) {
                drop(self.refresh(&account));
            }
            return Ok(spendable);
        }
        self.wait_for_facts(&account).await?;
        account.spendable(self.options.stale_for).ok_or(Denial::Unavailable(self.source.dependency(&key)))
    }

    /// The writer has committed this charge to the store.
    pub fn settled(&self, key: &AccountKey, amount: Credits) {
        let hash = self.hasher.hash_one(key);
        if let Some(account) = self.shard(hash).read().find(hash, |account| account.key() == key) {
            account.settled(amount);
        }
    }

    /// Forgets accounts that nothing is in flight for, if there are more than the options allow.
    pub fn sweep(&self) {
        let allowed = self.options.max_accounts.div_ceil(SHARDS);
        for shard in &self.shards {
            let mut accounts = shard.write();
            if accounts.len() > allowed {
                accounts.retain(|account| Arc::strong_count(account) > 1 || !account.is_idle(self.options.stale_for));
            }
        }
    }

    /// How many accounts are remembered: a gauge.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Whether nobody has asked for anything yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, hash: u64) -> &Shard {
        // The table in it goes by the lowest and the highest bits.
        let index = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "a remainder of the number of shards")]
        &self.shards[index]
    }

    fn account(&self, key: AccountKey) -> Arc<Account> {
        let hash = self.hasher.hash_one(key);
        let same = |account: &Arc<Account>| *account.key() == key;
        if let Some(account) = self.shard(hash).read().find(hash, same) {
            return Arc::clone(account);
        }
        self.open_account(key, hash)
    }

    #[cold]
    fn open_account(&self, key: AccountKey, hash: u64) -> Arc<Account> {
        let mut accounts = self.shard(hash).write();
        let same = |account: &Arc<Account>| *account.key() == key;
        let account = accounts.entry(hash, same, |account| self.hasher.hash_one(account.key()));
        Arc::clone(account.or_insert_with(|| Arc::new(Account::new(key))).get())
    }

    /// Starts a question unless one is under way; the receiver ends when it is answered. None: one has just failed.
    fn refresh(self: &Arc<Self>, account: &Arc<Account>) -> Option<tokio::sync::watch::Receiver<()>> {
        let started = account.begin_refresh(RETRY_AFTER);
        let answered = match started {
            account::Refresh::UnderWay(answered) => answered,
            account::Refresh::JustFailed => return None,
            account::Refresh::Begun(done, answered) => {
                let (ledger, account) = (Arc::clone(self), Arc::clone(account));
                self.outside.spawn(async move {
                    let asked = Instant::now();
                    let outcome = ledger.source.snapshot(&account).await;
                    account.end_refresh(outcome, asked);
                    drop(done);
                });
                answered
            }
        };
        Some(answered)
    }

    async fn wait_for_facts(self: &Arc<Self>, account: &Arc<Account>) -> Result<(), Denial> {
        if let Some(mut answered) = self.refresh(account) {
            // An error means that the sender is gone, which is how an answer is announced.
            let waiting = async { while answered.changed().await.is_ok() {} };
            if tokio::time::timeout(self.options.patience, waiting).await.is_err() {
                return Err(Denial::Unavailable(self.source.dependency(account.key())));
            }
        }
        match account.last_failure() {
            Some(dependency) => Err(Denial::Unavailable(dependency)),
            None => Ok(()),
        }
    }
}

/// How soon a source is asked again about the same account after it failed, or after it said that there is too little.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests;
