use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;

use super::*;

/// A source that answers what it is told to, when the gate lets it, and counts.
struct Source {
    asked: AtomicUsize,
    answer: Mutex<Result<Option<u32>, Fault>>,
    gate: Semaphore,
}

impl Source {
    fn set(&self, answer: Result<Option<u32>, Fault>) {
        *self.answer.lock() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    fn open(&self) {
        self.gate.add_permits(1_000_000);
    }
}

struct Fixture {
    cache: Cache<u32, u32>,
    source: Arc<Source>,
    clock: Clock,
}

const SECOND: Duration = Duration::from_secs(1);

fn options() -> Options {
    Options {
        capacity: 1000,
        fresh_for: 10 * SECOND,
        stale_for: 100 * SECOND,
        negative_for: 5 * SECOND,
        retry_after: SECOND,
        retry_after_most: 30 * SECOND,
        fetch_timeout: 60 * SECOND,
        wait: 60 * SECOND,
        waiters: 2000,
        fetches: 4,
        unvouched: Limit { per_second: NonZeroU32::new(2).unwrap(), burst: 3 },
    }
}

/// A cache over a source that knows 7 of everything; the gate is closed.
fn closed(options: Options) -> Fixture {
    let source =
        Arc::new(Source { asked: AtomicUsize::new(0), answer: Mutex::new(Ok(Some(7))), gate: Semaphore::new(0) });
    let clock = Clock::manual();
    let fetch = {
        let source = Arc::clone(&source);
        move |_| -> Fetch<u32> {
            let source = Arc::clone(&source);
            Box::pin(async move {
                source.asked.fetch_add(1, SeqCst);
                source.gate.acquire().await.unwrap().forget();
                source.answer.lock().map_err(|fault| Failed::new(fault, "as told"))
            })
        }
    };
    let cache = Cache::new(Dependency::Marketplace, options, clock.clone(), Handle::current(), fetch);
    Fixture { cache, source, clock }
}

fn open(options: Options) -> Fixture {
    let fixture = closed(options);
    fixture.source.open();
    fixture
}

impl Fixture {
    async fn get(&self, key: u32) -> Result<Option<u32>, Unanswered> {
        self.cache.get(&key).await.map(|answer| answer.as_deref().copied())
    }

    fn peek(&self, key: u32) -> Peek<u32> {
        self.cache.peek(&key, self.cache.now())
    }

    fn in_background(&self, key: u32) -> tokio::task::JoinHandle<Result<Option<u32>, Unanswered>> {
        let cache = self.cache.clone();
        tokio::spawn(async move { cache.get(&key).await.map(|answer| answer.as_deref().copied()) })
    }

    fn statistics(&self) -> &Statistics {
        self.cache.statistics()
    }

    fn waiting(&self) -> usize {
        self.statistics().waiting.load(SeqCst)
    }

