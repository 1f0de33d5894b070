//! Time. The only file that reads the clock, so that everything else can be told what time it is.

use std::time::Duration;

/// Seconds since the Unix epoch, the resolution of every token (RFC 7519 §2, `NumericDate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock, rounded down to the second.
    #[must_use]
    pub fn now() -> Self {
        Self(now_micros().div_euclid(1_000_000))
    }

    /// This moment and `duration`, in whole seconds.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// The wall clock in microseconds since the Unix epoch: the resolution of a usage event and of Postgres.
#[must_use]
pub fn now_micros() -> i64 {
    i64::try_from(since_epoch().as_micros()).unwrap_or(i64::MAX)
}

/// The wall clock in nanoseconds since the Unix epoch: the resolution of signed requests (nexus.md section 6.1).
#[must_use]
pub fn now_nanos() -> i128 {
    i128::try_from(since_epoch().as_nanos()).unwrap_or(i128::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
