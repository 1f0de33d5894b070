//! The spool: what is appended is delivered, whatever happens in between.

use std::{collections::BTreeSet, os::unix::fs::FileExt, time::Instant};

use super::{segment::HEADER, *};
use crate::model::{
    credits::Credits,
    usage::tests::{on, sample},
};

fn options(directory: &Path) -> SpoolOptions {
    SpoolOptions {
        directory: directory.to_owned(),
        max_bytes: 1 << 20,
        segment_bytes: LEAST_SEGMENT,
        sync_interval: Duration::from_millis(20),
        shards: 2,
    }
}

/// The first half of a crash: what is on disk at this moment, without the lock.
fn as_the_dead_process_left_it(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Files of a living spool may be removed while we look.
        let _ = std::fs::copy(&path, copy.path().join(path.file_name().unwrap()));
    }
    copy
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        std::thread::yield_now();
    }
}

fn segments_in(directory: &Path) -> usize {
    std::fs::read_dir(directory)
        .unwrap()
        .filter(|entry| segment::sequence_of(&entry.as_ref().unwrap().path()).is_some())
        .count()
}

#[test]
fn events_are_delivered_until_they_are_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    assert!(spool.next_batch(10).unwrap().is_empty());
    for number in 0..5 {
        spool.append(&sample(number).record()).unwrap();
    }
    let batch = spool.next_batch(3).unwrap();
    assert_eq!(batch.events, (0..3).map(sample).collect::<Vec<_>>());
    assert_eq!(spool.next_batch(3).unwrap().events, batch.events, "not acknowledged");
    assert_eq!(spool.stats().oldest_at_micros, Some(sample(0).at_micros));
    spool.ack(batch);
    let batch = spool.next_batch(3).unwrap();
    let same = spool.next_batch(3).unwrap();
    assert_eq!(batch.events, (3..5).map(sample).collect::<Vec<_>>());
    spool.ack(batch);
    spool.ack(same);
    let stats = spool.stats();
    assert_eq!(
        (stats.depth, stats.bytes, stats.appended_total, stats.acked_total, stats.oldest_at_micros),
        (0, 0, 5, 5, None)
    );
}

#[test]
fn what_a_killed_process_had_appended_is_delivered_by_the_next_and_what_it_had_acknowledged_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    for number in 0..500 {
        spool.append(&sample(number).record()).unwrap();
    }
    spool.ack(spool.next_batch(3).unwrap());
    let left = as_the_dead_process_left_it(directory.path());

    let next = Spool::open(&options(left.path())).unwrap();
    assert_eq!((next.stats().recovered_total, next.recovered_left(), next.recovered_drained()), (497, 497, false));
    next.append(&sample(1000).record()).unwrap();
    let batch = next.next_batch(10_000).unwrap();
    let mut numbers: Vec<_> = batch.events.iter().map(|event| event.event_id.as_u64_pair().1).collect();
    assert_eq!(numbers.pop(), Some(1000), "those of the earlier run first");
    // Files are numbered when they are made, a few ahead, and used as threads happen to need them.
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(3..500), "{numbers:?}");
    next.ack(batch);
    assert!(next.recovered_drained());
    eventually("finished files are removed", || segments_in(left.path()) <= 1 + STANDBY);
    let after = as_the_dead_process_left_it(left.path());
    assert_eq!(Spool::open(&options(after.path())).unwrap().stats().recovered_total, 0);
}

#[test]
fn a_directory_belongs_to_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    assert!(matches!(Spool::open(&options(directory.path())), Err(SpoolError::Locked(_))));
    drop(spool);
    Spool::open(&options(directory.path())).unwrap();
}

#[test]
fn a_maximum_that_holds_too_few_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error =
        Spool::open(&SpoolOptions { max_bytes: LEAST_SEGMENT * 4 - 1, ..options(directory.path()) }).unwrap_err();
    assert!(matches!(error, SpoolError::TooSmall { least, .. } if least == LEAST_SEGMENT * 4), "{error}");
}

