//! Used requests in memory: bounded, and in shards, so that requests seldom wait for each other.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use parking_lot::Mutex;

use crate::model::nonce::Nonce;

/// All of it.
pub struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    started_micros: i64,
}

/// What came of an attempt to remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It was not there, and is now.
    New,
    /// It was there.
    Already,
    /// There is no room.
    Full,
    /// It was signed before this memory began, or so short after that another may have it.
    TooYoung,
}

#[derive(Default)]
struct Shard {
    used: HashSet<[u8; 32]>,
    /// The same, the first to be forgotten first.
    by_end: BTreeSet<(i64, [u8; 32])>,
}

const SHARDS: usize = 16;
/// 262 144 in all, which is about 30 MB, and 18 000 requests a second with the default times.
const MOST_IN_A_SHARD: usize = 16_384;

impl Memory {
    pub fn new(started_micros: i64) -> Self {
        Self { shards: Default::default(), started_micros }
    }

    pub fn remember(&self, nonce: &Nonce, max_skew: Duration, now_micros: i64) -> Remembered {
        let skew = i64::try_from(max_skew.as_micros()).unwrap_or(i64::MAX);
        if nonce.signed_at_micros < self.started_micros.saturating_add(skew) {
            return Remembered::TooYoung;
        }
        // Ids are hashes: any byte of theirs spreads them evenly.
        let [first, ..] = nonce.id;
        let Some(shard) = self.shards.get(usize::from(first) % SHARDS) else { return Remembered::Full };
        shard.lock().remember(nonce, now_micros)
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().used.len()).sum()
    }
}

impl Shard {
    fn remember(&mut self, nonce: &Nonce, now_micros: i64) -> Remembered {
        while let Some((until, id)) = self.by_end.first().copied().filter(|(until, _)| *until < now_micros) {
            self.by_end.remove(&(until, id));
            self.used.remove(&id);
        }
        if self.used.contains(&nonce.id) {
            return Remembered::Already;
        }
        if self.used.len() >= MOST_IN_A_SHARD {
            return Remembered::Full;
        }
        self.used.insert(nonce.id);
        self.by_end.insert((nonce.until_micros, nonce.id));
        Remembered::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(2);
    const NOW: i64 = 1_000_000_000;
    const SECOND: i64 = 1_000_000;

    fn nonce(number: u32, signed_at_micros: i64) -> Nonce {
        let mut id = [7; 32];
        id[4..8].copy_from_slice(&number.to_le_bytes());
        Nonce { id, signed_at_micros, until_micros: signed_at_micros + 12 * SECOND }
    }

    #[test]
    fn a_request_is_new_once_and_forgotten_when_it_has_ended() {
        let memory = Memory::new(0);
        let request = nonce(1, NOW);
        assert_eq!(memory.remember(&request, SKEW, NOW), Remembered::New);
        for later in [0, 1, 12 * SECOND] {
            assert_eq!(memory.remember(&request, SKEW, NOW + later), Remembered::Already, "{later}");
        }
        assert_eq!(memory.remember(&nonce(2, NOW), SKEW, NOW + 12 * SECOND), Remembered::New);
        assert_eq!(memory.len(), 2);
        assert_eq!(memory.remember(&nonce(3, NOW + 13 * SECOND), SKEW, NOW + 13 * SECOND), Remembered::New);
        assert_eq!(memory.len(), 1, "what has ended makes room");
    }

    #[test]
    fn what_may_have_been_used_before_the_start_is_not_judged() {
        let memory = Memory::new(NOW);
        for (signed_at, expected) in [
            (NOW - SECOND, Remembered::TooYoung),
            (NOW, Remembered::TooYoung),
            (NOW + 2 * SECOND - 1, Remembered::TooYoung),
            (NOW + 2 * SECOND, Remembered::New),
        ] {
            assert_eq!(memory.remember(&nonce(1, signed_at), SKEW, NOW + 2 * SECOND), expected, "{signed_at}");
        }
    }

    #[test]
    fn a_full_memory_refuses_and_forgets_nothing_early() {
        let memory = Memory::new(0);
        let most = u32::try_from(MOST_IN_A_SHARD).unwrap();
        for number in 0..most {
            assert_eq!(memory.remember(&nonce(number, NOW), SKEW, NOW), Remembered::New);
        }
        assert_eq!(memory.remember(&nonce(most, NOW), SKEW, NOW), Remembered::Full);
        assert_eq!(memory.remember(&nonce(0, NOW), SKEW, NOW), Remembered::Already);
        let mut elsewhere = nonce(most, NOW);
        elsewhere.id[0] += 1;
        assert_eq!(memory.remember(&elsewhere, SKEW, NOW), Remembered::New, "another shard has room");
        assert_eq!(memory.remember(&nonce(most, NOW), SKEW, NOW + 13 * SECOND), Remembered::New);
    }

    #[test]
    fn of_many_at_once_one_is_new() {
        let memory = Memory::new(0);
        let new = std::thread::scope(|scope| {
            let ask = || memory.remember(&nonce(1, NOW), SKEW, NOW);
            let asked: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().filter_map(|thread| thread.join().ok()).filter(|it| *it == Remembered::New).count()
        });
        assert_eq!(new, 1);
    }
}
