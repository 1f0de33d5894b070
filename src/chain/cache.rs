//! A cache of questions to a slow, unreliable outside.
//!
//! - What is *fresh* is answered at once, without waiting, allocating, or taking a lock that all keys share.
//! - What is *stale* is answered at once too, while one refresh runs in the background.
//! - What is missing or too old is asked for once, however many wait for it. The fetch runs on a runtime of its own and
//!   so outlives the request that caused it.
//! - "There is no such thing" is an answer, and kept. A failure is not: it is remembered for a short while, longer each
//!   time, so that a dead source is left in peace and callers hear of it at once.
//! - Everything is bounded: entries, waiters, questions under way, and how many unknown keys may be asked for by
//!   callers nobody vouches for.

use std::{
    collections::HashMap,
    fmt::Debug,
    future::Future,
    hash::Hash,
    num::{NonZeroU32, NonZeroU64},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::timeout,
};

use super::fault::{Calls, Failed, Fault};
use crate::model::decision::Dependency;

/// What a source knows: a value, or for certain that there is none.
pub type Answer<V> = Option<Arc<V>>;

/// How long answers are good, and how much is done at a time.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most answers kept. Somewhat more may be kept for a moment.
    pub capacity: usize,
    /// How long a value is answered without asking again.
    pub fresh_for: Duration,
    /// How long, counted from the same moment, a value is answered while it is asked for again.
    pub stale_for: Duration,
    /// How long "there is no such thing" is believed.
    pub negative_for: Duration,
    /// How long after a failure the source is left in peace. Doubles with each further one.
    pub retry_after: Duration,
    /// Where the doubling ends.
    pub retry_after_most: Duration,
    /// The longest one fetch may take.
    pub fetch_timeout: Duration,
    /// The longest a caller waits, for its turn and for the fetch.
    pub wait: Duration,
    /// The most callers waiting, and the most keys being asked for or queued.
    pub waiters: usize,
    /// The most fetches at one time.
    pub fetches: usize,
    /// How often a key that is not known may be asked for on behalf of callers nobody vouches for.
    pub unvouched: Limit,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            fresh_for: Duration::from_mins(1),
            stale_for: Duration::from_hours(1),
            negative_for: Duration::from_secs(30),
            retry_after: Duration::from_secs(1),
            retry_after_most: Duration::from_secs(30),
            fetch_timeout: Duration::from_secs(5),
            wait: Duration::from_secs(6),
            waiters: 10_000,
            fetches: 16,
            unvouched: Limit { per_second: NonZeroU32::MIN.saturating_add(4), burst: 50 },
        }
    }
}

/// A rate: so many a second on average, and so many at once after a quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The average.
    pub per_second: NonZeroU32,
    /// The most at once. Zero: none, ever.
    pub burst: u32,
}

/// What is known now.
#[derive(Debug)]
pub enum Peek<V> {
    /// Good.
    Fresh(Answer<V>),
    /// Good enough; a refresh has been started, or has failed a moment ago.
    Stale(Arc<V>),
    /// Nothing that could be used.
    Missing,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The source did not answer. It may or may not know such a thing.
    Unavailable(Fault),
    /// Too many questions about unknown keys.
    Limited {
        /// When to try again.
        retry_after: Duration,
    },
}

/// What time it is: the machine's steady clock, or in tests whatever they say.
#[derive(Clone, Debug)]
pub enum Clock {
    /// [`Instant::now`].
    Steady,
    /// A fixed moment and the nanoseconds that a test has let pass since.
    Manual(Instant, Arc<AtomicU64>),
}

impl Clock {
    /// A clock that stands still.
    #[must_use]
    pub fn manual() -> Self {
        Self::Manual(Instant::now(), Arc::new(AtomicU64::new(0)))
    }

    /// Lets time pass on a manual clock.
    pub fn advance(&self, duration: Duration) {
        if let Self::Manual(_, passed) = self {
            passed.fetch_add(nanos(duration), Relaxed);
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        match self {
            Self::Steady => Instant::now(),
            Self::Manual(start, passed) => *start + Duration::from_nanos(passed.load(Relaxed)),
        }
    }
}

/// What has happened, for the metrics. Each number only grows, except the gauges.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Questions answered with a fresh value.
    pub fresh: AtomicU64,
    /// Questions answered with a stale value.
    pub stale: AtomicU64,
    /// Questions answered with a remembered "no such thing".
    pub negative: AtomicU64,
    /// Questions that had no usable answer. A caller that peeks and then waits is counted twice.
    pub missing: AtomicU64,
    /// Questions refused by [`Options::unvouched`].
    pub limited: AtomicU64,
    /// Questions refused because of a remembered failure.
    pub remembered: AtomicU64,
    /// Questions refused because too many were waiting.
    pub busy: AtomicU64,
    /// Gauge: callers waiting.
    pub waiting: AtomicUsize,
    /// The fetches.
    pub fetches: Calls,
}

