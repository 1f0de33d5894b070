//! One holder's credits of one plan: a few numbers under a lock that only requests of this account share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{AccountKey, Snapshot};
use crate::model::{credits::Credits, decision::Dependency};

/// See the module above for the arithmetic.
pub struct Account {
    key: AccountKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    facts: Option<Facts>,
    /// The most that requests in flight may cost.
    held: Credits,
    /// Everything this process has charged, since it began.
    charged: Credits,
    /// The part of `charged` that the store has.
    committed: Credits,
    refresh: Option<watch::Receiver<()>>,
    failure: Option<(Dependency, Instant)>,
}

struct Facts {
    /// The balance less the unburned charges that the store knew.
    base: Credits,
    /// What of that was ours: `committed` at the moment of the snapshot.
    committed: Credits,
    at: Instant,
}

impl State {
    fn spendable(&self, stale_for: Duration, now: Instant) -> Option<(Credits, Duration)> {
        let facts = self.facts.as_ref()?;
        let age = now.saturating_duration_since(facts.at);
        if age > stale_for {
            return None;
        }
        let ours = self.charged.minus(facts.committed);
        Some((facts.base.minus(ours).minus(self.held), age))
    }
}

pub(super) enum Attempt {
    /// By facts of this age.
    Held(Hold, Duration),
    /// There is too little, by facts of this age.
    Insufficient(Arc<Account>, Duration),
    NoFacts(Arc<Account>),
}

pub(super) enum Refresh {
    Begun(watch::Sender<()>, watch::Receiver<()>),
    UnderWay(watch::Receiver<()>),
    JustFailed,
}

impl Account {
    pub(super) fn new(key: AccountKey) -> Self {
        Self { key, state: Mutex::default() }
    }

    /// Whose credits these are.
    #[must_use]
    pub fn key(&self) -> &AccountKey {
        &self.key
    }

    /// What of this process's charges the store has. Read by the balance source while the writer cannot move it.
    #[must_use]
    pub fn committed(&self) -> Credits {
        self.state.lock().committed
    }

    pub(super) fn try_hold(
        self: Arc<Self>,
        amount: Credits,
        needed: Credits,
        stale_for: Duration,
        now: Instant,
    ) -> Attempt {
        let mut state = self.state.lock();
        let spendable = state.spendable(stale_for, now);
        if spendable.is_some_and(|(spendable, _)| spendable >= needed) {
            state.held = state.held.plus(amount);
        }
        drop(state);
        match spendable {
            None => Attempt::NoFacts(self),
            Some((spendable, age)) if spendable < needed => Attempt::Insufficient(self, age),
            Some((_, age)) => Attempt::Held(Hold { account: self, amount }, age),
        }
    }

    pub(super) fn spendable(&self, stale_for: Duration) -> Option<Credits> {
        self.state.lock().spendable(stale_for, Instant::now()).map(|(spendable, _)| spendable)
    }

    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        self.state.lock().facts.as_ref().is_none_or(|facts| facts.at.elapsed() > age)
    }

    pub(super) fn begin_refresh(&self, retry_after: Duration) -> Refresh {
        let mut state = self.state.lock();
        if let Some(answered) = &state.refresh {
            return Refresh::UnderWay(answered.clone());
        }
        if state.failure.is_some_and(|(_, at)| at.elapsed() < retry_after) {
            return Refresh::JustFailed;
        }
        let (done, answered) = watch::channel(());
        state.refresh = Some(answered.clone());
        Refresh::Begun(done, answered)
    }

    pub(super) fn end_refresh(&self, outcome: Result<Snapshot, Dependency>, asked: Instant) {
        let mut state = self.state.lock();
        state.refresh = None;
        match outcome {
            Ok(snapshot) => {
                let base = snapshot.balance.minus(snapshot.unburned);
                state.facts = Some(Facts { base, committed: snapshot.committed, at: asked });
                state.failure = None;
            }
            Err(dependency) => state.failure = Some((dependency, Instant::now())),
        }
    }

    pub(super) fn last_failure(&self) -> Option<Dependency> {
        self.state.lock().failure.map(|(dependency, _)| dependency)
    }

    /// A charge has reached the store. Charges of an earlier run of this process are not in `charged`: no hold is
    /// granted before they have been committed, so the cut at `charged` leaves exactly them out.
    pub(super) fn settled(&self, amount: Credits) {
        let mut state = self.state.lock();
        state.committed = state.committed.plus(amount).min(state.charged);
    }

    pub(super) fn is_idle(&self, stale_for: Duration) -> bool {
        let state = self.state.lock();
        state.held == Credits::ZERO
            && state.charged == state.committed
            && state.refresh.is_none()
            && state.facts.as_ref().is_none_or(|facts| facts.at.elapsed() > stale_for)
    }
}

/// Credits set aside for one request: the most it may cost. Dropping a hold gives them back.
#[must_use]
pub struct Hold {
    account: Arc<Account>,
    amount: Credits,
}

impl Hold {
    /// Whose credits are held.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The hold becomes a charge of `asked`, and what was held too much is free again. More than was held is charged
    /// only as far as the holder has it: nobody's last credits are spent twice.
    pub fn charge(mut self, asked: Credits) -> Charge {
        let mut state = self.account.state.lock();
        let beyond = if asked > self.amount {
            state.spendable(Duration::MAX, Instant::now()).map_or(Credits::ZERO, |(spendable, _)| spendable)
        } else {
            Credits::ZERO
        };
        let charged = asked.min(self.amount.plus(beyond));
        state.charged = state.charged.plus(charged);
        state.held = state.held.minus(self.amount);
        drop(state);
        // Nothing is left to give back.
        self.amount = Credits::ZERO;
        Charge { amount: charged, of: Some(self) }
    }
}

/// What was charged, which can still be taken back until the event is recorded.
#[must_use = "what was charged is less than asked where less was left"]
pub struct Charge {
    /// How much.
    pub amount: Credits,
    /// The hold that it was, of which nothing is left. None: nothing was held.
    of: Option<Hold>,
}

impl Charge {
    /// Of a request that costs its caller nothing, whatever the answer.
    pub const NOTHING: Self = Self { amount: Credits::ZERO, of: None };

    /// Takes the charge back: the event could not be recorded, and the answer is not delivered.
    pub fn undo(self) {
        if let Some(hold) = self.of {
            let mut state = hold.account.state.lock();
            state.charged = state.charged.minus(self.amount);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.amount > Credits::ZERO {
            let mut state = self.account.state.lock();
            state.held = state.held.minus(self.amount);
        }
    }
}
