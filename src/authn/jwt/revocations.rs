//! Which grants were taken back, for those who may not ask the database: requests that wait.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use uuid::Uuid;

use crate::{
    chain::cache::Clock,
    model::{
        clock::Timestamp,
        decision::{Denial, Dependency},
    },
};

/// The grants that were taken back lately, as they were read last. Whoever reads the database publishes them here.
pub struct Revocations {
    known: ArcSwapOption<Known>,
    since: Instant,
    stale_for: Duration,
    clock: Clock,
}

struct Known {
    grants: HashSet<Uuid>,
    /// Nothing is known of what was taken back before.
    since: Timestamp,
    as_of: Instant,
}

impl Revocations {
    /// Nothing is known yet. What is published is believed for `stale_for`.
    #[must_use]
    pub fn new(stale_for: Duration, clock: Clock) -> Self {
        Self { known: ArcSwapOption::empty(), since: clock.now(), stale_for, clock }
    }

    /// Now, as a reader of the database should remember it before it asks.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// These had been taken back when it was `as_of`, and no others after `since`.
    pub fn publish(&self, grants: HashSet<Uuid>, since: Timestamp, as_of: Instant) {
        self.known.store(Some(Known { grants, since, as_of }.into()));
    }

    /// Whether a grant was taken back after this token of it was issued.
    ///
    /// # Errors
    /// [`Denial::Unavailable`] when nothing is known, or what is known is too old, or begins after the token was issued,
    /// because tokens may live longer than a moment ago: unknown is neither no nor yes.
    pub fn include(&self, grant: Uuid, issued_at: Timestamp) -> Result<bool, Denial> {
        let known = self.known.load();
        match known.as_ref() {
            // What was taken back stays so.
            Some(known) if known.grants.contains(&grant) => Ok(true),
            Some(known) if self.age(known.as_of) <= self.stale_for && known.since <= issued_at => Ok(false),
            _ => Err(Denial::Unavailable(Dependency::Revocations)),
        }
    }

    /// How many there are, and how old that is; while nothing is known, how long that is so.
    #[must_use]
    pub fn glance(&self) -> (usize, Duration) {
        let known = self.known.load();
        let (count, as_of) = known.as_ref().map_or((0, self.since), |known| (known.grants.len(), known.as_of));
        (count, self.age(as_of))
    }

    fn age(&self, as_of: Instant) -> Duration {
        self.clock.now().saturating_duration_since(as_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_not_no_and_never_yes() {
        let clock = Clock::manual();
        let revocations = Revocations::new(Duration::from_mins(1), clock.clone());
        let (taken_back, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let unknown = Err(Denial::Unavailable(Dependency::Revocations));
        let (since, later) = (Timestamp(1_000), Timestamp(1_000));
        clock.advance(Duration::from_secs(3));
        assert_eq!(
            (revocations.include(other, later), revocations.glance()),
            (unknown.clone(), (0, Duration::from_secs(3)))
        );
        revocations.publish(HashSet::from([taken_back]), since, revocations.now());
        assert_eq!((revocations.include(taken_back, later), revocations.include(other, later)), (Ok(true), Ok(false)));
        clock.advance(Duration::from_mins(1));
        assert_eq!(revocations.include(other, later), Ok(false));
        clock.advance(Duration::from_millis(1));
        assert_eq!(revocations.glance(), (1, Duration::from_millis(60_001)));
        assert_eq!((revocations.include(taken_back, later), revocations.include(other, later)), (Ok(true), unknown));
        let asked = revocations.now();
        clock.advance(Duration::from_secs(61));
        revocations.publish(HashSet::new(), since, asked);
        assert!(revocations.include(other, later).is_err(), "it is as old as the question, not as the answer");
        revocations.publish(HashSet::new(), since, revocations.now());
        assert_eq!(revocations.include(other, later), Ok(false));
    }

    #[test]
    fn of_tokens_from_before_it_began_nothing_is_known() {
        let revocations = Revocations::new(Duration::from_mins(1), Clock::manual());
        let (taken_back, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        revocations.publish(HashSet::from([taken_back]), Timestamp(1_000), revocations.now());
        let before = Timestamp(999);
        assert_eq!(revocations.include(other, before), Err(Denial::Unavailable(Dependency::Revocations)));
        assert_eq!(revocations.include(taken_back, before), Ok(true));
        assert_eq!(revocations.include(other, Timestamp(1_000)), Ok(false));
        revocations.publish(HashSet::new(), Timestamp(900), revocations.now());
        assert_eq!(revocations.include(other, before), Ok(false));
    }
}