/// A question to the source: Ok(None) is a definite "no such thing".
pub type Fetch<V> = Pin<Box<dyn Future<Output = Result<Option<V>, Failed>> + Send>>;

type Source<K, V> = Box<dyn Fn(K) -> Fetch<V> + Send + Sync>;
type Outcome<V> = Result<Answer<V>, Fault>;
type Flight<V> = watch::Receiver<Option<Outcome<V>>>;

/// The cache. Clones share everything.
pub struct Cache<K, V>(Arc<Shared<K, V>>);

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<K, V> {
    dependency: Dependency,
    options: Options,
    clock: Clock,
    handle: Handle,
    source: Source<K, V>,
    entries: quick_cache::sync::Cache<K, Arc<Entry<V>>>,
    /// Keys being asked for. Never held across anything that waits.
    flights: Mutex<HashMap<K, Flight<V>>>,
    turns: Semaphore,
    unvouched: Bucket,
    statistics: Statistics,
}

/// What is remembered of a key. Replaced as a whole when a fetch lands.
struct Entry<V> {
    /// The last answer and when it was asked for.
    known: Option<(Answer<V>, Instant)>,
    /// What went wrong since.
    failure: Option<Failure>,
    /// Set by the caller that starts the refresh of a stale value, only to spare the others the list of flights, which
    /// is what makes it one refresh.
    refreshing: AtomicBool,
}

#[derive(Clone, Copy)]
struct Failure {
    fault: Fault,
    /// How many in a row.
    count: u32,
    until: Instant,
}

impl<V> Entry<V> {
    fn peek(&self, options: &Options, now: Instant) -> Peek<V> {
        match &self.known {
            Some((None, at)) if now.duration_since(*at) < options.negative_for => Peek::Fresh(None),
            Some((Some(value), at)) => {
                let age = now.duration_since(*at);
                if age < options.fresh_for {
                    Peek::Fresh(Some(Arc::clone(value)))
                } else if age < options.stale_for {
                    Peek::Stale(Arc::clone(value))
                } else {
                    Peek::Missing
                }
            }
            _ => Peek::Missing,
        }
    }

    /// The failure that makes asking again pointless for now.
    fn resting(&self, now: Instant) -> Option<Failure> {
        self.failure.filter(|failure| now < failure.until)
    }
}