#[test]
fn whoever_was_promised_room_finds_it_from_any_thread_and_nobody_else_is_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    // As large as they come, so that every promise is used to the full.
    let large = |number| {
        let event =
            UsageEvent { endpoint: "x".repeat(10_000).into(), method: "m".repeat(750).into(), ..sample(number) };
        // Another holder each time: no terms are said twice.
        let owner = format!("{number:o>1024}");
        on(event, |terms| (terms.owner, terms.user_id) = (owner.into(), "u".repeat(1024).into()))
    };
    let mut reserved = Vec::new();
    while let Ok(reservation) = spool.reserve() {
        reserved.push(reservation);
    }
    assert!(matches!(spool.reserve(), Err(SpoolError::Full)));
    assert!(!spool.is_writable());
    assert!(spool.stats().allocated_bytes <= 1 << 20);
    assert!(spool.stats().refused_total >= 2);
    let count = u64::try_from(reserved.len()).unwrap();
    assert!(count >= 200, "{count}");
    // All of it through few threads, so that promises are kept out of other shards' files too.
    let per_thread = reserved.len() / 3;
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let mine: Vec<_> = reserved.drain(..per_thread).collect();
            scope.spawn(move || {
                for (number, reservation) in mine.into_iter().enumerate() {
                    reservation.append(&large(thread * 1000 + number as u64).record()).unwrap();
                }
            });
        }
    });
    for (number, reservation) in reserved.into_iter().enumerate() {
        reservation.append(&large(9000 + number as u64).record()).unwrap();
    }
    assert_eq!(spool.stats().dropped_total, 0);
    let batch = spool.next_batch(10_000).unwrap();
    assert_eq!(batch.events.iter().map(|event| event.event_id).collect::<BTreeSet<_>>().len() as u64, count);
    spool.ack(batch);
    eventually("room again by itself", || spool.is_writable());
    spool.append(&sample(1).record()).unwrap();
}

#[test]
fn promises_that_are_not_used_are_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    for _ in 0..100_000 {
        drop(spool.reserve().unwrap());
    }
    assert_eq!(spool.depth(), 0);
}

#[test]
fn many_threads_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&SpoolOptions { max_bytes: 64 << 20, ..options(directory.path()) }).unwrap();
    let seen = std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            let spool = spool.clone();
            scope.spawn(move || {
                for number in 0..2_000 {
                    spool.append(&sample(thread * 10_000 + number).record()).unwrap();
                }
            });
        }
        let mut seen = BTreeSet::new();
        let start = Instant::now();
        while seen.len() < 12_000 {
            assert!(start.elapsed() < Duration::from_mins(1), "{} of 12000", seen.len());
            let batch = spool.next_batch(700).unwrap();
            seen.extend(batch.events.iter().map(|event| event.event_id));
            spool.ack(batch);
        }
        seen
    });
    assert_eq!((seen.len(), spool.depth(), spool.stats().bytes), (12_000, 0, 0));
    eventually("finished files are removed", || segments_in(directory.path()) <= 2 + STANDBY + 1);
}

fn of_holder(number: u64, holder: u64) -> UsageEvent {
    on(sample(number), |terms| terms.user_id = format!("0x{holder:040}").into())
}

#[test]
fn a_file_says_the_terms_of_a_holder_once() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    let events: Vec<_> = (0..60).map(|number| of_holder(number, number % 3)).collect();
    let mut sizes = Vec::new();
    for event in &events {
        let before = spool.stats().bytes;
        spool.append(&event.record()).unwrap();
        sizes.push(spool.stats().bytes - before);
    }
    let (first, again) = sizes.split_at(3);
    assert!(again.iter().all(|size| size * 2 < first[0]), "{sizes:?}");
    // What is acknowledged is still what later records refer to, in this process and in the next.
    let batch = spool.next_batch(20).unwrap();
    assert_eq!(batch.events, events[..20]);
    spool.ack(batch);
    assert_eq!(spool.next_batch(100).unwrap().events, events[20..]);
    let left = as_the_dead_process_left_it(directory.path());
    let spool = Spool::open(&options(left.path())).unwrap();
    assert_eq!(spool.stats().oldest_at_micros, Some(events[20].at_micros));
    let batch = spool.next_batch(100).unwrap();
    assert_eq!((batch.events.as_slice(), batch.unreadable.len()), (&events[20..], 0));
}

#[test]
fn more_holders_than_are_remembered_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let large = SpoolOptions { max_bytes: 32 << 20, segment_bytes: 4 << 20, ..options(directory.path()) };
    let spool = Spool::open(&large).unwrap();
    let holders = said::MOST as u64 + 50;
    let events: Vec<_> = (0..2 * holders).map(|number| of_holder(number, number % holders)).collect();
    for event in &events {
        spool.append(&event.record()).unwrap();
    }
    assert_eq!(spool.next_batch(events.len()).unwrap().events, events);
}

