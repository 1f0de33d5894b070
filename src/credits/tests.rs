//! The arithmetic of holds, with a source that says what the test wants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::*;
use crate::model::decision::Dependency;

struct Fake {
    balance: AtomicU64,
    unburned: AtomicU64,
    asked: AtomicU64,
    down: Mutex<bool>,
}

#[async_trait::async_trait]
impl BalanceSource for Fake {
    async fn snapshot(&self, account: &Account) -> Result<Snapshot, Dependency> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        if *self.down.lock() {
            return Err(Dependency::Chain);
        }
        Ok(Snapshot {
            balance: Credits::new(self.balance.load(Ordering::Relaxed)),
            unburned: Credits::new(self.unburned.load(Ordering::Relaxed)),
            committed: account.committed(),
        })
    }

    fn dependency(&self, _: &AccountKey) -> Dependency {
        Dependency::Chain
    }
}

fn ledger(balance: u64, stale_for: Duration) -> (Arc<Ledger>, Arc<Fake>) {
    let fake = Arc::new(Fake {
        balance: AtomicU64::new(balance),
        unburned: AtomicU64::new(0),
        asked: AtomicU64::new(0),
        down: Mutex::new(false),
    });
    let options =
        LedgerOptions { refresh: stale_for / 2, stale_for, patience: Duration::from_secs(5), max_accounts: 1000 };
    (Ledger::new(options, Arc::clone(&fake) as Arc<dyn BalanceSource>, Handle::current()), fake)
}

fn key() -> AccountKey {
    AccountKey { source: CreditSource::Local, plan: Did([2; 32]), holder: EvmAddress([1; 20]) }
}

const HOUR: Duration = Duration::from_hours(1);
const ONE: fn() -> Credits = || Credits::new(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_simultaneous_requests_on_ten_credits_hold_ten() {
    let (ledger, fake) = ledger(10, HOUR);
    let attempts: Vec<_> = (0..1000)
        .map(|_| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { ledger.hold(key(), ONE(), ONE(), Instant::now()).await })
        })
        .collect();
    let mut holds = Vec::new();
    for attempt in attempts {
        match attempt.await.unwrap() {
            Ok(hold) => holds.push(hold),
            Err(denial) => assert_eq!(denial, Denial::InsufficientCredits { needed: ONE() }),
        }
    }
    assert_eq!(holds.len(), 10);
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1, "the questions of a thousand requests are one question");
}

#[tokio::test]
async fn a_dropped_hold_is_given_back_and_a_charge_is_not() {
    let (ledger, _) = ledger(2, HOUR);
    drop(ledger.hold(key(), Credits::new(2), ONE(), Instant::now()).await.unwrap());
    let hold = ledger.hold(key(), Credits::new(2), ONE(), Instant::now()).await.unwrap();
    assert_eq!(hold.charge(ONE()).amount, ONE());
    assert_eq!(ledger.spendable(key()).await.unwrap(), ONE());
}

#[tokio::test]
async fn a_charge_beyond_the_hold_takes_only_what_is_left() {
    let (ledger, _) = ledger(10, HOUR);
    let other = ledger.hold(key(), Credits::new(4), ONE(), Instant::now()).await.unwrap();
    let hold = ledger.hold(key(), Credits::new(3), ONE(), Instant::now()).await.unwrap();
    assert_eq!(hold.charge(Credits::new(1000)).amount, Credits::new(6));
    drop(other);
    assert_eq!(ledger.spendable(key()).await.unwrap(), Credits::new(4));
}

#[tokio::test]
async fn a_charge_counts_once_before_and_after_the_store_has_it() {
    let (ledger, fake) = ledger(10, Duration::ZERO); // every look asks anew
    let spendable = async || ledger.account(key()).spendable(HOUR);
    ledger.wait_for_facts(&ledger.account(key())).await.unwrap();
    let charge = |amount| ledger.account(key()).try_hold(Credits::new(amount), ONE(), HOUR, Instant::now());
    let account::Attempt::Held(hold, _) = charge(3) else { panic!("not held") };
    assert_eq!(hold.charge(Credits::new(3)).amount, Credits::new(3));
    assert_eq!(spendable().await, Some(Credits::new(7)), "in the spool");
    ledger.wait_for_facts(&ledger.account(key())).await.unwrap();
    assert_eq!(spendable().await, Some(Credits::new(7)), "in the spool, with newer facts");
    fake.unburned.store(3, Ordering::Relaxed);
    ledger.settled(&key(), Credits::new(3));
    assert_eq!(spendable().await, Some(Credits::new(7)), "in the store, with older facts");
    ledger.wait_for_facts(&ledger.account(key())).await.unwrap();
    assert_eq!(spendable().await, Some(Credits::new(7)), "in the store");
    fake.unburned.store(0, Ordering::Relaxed);
    fake.balance.store(7, Ordering::Relaxed);
    ledger.wait_for_facts(&ledger.account(key())).await.unwrap();
    assert_eq!(spendable().await, Some(Credits::new(7)), "burned");
}

#[tokio::test]
async fn what_cannot_be_found_out_is_neither_yes_nor_no() {
    let (ledger, fake) = ledger(10, HOUR);
    *fake.down.lock() = true;
    for _ in 0..100 {
        let denial = ledger.hold(key(), ONE(), ONE(), Instant::now()).await.err();
        assert_eq!(denial, Some(Denial::Unavailable(Dependency::Chain)));
    }
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1, "a dead source is not hammered");
}

#[tokio::test]
async fn idle_accounts_are_forgotten_and_busy_ones_are_not() {
    let (ledger, _) = ledger(10, HOUR);
    let ledger = Ledger::new(
        LedgerOptions { stale_for: Duration::ZERO, max_accounts: 0, ..ledger.options },
        Arc::clone(&ledger.source),
        Handle::current(),
    );
    for holder in 0..100 {
        let key = AccountKey { holder: EvmAddress([holder; 20]), ..key() };
        drop(ledger.refresh(&ledger.account(key)));
        ledger.wait_for_facts(&ledger.account(key)).await.unwrap();
    }
    let account::Attempt::Held(hold, _) = ledger.account(key()).try_hold(ONE(), ONE(), HOUR, Instant::now()) else {
        panic!("not held")
    };
    assert_eq!(ledger.len(), 100);
    ledger.sweep();
    assert_eq!(ledger.len(), 1);
    assert_eq!(hold.charge(ONE()).amount, ONE());
    ledger.sweep();
    assert_eq!(ledger.len(), 1, "its charge is not in the store yet");
    ledger.settled(&key(), ONE());
    ledger.sweep();
    assert_eq!(ledger.len(), 0);
}
