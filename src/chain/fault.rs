//! What can go wrong on the way to an answer, and the count of it.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

/// The kinds of failure to get an answer. None of them says anything about what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No answer in time.
    Timeout,
    /// No connection, or it broke.
    Transport,
    /// An HTTP status that is not an answer.
    Status,
    /// More than we are ready to read.
    TooLarge,
    /// Not what the question asks for.
    Malformed,
    /// The node's own error.
    Rpc,
    /// The contract refused the call.
    Reverted,
    /// We have too many such questions under way.
    Busy,
    /// Our own doing: the look-up was cut off.
    Aborted,
    /// It is not the source that was configured.
    Mismatch,
    /// What it knows is older than what it said before, or than it should be.
    Behind,
}

impl Fault {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Timeout,
        Self::Transport,
        Self::Status,
        Self::TooLarge,
        Self::Malformed,
        Self::Rpc,
        Self::Reverted,
        Self::Busy,
        Self::Aborted,
        Self::Mismatch,
        Self::Behind,
    ];

    /// The metric label and the word in the log: never rename one.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Rpc => "rpc",
            Self::Reverted => "reverted",
            Self::Busy => "busy",
            Self::Aborted => "aborted",
            Self::Mismatch => "mismatch",
            Self::Behind => "behind",
        }
    }
}

/// A failure, and what the log should say of it. The text names no address of ours and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", fault.as_str())]
pub struct Failed {
    /// Its kind.
    pub fault: Fault,
    /// What happened, for the operator.
    pub detail: String,
}

impl Failed {
    /// A failure.
    pub fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self { fault, detail: detail.into() }
    }
}

/// Questions that really went out, counted for the metrics.
#[derive(Debug, Default)]
pub struct Calls {
    /// Gauge: under way.
    pub in_flight: AtomicUsize,
    /// Answered, with whatever.
    pub answered: AtomicU64,
    /// What all finished ones took together, in microseconds.
    pub micros: AtomicU64,
    failed: [AtomicU64; Fault::ALL.len()],
}

impl Calls {
    /// How many failed in this way.
    #[must_use]
    pub fn failed(&self, fault: Fault) -> u64 {
        self.failed.get(fault as usize).map_or(0, |count| count.load(Relaxed))
    }

    pub(super) fn begin(&self) -> Call<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        Call { calls: self, began: Instant::now() }
    }
}

/// One question under way.
pub(super) struct Call<'a> {
    calls: &'a Calls,
    began: Instant,
}

impl Call<'_> {
    pub(super) fn end(self, failed: Option<&Failed>) {
        let counter = match failed {
            None => Some(&self.calls.answered),
            Some(failed) => self.calls.failed.get(failed.fault as usize),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
        self.calls.micros.fetch_add(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.calls.in_flight.fetch_sub(1, Relaxed);
    }
}