impl<K, V> Cache<K, V>
where
    K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// An empty cache in front of `source`, which is asked on `handle`'s runtime.
    pub fn new(
        dependency: Dependency,
        options: Options,
        clock: Clock,
        handle: Handle,
        source: impl Fn(K) -> Fetch<V> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            dependency,
            entries: quick_cache::sync::Cache::new(options.capacity.max(1)),
            flights: Mutex::default(),
            turns: Semaphore::new(options.fetches.clamp(1, Semaphore::MAX_PERMITS)),
            unvouched: Bucket::new(options.unvouched, clock.now()),
            statistics: Statistics::default(),
            source: Box::new(source),
            options,
            clock,
            handle,
        }))
    }

    /// The time as this cache sees it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.clock.now()
    }

    /// What is known now. Never waits; starts a refresh in the background if the answer is stale.
    #[must_use]
    pub fn peek(&self, key: &K, now: Instant) -> Peek<V> {
        let shared = &*self.0;
        let statistics = &shared.statistics;
        let Some(entry) = shared.entries.get(key) else {
            statistics.missing.fetch_add(1, Relaxed);
            return Peek::Missing;
        };
        let peek = entry.peek(&shared.options, now);
        let counter = match &peek {
            Peek::Fresh(Some(_)) => &statistics.fresh,
            Peek::Fresh(None) => &statistics.negative,
            Peek::Stale(_) => &statistics.stale,
            Peek::Missing => &statistics.missing,
        };
        counter.fetch_add(1, Relaxed);
        if matches!(peek, Peek::Stale(_)) && entry.resting(now).is_none() && !entry.refreshing.swap(true, Relaxed) {
            // Unless a refresh has landed since we looked.
            let unchanged = || shared.entries.peek(key).is_some_and(|latest| Arc::ptr_eq(&latest, &entry));
            let may_ask = || if unchanged() { Ok(()) } else { Err(Err(Unanswered::Unavailable(Fault::Aborted))) };
            match self.join_or_launch(key, may_ask) {
                Ok(Joined::Launched(_, pilot)) => pilot.fly(),
                Ok(Joined::Other(_)) => {}
                Err(_) => entry.refreshing.store(false, Relaxed),
            }
        }
        peek
    }

    /// The answer, fetched if need be, for a key that somebody vouches for (it stood in a token that we could open).
    ///
    /// # Errors
    /// When the source does not answer, or has not a moment ago.
    pub async fn get(&self, key: &K) -> Result<Answer<V>, Unanswered> {
        self.look_up(key, true).await
    }

    /// As [`Self::get`], for a key that anybody may have made up.
    ///
    /// # Errors
    /// As [`Self::get`], and when too many unknown keys are asked for.
    pub async fn get_unvouched(&self, unverified_key: &K) -> Result<Answer<V>, Unanswered> {
        self.look_up(unverified_key, false).await
    }

    /// What has happened so far.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.0.statistics
    }

    /// How many answers and failures are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.entries.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    async fn look_up(&self, key: &K, vouched: bool) -> Result<Answer<V>, Unanswered> {
        let now = self.now();
        match self.peek(key, now) {
            Peek::Fresh(answer) => return Ok(answer),
            Peek::Stale(value) => return Ok(Some(value)),
            Peek::Missing => {}
        }
        let statistics = &self.0.statistics;
        let Some(_waiting) = Waiting::enter(&statistics.waiting, self.0.options.waiters) else {
            statistics.busy.fetch_add(1, Relaxed);
            return Err(Unanswered::Unavailable(Fault::Busy));
        };
        // A flight may have landed since we looked: it writes its entry before it leaves the list, so that an entry
        // seen while the list is held, and no flight on it, is the latest news.
        let may_ask = || match self.settled(key, now) {
            Some(settled) => Err(settled),
            None if vouched => Ok(()),
            None => self.0.unvouched.take(now).map_err(|retry_after| {
                statistics.limited.fetch_add(1, Relaxed);
                Err(Unanswered::Limited { retry_after })
            }),
        };
        let mut flight = match self.join_or_launch(key, may_ask) {
            Ok(Joined::Other(flight)) => flight,
            Ok(Joined::Launched(flight, pilot)) => {
                pilot.fly();
                flight
            }
            Err(settled) => return settled,
        };
        let landed = timeout(self.0.options.wait, flight.wait_for(Option::is_some)).await;
        match landed {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(Fault::Aborted)).map_err(Unanswered::Unavailable),
            Ok(Err(_)) => Err(Unanswered::Unavailable(Fault::Aborted)),
            Err(_) => Err(Unanswered::Unavailable(Fault::Timeout)),
        }
    }

    /// What the entry alone lets us answer without asking: something usable, or a failure too recent to try again.
    fn settled(&self, key: &K, now: Instant) -> Option<Result<Answer<V>, Unanswered>> {
        let entry = self.0.entries.peek(key)?;
        match entry.peek(&self.0.options, now) {
            Peek::Fresh(answer) => return Some(Ok(answer)),
            Peek::Stale(value) => return Some(Ok(Some(value))),
            Peek::Missing => {}
        }
        let failure = entry.resting(now)?;
        self.0.statistics.remembered.fetch_add(1, Relaxed);
        Some(Err(Unanswered::Unavailable(failure.fault)))
    }

    /// Joins the flight for a key, or makes one ready unless `may_ask` objects. The pilot is not sent off here: a
    /// runtime that is shutting down drops it on the spot, and its landing needs the list that is held here.
    fn join_or_launch(
        &self,
        key: &K,
        may_ask: impl FnOnce() -> Result<(), Result<Answer<V>, Unanswered>>,
    ) -> Result<Joined<K, V>, Result<Answer<V>, Unanswered>> {
        let mut flights = self.0.flights.lock();
        if let Some(flight) = flights.get(key) {
            return Ok(Joined::Other(flight.clone()));
        }
        may_ask()?;
        if flights.len() >= self.0.options.waiters {
            self.0.statistics.busy.fetch_add(1, Relaxed);
            return Err(Err(Unanswered::Unavailable(Fault::Busy)));
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver.clone());
        let pilot = Pilot { cache: self.clone(), key: key.clone(), sender, began: self.now(), landed: false };
        Ok(Joined::Launched(receiver, pilot))
    }
}