    /// Nothing is under way any more.
    async fn settle(&self) {
        until(|| self.cache.0.flights.lock().is_empty()).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    timeout(10 * SECOND, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the condition never came true");
}

fn unavailable(fault: Fault) -> Result<Option<u32>, Unanswered> {
    Err(Unanswered::Unavailable(fault))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_cause_one_fetch() {
    let fixture = closed(options());
    let callers: Vec<_> = (0..1000).map(|_| fixture.in_background(1)).collect();
    until(|| fixture.waiting() == 1000).await;
    fixture.source.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(Some(7)));
    }
    assert_eq!(fixture.source.asked(), 1);
    assert_eq!(fixture.waiting(), 0);
    assert_eq!(fixture.statistics().fetches.answered.load(SeqCst), 1);
    assert_eq!(fixture.statistics().fetches.in_flight.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_come_while_the_fetch_lands_cause_no_second_one() {
    for _ in 0..200 {
        let fixture = open(options());
        let callers: Vec<_> = (0..20).map(|_| fixture.in_background(1)).collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Ok(Some(7)));
        }
        assert_eq!(fixture.source.asked(), 1);
    }
}

#[tokio::test]
async fn a_value_is_fresh_then_stale_then_gone() {
    let fixture = open(options());
    assert!(matches!(fixture.peek(1), Peek::Missing));
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.source.set(Ok(Some(8)));

    fixture.clock.advance(Duration::from_millis(9_999));
    assert!(matches!(fixture.peek(1), Peek::Fresh(Some(value)) if *value == 7));
    fixture.settle().await;
    assert_eq!(fixture.source.asked(), 1);

    fixture.clock.advance(Duration::from_millis(1));
    assert!(matches!(fixture.peek(1), Peek::Stale(value) if *value == 7));
    fixture.settle().await;
    assert!(matches!(fixture.peek(1), Peek::Fresh(Some(value)) if *value == 8));

    fixture.clock.advance(100 * SECOND);
    assert!(matches!(fixture.peek(1), Peek::Missing));
    fixture.source.set(Ok(Some(9)));
    assert_eq!(fixture.get(1).await, Ok(Some(9)), "what is too old is not answered");
    assert_eq!(fixture.source.asked(), 3);
}

#[tokio::test]
async fn a_stale_value_is_answered_at_once_while_one_refresh_runs() {
    let fixture = closed(options());
    fixture.source.gate.add_permits(1);
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.clock.advance(10 * SECOND);
    for _ in 0..100 {
        assert_eq!(fixture.get(1).await, Ok(Some(7)), "would hang if it waited for the closed gate");
    }
    until(|| fixture.source.asked() == 2).await;
    fixture.source.set(Ok(Some(8)));
    fixture.source.open();
    fixture.settle().await;
    assert_eq!(fixture.get(1).await, Ok(Some(8)));
    assert_eq!(fixture.source.asked(), 2);
    assert_eq!(fixture.statistics().stale.load(SeqCst), 100);
}

#[tokio::test]
async fn a_callers_age_counts_from_the_question_not_from_the_answer() {
    let fixture = closed(options());
    let caller = fixture.in_background(1);
    until(|| fixture.source.asked() == 1).await;
    fixture.clock.advance(9 * SECOND);
    fixture.source.open();
    assert_eq!(caller.await.unwrap(), Ok(Some(7)));
    fixture.clock.advance(SECOND);
    assert!(matches!(fixture.peek(1), Peek::Stale(_)));
}

#[tokio::test]
async fn while_the_source_is_down_stale_values_serve_and_nothing_else_does() {
    let fixture = open(options());
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.source.set(Err(Fault::Transport));

    fixture.clock.advance(10 * SECOND);
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.settle().await;
    assert_eq!(fixture.get(1).await, Ok(Some(7)), "a failed refresh does not take the value away");
    fixture.settle().await;
    assert_eq!(fixture.source.asked(), 2, "and is not repeated at once");
    fixture.clock.advance(SECOND);
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.settle().await;
    assert_eq!(fixture.source.asked(), 3, "but after a while");

    fixture.clock.advance(89 * SECOND);
    assert_eq!(fixture.get(1).await, unavailable(Fault::Transport));
    assert_eq!(fixture.get(2).await, unavailable(Fault::Transport), "what was never known is not known to be absent");

    fixture.source.set(Ok(Some(8)));
    fixture.clock.advance(30 * SECOND);
    assert_eq!(fixture.get(1).await, Ok(Some(8)));
    assert_eq!(fixture.get(2).await, Ok(Some(8)));
}

#[tokio::test]
async fn a_failure_is_remembered_longer_each_time_until_an_answer_comes() {
    let fixture = open(options());
    fixture.source.set(Err(Fault::Status));
    let mut asked = 0;
    //  seconds to wait after each failure
    for rest in [1_u64, 2, 4, 8, 16, 30, 30] {
        assert_eq!(fixture.get(1).await, unavailable(Fault::Status));
        asked += 1;
        assert_eq!(fixture.source.asked(), asked);
        fixture.clock.advance(Duration::from_nanos(rest * 1_000_000_000 - 1));
        assert_eq!(fixture.get(1).await, unavailable(Fault::Status));
        assert_eq!(fixture.source.asked(), asked, "asked again before {rest} s");
        fixture.clock.advance(Duration::from_nanos(1));
    }
    fixture.source.set(Ok(Some(7)));
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.source.set(Err(Fault::Status));
    fixture.clock.advance(100 * SECOND);
    assert_eq!(fixture.get(1).await, unavailable(Fault::Status));
    fixture.clock.advance(SECOND);
    fixture.source.set(Ok(Some(8)));
    assert_eq!(fixture.get(1).await, Ok(Some(8)), "the count starts anew after an answer");
    assert_eq!(fixture.statistics().remembered.load(SeqCst), 7);
    assert_eq!(fixture.statistics().fetches.failed(Fault::Status), 8);
}

#[tokio::test]
async fn no_such_thing_is_an_answer_for_a_while() {
    let fixture = open(options());
    fixture.source.set(Ok(None));
    assert_eq!(fixture.get(1).await, Ok(None));
    fixture.source.set(Ok(Some(7)));
    fixture.clock.advance(Duration::from_millis(4_999));
    assert_eq!(fixture.get(1).await, Ok(None));
    assert!(matches!(fixture.peek(1), Peek::Fresh(None)));
    assert_eq!(fixture.source.asked(), 1);
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
}

#[tokio::test]
async fn an_old_no_is_not_believed_when_the_source_is_down() {
    let fixture = open(options());
    fixture.source.set(Ok(None));
    assert_eq!(fixture.get(1).await, Ok(None));
    fixture.source.set(Err(Fault::Timeout));
    fixture.clock.advance(5 * SECOND);
    assert_eq!(fixture.get(1).await, unavailable(Fault::Timeout));
}

#[tokio::test]
async fn a_value_that_disappears_is_gone_after_the_refresh() {
    let fixture = open(options());
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.source.set(Ok(None));
    fixture.clock.advance(10 * SECOND);
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    fixture.settle().await;
    assert_eq!(fixture.get(1).await, Ok(None));
}

#[tokio::test]
async fn a_fetch_outlives_the_caller_that_caused_it() {
    let fixture = closed(options());
    let first = fixture.in_background(1);
    until(|| fixture.source.asked() == 1).await;
    let second = fixture.in_background(1);
    until(|| fixture.waiting() == 2).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(fixture.waiting(), 1, "who leaves gives the place back");
    fixture.source.open();
    assert_eq!(second.await.unwrap(), Ok(Some(7)));
    assert_eq!(fixture.source.asked(), 1);

    let fixture = closed(options());
    let only = fixture.in_background(1);
    until(|| fixture.source.asked() == 1).await;
    only.abort();
    let _ = only.await;
    fixture.source.open();
    fixture.settle().await;
    assert!(matches!(fixture.peek(1), Peek::Fresh(Some(_))), "even when nobody waits");
}

#[tokio::test]
async fn no_more_is_kept_than_allowed() {
    let fixture = open(Options { capacity: 100, ..options() });
    for key in 0..5_000 {
        assert_eq!(fixture.get(key).await, Ok(Some(7)));
    }
    assert!(fixture.cache.len() <= 128, "{} entries", fixture.cache.len());
    assert!(!fixture.cache.is_empty());
}

#[tokio::test]
async fn failures_are_bounded_too() {
    let fixture = open(Options { capacity: 100, ..options() });
    fixture.source.set(Err(Fault::Transport));
    for key in 0..5_000 {
        assert_eq!(fixture.get(key).await, unavailable(Fault::Transport));
    }
    assert!(fixture.cache.len() <= 128, "{} entries", fixture.cache.len());
}

#[tokio::test]
async fn unknown_keys_of_strangers_are_limited() {
    let fixture = open(options());
    let limited = |seconds: f64| Err(Unanswered::Limited { retry_after: Duration::from_secs_f64(seconds) });
    let get = async |key| fixture.cache.get_unvouched(&key).await.map(|answer| answer.as_deref().copied());
    for key in 0..3 {
        assert_eq!(get(key).await, Ok(Some(7)));
    }
    assert_eq!(get(3).await, limited(0.5));
    assert_eq!(get(0).await, Ok(Some(7)), "what is known is free");
    assert_eq!(fixture.get(4).await, Ok(Some(7)), "who is vouched for does not suffer");
    fixture.clock.advance(SECOND / 4);
    assert_eq!(get(3).await, limited(0.25));
    fixture.clock.advance(SECOND / 4);
    assert_eq!(get(3).await, Ok(Some(7)));
    assert_eq!(get(5).await, limited(0.5));
    assert_eq!(fixture.source.asked(), 5);
    assert_eq!(fixture.statistics().limited.load(SeqCst), 3);
}

#[tokio::test]
async fn joining_a_question_under_way_costs_a_stranger_nothing() {
    let fixture = closed(options());
    let ask = |key| {
        let cache = fixture.cache.clone();
        tokio::spawn(async move { cache.get_unvouched(&key).await })
    };
    let callers: Vec<_> = (0..100).map(|_| ask(1)).collect();
    until(|| fixture.waiting() == 100).await;
    fixture.source.open();
    for caller in callers {
        assert!(caller.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn waiters_are_bounded() {
    let fixture = closed(Options { waiters: 10, ..options() });
    let callers: Vec<_> = (0..10).map(|_| fixture.in_background(1)).collect();
    until(|| fixture.waiting() == 10).await;
    assert_eq!(fixture.get(1).await, unavailable(Fault::Busy));
    assert_eq!(fixture.get(2).await, unavailable(Fault::Busy));
    assert_eq!(fixture.statistics().busy.load(SeqCst), 2);
    fixture.source.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(Some(7)));
    }
    assert_eq!(fixture.get(2).await, Ok(Some(7)), "being busy is not remembered against the key");
}

#[tokio::test]
async fn questions_left_by_cancelled_callers_are_bounded() {
    let fixture = closed(Options { waiters: 10, ..options() });
    for key in 0..10 {
        let caller = fixture.in_background(key);
        until(|| fixture.waiting() == 1).await;
        caller.abort();
        let _ = caller.await;
    }
    assert_eq!(fixture.get(10).await, unavailable(Fault::Busy));
    fixture.source.open();
    fixture.settle().await;
    assert_eq!(fixture.get(10).await, Ok(Some(7)));
}

#[tokio::test]
async fn only_so_many_fetches_run_at_a_time() {
    let fixture = closed(options());
    let callers: Vec<_> = (0..50).map(|key| fixture.in_background(key)).collect();
    until(|| fixture.waiting() == 50 && fixture.source.asked() == 4).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.source.asked(), 4);
    assert_eq!(fixture.statistics().fetches.in_flight.load(SeqCst), 4);
    fixture.source.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(Some(7)));
    }
    assert_eq!(fixture.source.asked(), 50);
}