#[test]
fn events_whose_terms_are_damaged_are_set_aside_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    spool.append(&of_holder(0, 0).record()).unwrap();
    spool.ack(spool.next_batch(1).unwrap());
    for number in 1..9 {
        spool.append(&of_holder(number, number % 2).record()).unwrap();
    }
    let path = spool.inner.segments.lock().front().map(|segment| segment.path.clone()).unwrap();
    File::options().write(true).open(path).unwrap().write_all_at(b"damage", HEADER + 20).unwrap();
    let batch = spool.next_batch(10).unwrap();
    assert_eq!(
        batch.events,
        (1..9).filter(|number| number % 2 == 1).map(|number| of_holder(number, 1)).collect::<Vec<_>>()
    );
    assert_eq!(batch.unreadable.len(), 4);
    let error = &batch.unreadable[0].error;
    assert!(error.contains(&format!("its terms are said at {HEADER}, where no record is")), "{error}");
    spool.ack(batch);
    assert_eq!(spool.depth(), 0);
}

#[test]
fn an_event_too_long_for_a_record_is_cut_and_keeps_what_it_charges() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    for text in ["é".repeat(5000), "\u{1}".repeat(5000), "x".repeat(1024)] {
        let long = UsageEvent {
            endpoint: text.as_str().into(),
            request_id: Some(text.as_str().into()),
            method: text.as_str().into(),
            ..sample(1)
        };
        let long = on(long, |terms| (terms.owner, terms.user_id) = (text.as_str().into(), text.as_str().into()));
        spool.append(&long.record()).unwrap();
    }
    let batch = spool.next_batch(10).unwrap();
    assert_eq!((batch.events.len(), spool.stats().cut_total), (3, 3));
    for event in batch.events {
        assert_eq!(
            (event.event_id, event.charged, event.terms.holder),
            (sample(1).event_id, Credits::new(3), sample(1).terms.holder)
        );
        assert!(event.endpoint.len() >= 64);
    }
}

#[test]
fn a_failing_disk_costs_no_event_while_another_file_can_be_written_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    spool.append(&sample(1).record()).unwrap();
    for shard in &spool.inner.shards {
        if let Some(current) = shard.current.lock().as_mut() {
            *current = Current::new(Arc::new(current.segment.read_only()));
        }
    }
    let promised = spool.reserve().unwrap();
    spool.append(&sample(2).record()).unwrap();
    promised.append(&sample(3).record()).unwrap();
    eventually("the disk works again", || spool.is_writable());
    assert_eq!(spool.stats().dropped_total, 0);
    assert_eq!(spool.next_batch(10).unwrap().events, (1..4).map(sample).collect::<Vec<_>>());
}

#[test]
fn what_became_unreadable_is_set_aside_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    for number in 0..900 {
        spool.append(&sample(number).record()).unwrap();
    }
    let first = spool.inner.segments.lock().front().map(|segment| segment.path.clone()).unwrap();
    let file = File::options().write(true).open(&first).unwrap();
    file.write_all_at(b"damage", HEADER + 1000).unwrap();
    let batch = spool.next_batch(1000).unwrap();
    let lost = 900 - batch.len();
    assert!(lost > 0 && lost < 700, "{lost}");
    assert_eq!(batch.events.last(), Some(&sample(899)));
    spool.ack(batch);
    assert_eq!((spool.depth(), spool.stats().damaged_total), (0, lost as u64));
    eventually("the file is kept under another name", || first.with_extension("damaged").exists());
}

#[test]
fn a_record_of_a_version_too_far_away_is_handed_over_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let segment = Segment::create(directory.path(), 1, LEAST_SEGMENT).unwrap();
    let mut record = Vec::new();
    segment::frame(&mut record, |into| into.extend_from_slice(b"{\"v\":9}"));
    segment.append(&record, None).unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    let batch = spool.next_batch(10).unwrap();
    assert_eq!((batch.events.len(), batch.unreadable[0].payload.as_slice()), (0, b"{\"v\":9}".as_slice()));
    assert_eq!(batch.unreadable[0].text(), "{\"v\":9}");
    let binary = Unreadable { payload: vec![0x81, 0x01, 0xff], error: String::new() };
    assert_eq!(binary.text(), "8101ff");
    spool.ack(batch);
    assert!(spool.recovered_drained());
}

#[tokio::test]
async fn whoever_waits_for_events_is_woken() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(&options(directory.path())).unwrap();
    for number in 0..200 {
        let appending = spool.clone();
        let appended = tokio::task::spawn_blocking(move || appending.append(&sample(number).record()));
        tokio::time::timeout(Duration::from_secs(10), spool.ready()).await.expect("woken");
        appended.await.unwrap().unwrap();
        spool.ack(spool.next_batch(10).unwrap());
    }
}
