//! Has this signed request been here before?
//!
//! A request is used when it is admitted, and a used one is remembered for as long as it would be valid, and longer. The
//! memory may be too small, too young or too far away to say: then the answer is neither yes nor no. It never forgets
//! early.

mod memory;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::runtime::Handle;

use self::memory::{Memory, Remembered};
use crate::{
    model::{
        decision::{Denial, Dependency},
        nonce::Nonce,
    },
    store::Store,
};

/// Where used requests are remembered.
pub struct Replays {
    place: Place,
    counts: [AtomicU64; OUTCOMES.len()],
}

enum Place {
    /// Here: nobody else may admit the same requests.
    Memory(Box<Memory>),
    /// In the database, which is asked on the runtime for outside questions and waited for so long.
    Store(Store, Handle, Duration),
}

/// What came of a question, for the metrics.
#[derive(Clone, Copy)]
enum Outcome {
    New,
    Used,
    Full,
    TooYoung,
    Failed,
}

const OUTCOMES: [&str; 5] = ["new", "used", "full", "too_young", "failed"];

impl Replays {
    /// In this process. What it admits was signed after `started_micros` and the time by which senders' clocks may be
    /// ahead: what was signed earlier may have been used before this process was there.
    #[must_use]
    pub fn in_memory(started_micros: i64) -> Self {
        Self { place: Place::Memory(Box::new(Memory::new(started_micros))), counts: Default::default() }
    }

    /// In the database, for all gateways that share it.
    #[must_use]
    pub fn in_store(store: Store, outside: Handle, patience: Duration) -> Self {
        Self { place: Place::Store(store, outside, patience), counts: Default::default() }
    }

    /// Uses a request whose signature has been verified. `max_skew` is the time by which a sender's clock may be ahead.
    ///
    /// # Errors
    /// `replayed`; [`Denial::Unavailable`] when nobody can say.
    pub async fn admit(&self, nonce: &Nonce, max_skew: Duration, now_micros: i64) -> Result<(), Denial> {
        let outcome = match &self.place {
            Place::Memory(memory) => match memory.remember(nonce, max_skew, now_micros) {
                Remembered::New => Outcome::New,
                Remembered::Already => Outcome::Used,
                Remembered::Full => Outcome::Full,
                Remembered::TooYoung => Outcome::TooYoung,
            },
            Place::Store(store, outside, patience) => ask(store, outside, *patience, *nonce).await,
        };
        if let Some(count) = self.counts.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match outcome {
            Outcome::New => Ok(()),
            Outcome::Used => Err(Denial::InvalidCredential("replayed")),
            Outcome::Full | Outcome::TooYoung => Err(Denial::Unavailable(Dependency::ReplayMemory)),
            Outcome::Failed => Err(Denial::Unavailable(Dependency::Store)),
        }
    }

    /// Questions since the start, by what came of them.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        OUTCOMES.into_iter().zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Requests remembered in this process.
    #[must_use]
    pub fn remembered(&self) -> usize {
        match &self.place {
            Place::Memory(memory) => memory.len(),
            Place::Store(..) => 0,
        }
    }
}

/// The question outlives the request: a client that leaves does not leave a transaction half done.
async fn ask(store: &Store, outside: &Handle, patience: Duration, nonce: Nonce) -> Outcome {
    let store = store.clone();
    let question = outside.spawn(async move { store.use_nonce(&nonce).await });
    match tokio::time::timeout(patience, question).await {
        Ok(Ok(Ok(true))) => Outcome::New,
        Ok(Ok(Ok(false))) => Outcome::Used,
        Ok(Ok(Err(error))) => {
            tracing::debug!(%error, "the store does not say whether a request has been used");
            Outcome::Failed
        }
        Ok(Err(_)) | Err(_) => Outcome::Failed,
    }
}