#[tokio::test]
async fn a_source_that_never_answers_is_given_up() {
    let fixture = closed(Options { fetch_timeout: Duration::from_millis(20), ..options() });
    assert_eq!(fixture.get(1).await, unavailable(Fault::Timeout));
    assert_eq!(fixture.get(1).await, unavailable(Fault::Timeout));
    assert_eq!(fixture.source.asked(), 1, "the second caller did not wait");
}

#[tokio::test]
async fn a_caller_gives_up_before_the_fetch_does() {
    let fixture = closed(Options { wait: Duration::from_millis(20), ..options() });
    assert_eq!(fixture.get(1).await, unavailable(Fault::Timeout));
    fixture.source.open();
    fixture.settle().await;
    assert_eq!(fixture.get(1).await, Ok(Some(7)));
    assert_eq!(fixture.source.asked(), 1);
}

#[tokio::test]
async fn a_question_whose_turn_does_not_come_is_dropped() {
    let fixture = closed(Options { wait: Duration::from_millis(20), fetches: 1, ..options() });
    let first = fixture.in_background(1);
    until(|| fixture.source.asked() == 1).await;
    assert!(fixture.get(2).await.is_err());
    until(|| fixture.cache.0.flights.lock().len() == 1).await;
    assert_eq!(fixture.source.asked(), 1);
    assert!(first.await.unwrap().is_err());
}