enum Joined<K, V>
where
    K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    Other(Flight<V>),
    Launched(Flight<V>, Pilot<K, V>),
}

/// The one who brings a fetch home: writes what came of it, tells the waiters, and leaves the list, in this order.
/// Dropped without having landed (a panic, the end of the runtime), that is what came of it.
struct Pilot<K, V>
where
    K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    cache: Cache<K, V>,
    key: K,
    sender: watch::Sender<Option<Outcome<V>>>,
    began: Instant,
    landed: bool,
}

impl<K, V> Pilot<K, V>
where
    K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn fly(self) {
        let handle = self.cache.0.handle.clone();
        handle.spawn(self.flight());
    }

    async fn flight(mut self) {
        let shared = Arc::clone(&self.cache.0);
        // Whoever caused this has given up after `wait`: without the limit a dead source would leave a long queue of
        // questions that nobody asks any more.
        let Ok(Ok(_turn)) = timeout(shared.options.wait, shared.turns.acquire()).await else {
            return self.land(Err(Failed::new(Fault::Busy, "too many look-ups are waiting for their turn")));
        };
        self.began = shared.clock.now();
        let call = shared.statistics.fetches.begin();
        let fetched = timeout(shared.options.fetch_timeout, (shared.source)(self.key.clone())).await;
        let fetched = fetched.unwrap_or_else(|_| Err(Failed::new(Fault::Timeout, "no answer in time")));
        call.end(fetched.as_ref().err());
        self.land(fetched);
    }

    fn land(&mut self, fetched: Result<Option<V>, Failed>) {
        self.landed = true;
        let shared = &*self.cache.0;
        let now = shared.clock.now();
        let (entry, outcome) = match fetched {
            Ok(value) => {
                let answer = value.map(Arc::new);
                (
                    Entry {
                        known: Some((answer.clone(), self.began)),
                        failure: None,
                        refreshing: AtomicBool::new(false),
                    },
                    Ok(answer),
                )
            }
            Err(failed) => {
                tracing::warn!(
                    dependency = shared.dependency.as_str(), key = ?self.key, fault = failed.fault.as_str(), detail = failed.detail,
                    "a look-up failed",
                );
                let before = shared.entries.peek(&self.key);
                let count = before.as_ref().and_then(|entry| entry.failure).map_or(0, |failure| failure.count);
                let rest =
                    shared.options.retry_after.saturating_mul(1 << count.min(16)).min(shared.options.retry_after_most);
                let failure = Failure {
                    fault: failed.fault,
                    count: count.saturating_add(1),
                    until: now.checked_add(rest).unwrap_or(now),
                };
                let known = before.and_then(|entry| entry.known.clone());
                (Entry { known, failure: Some(failure), refreshing: AtomicBool::new(false) }, Err(failed.fault))
            }
        };
        shared.entries.insert(self.key.clone(), Arc::new(entry));
        self.sender.send_replace(Some(outcome));
        shared.flights.lock().remove(&self.key);
    }
}

impl<K, V> Drop for Pilot<K, V>
where
    K: Eq + Hash + Clone + Debug + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if !self.landed {
            self.land(Err(Failed::new(Fault::Aborted, "the look-up was cut off")));
        }
    }
}

/// A place among the waiters, given back when the caller leaves, also when it is cut off.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        count.try_update(Relaxed, Relaxed, |count| (count < most).then_some(count + 1)).ok()?;
        Some(Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A token bucket kept in one number: the moment at which it will be full again (the "generic cell rate algorithm").
struct Bucket {
    start: Instant,
    /// Nanoseconds since `start`.
    full_at: AtomicU64,
    /// What one token takes to come back.
    interval: u64,
    /// How far ahead of now `full_at` may be.
    depth: u64,
}

impl Bucket {
    fn new(limit: Limit, start: Instant) -> Self {
        let interval = 1_000_000_000 / NonZeroU64::from(limit.per_second);
        Self { start, full_at: AtomicU64::new(0), interval, depth: interval.saturating_mul(u64::from(limit.burst)) }
    }

    /// Takes a token, or says when there will be one.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.duration_since(self.start));
        let next = |full_at: u64| full_at.max(now).saturating_add(self.interval);
        let allowed = |full_at: u64| next(full_at).saturating_sub(now) <= self.depth;
        match self.full_at.try_update(Relaxed, Relaxed, |full_at| allowed(full_at).then(|| next(full_at))) {
            Ok(_) => Ok(()),
            Err(full_at) => Err(Duration::from_nanos(next(full_at).saturating_sub(now).saturating_sub(self.depth))),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