#[tokio::test]
async fn a_source_that_panics_is_a_failure() {
    let fetch = |_: u32| -> Fetch<u32> { Box::pin(async { panic!("as told") }) };
    let cache = Cache::new(Dependency::Chain, options(), Clock::manual(), Handle::current(), fetch);
    assert_eq!(cache.get(&1).await, Err(Unanswered::Unavailable(Fault::Aborted)));
    assert!(cache.0.flights.lock().is_empty());
    assert_eq!(cache.statistics().fetches.in_flight.load(SeqCst), 0);
}

#[test]
fn a_runtime_that_has_ended_is_a_failure() {
    let ours = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let theirs = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let cache = {
        let _inside = theirs.enter();
        open(options()).cache
    };
    drop(theirs);
    assert_eq!(ours.block_on(cache.get(&1)), Err(Unanswered::Unavailable(Fault::Aborted)));
    assert!(cache.0.flights.lock().is_empty());
}

proptest! {
    /// Whatever the times of asking, no window holds more than the burst and what came back during it.
    #[test]
    fn a_bucket_never_gives_more_than_its_rate(
        per_second in 1_u32..2000, burst in 0_u32..50, gaps in proptest::collection::vec(0_u64..20_000_000, 1..300),
    ) {
        let start = Instant::now();
        let bucket = Bucket::new(Limit { per_second: per_second.try_into().unwrap(), burst }, start);
        let mut now = start;
        let mut taken: Vec<Instant> = Vec::new();
        for gap in gaps {
            now += Duration::from_nanos(gap);
            match bucket.take(now) {
                Ok(()) => taken.push(now),
                Err(retry_after) => {
                    prop_assert!(!retry_after.is_zero() && (burst == 0 || retry_after <= Duration::from_secs(1)));
                }
            }
        }
        for (i, from) in taken.iter().enumerate() {
            for (j, to) in taken.iter().enumerate().skip(i) {
                let back = to.duration_since(*from).as_nanos() / u128::from(1_000_000_000 / per_second);
                prop_assert!((j - i + 1) as u128 <= u128::from(burst) + back, "{} of {burst} and {back}", j - i + 1);
            }
        }
    }
}
