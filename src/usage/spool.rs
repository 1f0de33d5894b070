//! The durable queue between the request path and the store.
//!
//! An event is in the spool when [`Reservation::append`] returned: it was written to a file with a system call, so it
//! survives the death of the process, by whatever signal. A power cut loses at most what was appended since the last
//! `fdatasync`, which a thread of the spool calls every [`SpoolOptions::sync_interval`]. An event leaves the spool
//! when [`Spool::ack`] says that the store has committed it.
//!
//! The request path takes no lock that everybody shares: every thread writes to a shard, and thus a file, of its own.
//! Room is promised with the decision ([`Spool::reserve`]) out of space that the disk has already allocated, so a
//! request that was let in can be written down: a full disk refuses requests, it does not lose events.

mod keeper;
mod segment;

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use tokio::sync::{Notify, watch};

use self::{
    keeper::Keeper,
    segment::{HEADER, MAX_RECORD, Segment},
};
use super::UsageEvent;

/// How a spool is kept.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Where the files are. Made if absent; one process per directory.
    pub directory: PathBuf,
    /// The most the files may take, in bytes.
    pub max_bytes: u64,
    /// The size of one file, in bytes. Made smaller where `max_bytes` would not hold a few of them.
    pub segment_bytes: u64,
    /// How often what was appended is brought to the disk itself: what a power cut may lose.
    pub sync_interval: Duration,
    /// Files written to at the same time: as many as there are threads that serve requests.
    pub shards: usize,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("spool"),
            max_bytes: 1 << 30,
            segment_bytes: 8 << 20,
            sync_interval: Duration::from_secs(1),
            shards: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Why the spool does not take an event, or could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has this directory.
    #[error("{0} is in use by another process: every gateway needs a spool directory of its own")]
    Locked(PathBuf),
    /// Less room is allowed than the fewest files need.
    #[error("the spool may take {max_bytes} bytes, and its {shards} shards need {least}")]
    TooSmall {
        /// What is allowed.
        max_bytes: u64,
        /// The number of shards.
        shards: usize,
        /// What is needed.
        least: u64,
    },
    /// No room: the configured maximum is reached or the disk is full. Passes when the writer has caught up or
    /// somebody has made room.
    #[error("the spool is full")]
    Full,
    /// The disk failed. Passes when it works again.
    #[error("the spool's disk failed")]
    Broken,
    /// What the disk said.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Figures for the metrics. Counters begin at nought when the process starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Events the store has not committed yet.
    pub depth: u64,
    /// What those take, in bytes.
    pub bytes: u64,
    /// What the files take, in bytes, the allocated room included.
    pub allocated_bytes: u64,
    /// The time of the oldest event the store has not committed, in microseconds since the Unix epoch.
    pub oldest_at_micros: Option<i64>,
    /// Events appended.
    pub appended_total: u64,
    /// Events acknowledged.
    pub acked_total: u64,
    /// Events found at the start, of earlier runs.
    pub recovered_total: u64,
    /// Files that did not end with a whole record: the process or the machine died while it wrote.
    pub torn_total: u64,
    /// Events that were written and cannot be read any more. Somebody should look at the disk.
    pub damaged_total: u64,
    /// Events that could not be written: served, and not recorded. Somebody should act.
    pub dropped_total: u64,
    /// Events of which texts were cut to fit a record.
    pub cut_total: u64,
    /// Requests refused because there was no room.
    pub refused_total: u64,
}

/// The durable queue. Cheap to clone; the thread that keeps it ends with the last clone.
#[derive(Clone, Debug)]
pub struct Spool {
    inner: Arc<Inner>,
    _keeper: Arc<Keeper>,
}

/// Room for one event. Given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    inner: Arc<Inner>,
}

/// Events for the store, and what [`Spool::ack`] needs to know which ones they were.
#[derive(Debug)]
pub struct Batch {
    /// In the order of each shard.
    pub events: Vec<UsageEvent>,
    /// Records that are whole and that this version does not understand.
    pub unreadable: Vec<Unreadable>,
    marks: Vec<Mark>,
}

/// A record that is whole and that this version does not understand.
#[derive(Debug)]
pub struct Unreadable {
    /// As it was written.
    pub payload: Vec<u8>,
    /// Why it is not understood.
    pub error: String,
}

#[derive(Debug)]
struct Mark {
    segment: Arc<Segment>,
    from: u64,
    to: u64,
    records: u64,
    damaged: bool,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    max_bytes: u64,
    segment_bytes: u64,
    /// Held as long as the process lives: `flock`.
    _lock: File,

    shards: Box<[Shard]>,
    /// Events that can be promised: the whole records of the largest size that fit the allocated room, less the
    /// promises given. Every promise therefore finds room in some file, whichever shard it comes to.
    slots: AtomicI64,
    /// Files made ahead, taken in the order of their numbers, which is the order a later run delivers them in.
    standby: Mutex<VecDeque<Arc<Segment>>>,
    /// Every file that may hold something undelivered, oldest first.
    segments: Mutex<VecDeque<Arc<Segment>>>,
    finished: Mutex<Vec<Arc<Segment>>>,
    allocated: AtomicU64,
    next_sequence: AtomicU64,
    /// One maker at a time, so that many who find no room make one file and not many.
    making: Mutex<()>,

    /// A write or a sync failed; the keeper tries until one succeeds.
    broken: AtomicBool,
    /// The last file could not be made; only the keeper tries again, so that refusals stay cheap.
    full: AtomicBool,

    notify: Notify,
    /// The writer sleeps and wants to be told.
    waiting: AtomicBool,
    keeper: keeper::Bell,

    recovered_left: AtomicU64,
    drained: watch::Sender<bool>,
    oldest_at_micros: AtomicI64,
    recovered_total: AtomicU64,
    recovered_bytes: AtomicU64,
    acked_total: AtomicU64,
    acked_bytes: AtomicU64,
    torn_total: AtomicU64,
    damaged_total: AtomicU64,
    dropped_total: AtomicU64,
    cut_total: AtomicU64,
    refused_total: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    current: Mutex<Option<Arc<Segment>>>,
    appended: AtomicU64,
    bytes: AtomicU64,
}

/// `oldest_at_micros` when there is none.
const NONE: i64 = i64::MIN;
/// How often one looks for room that was promised, or asked for, before giving up.
const PASSES: usize = 100;
/// Files made ahead.
const STANDBY: usize = 2;
const LEAST_SEGMENT: u64 = 64 * 1024;

impl Spool {
    /// Opens the directory, takes what earlier runs left, and starts the thread that keeps the spool.
    ///
    /// Reads every file that is left: a second or so per gigabyte.
    ///
    /// # Errors
    /// [`SpoolError::Locked`], [`SpoolError::TooSmall`], or what the disk said. A disk that is full is no error: the
    /// spool opens, is not writable, and delivers what it has.
    pub fn open(options: &SpoolOptions) -> Result<Self, SpoolError> {
        let directory = &options.directory;
        let io = |source| SpoolError::Io { path: directory.clone(), source };
        let lock = lock(directory)?;

        let shards = options.shards.max(1);
        let files = u64::try_from(shards.saturating_add(STANDBY)).unwrap_or(u64::MAX);
        let segment_bytes =
            options.segment_bytes.min(options.max_bytes.checked_div(files).unwrap_or(0)).max(LEAST_SEGMENT);
        let least = segment_bytes.saturating_mul(files);
        if options.max_bytes < least {
            return Err(SpoolError::TooSmall { max_bytes: options.max_bytes, shards, least });
        }

        let inner = Arc::new(Inner {
            directory: directory.clone(),
            max_bytes: options.max_bytes,
            segment_bytes,
            _lock: lock,
            shards: (0..shards).map(|_| Shard::default()).collect(),
            slots: AtomicI64::new(0),
            standby: Mutex::default(),
            segments: Mutex::default(),
            finished: Mutex::default(),
            allocated: AtomicU64::new(0),
            next_sequence: AtomicU64::new(1),
            making: Mutex::default(),
            broken: AtomicBool::new(false),
            full: AtomicBool::new(false),
            notify: Notify::new(),
            waiting: AtomicBool::new(false),
            keeper: keeper::Bell::default(),
            recovered_left: AtomicU64::new(0),
            drained: watch::Sender::new(false),
            oldest_at_micros: AtomicI64::new(NONE),
            recovered_total: AtomicU64::new(0),
            recovered_bytes: AtomicU64::new(0),
            acked_total: AtomicU64::new(0),
            acked_bytes: AtomicU64::new(0),
            torn_total: AtomicU64::new(0),
            damaged_total: AtomicU64::new(0),
            dropped_total: AtomicU64::new(0),
            cut_total: AtomicU64::new(0),
            refused_total: AtomicU64::new(0),
        });
        inner.recover().map_err(io)?;
        inner.tidy();
        let keeper = Keeper::start(Arc::clone(&inner), options.sync_interval).map_err(io)?;
        Ok(Self { inner, _keeper: Arc::new(keeper) })
    }

    /// Promises room for one event. A few nanoseconds; to be called with the decision, before anything is served.
    ///
    /// # Errors
    /// [`SpoolError::Full`] or [`SpoolError::Broken`]: the request must not be served, or not be metered.
    pub fn reserve(&self) -> Result<Reservation, SpoolError> {
        self.inner.reserve().inspect_err(|_| {
            self.inner.refused_total.fetch_add(1, Ordering::Relaxed);
        })?;
        Ok(Reservation { inner: Arc::clone(&self.inner) })
    }

    /// Reserves and appends at once.
    ///
    /// # Errors
    /// As [`Self::reserve`] and [`Reservation::append`].
    pub fn append(&self, event: &UsageEvent) -> Result<(), SpoolError> {
        self.reserve()?.append(event)
    }

    /// Whether [`Self::reserve`] would succeed now.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.inner.broken.load(Ordering::Relaxed) && self.inner.slots.load(Ordering::Relaxed) > 0
    }

    /// Waits until there is something to deliver. For one caller, the writer.
    pub async fn ready(&self) {
        loop {
            let told = self.inner.notify.notified();
            self.inner.waiting.store(true, Ordering::SeqCst);
            if self.depth() > 0 {
                self.inner.waiting.store(false, Ordering::SeqCst);
                return;
            }
            told.await;
        }
    }

    /// Up to `max` events that are not acknowledged, those of earlier runs first. Until [`Self::ack`] the next call
    /// gives the same again. Reads files: not for a thread that serves requests.
    ///
    /// # Errors
    /// What the disk said.
    pub fn next_batch(&self, max: usize) -> Result<Batch, SpoolError> {
        let mut batch = Batch { events: Vec::new(), unreadable: Vec::new(), marks: Vec::new() };
        let segments: Vec<_> =
            self.inner.segments.lock().iter().filter(|segment| !segment.is_acknowledged()).map(Arc::clone).collect();
        let mut oldest = NONE;
        for segment in segments {
            let left = max.saturating_sub(batch.len());
            if left == 0 {
                break;
            }
            let from = segment.acked.load(Ordering::Acquire);
            let Batch { events, unreadable, marks } = &mut batch;
            let read = segment
                .read(from, left, |payload| match UsageEvent::decode(payload) {
                    Ok(event) => {
                        oldest = if oldest == NONE { event.at_micros } else { oldest.min(event.at_micros) };
                        events.push(event);
                    }
                    Err(error) => unreadable.push(Unreadable { payload: payload.to_vec(), error: error.to_string() }),
                })
                .map_err(|source| SpoolError::Io { path: segment.path.clone(), source })?;
            let records = u64::try_from(read.records).unwrap_or(u64::MAX);
            marks.push(Mark { segment, from, to: read.end, records, damaged: read.damaged });
        }
        if oldest != NONE {
            self.inner.oldest_at_micros.store(oldest, Ordering::Relaxed);
        }
        Ok(batch)
    }

    /// The store has committed this batch: it is not delivered again, and files that hold nothing else are removed.
    pub fn ack(&self, batch: Batch) {
        for mark in batch.marks {
            self.inner.acknowledge(&mark);
        }
        if self.depth() == 0 {
            self.inner.oldest_at_micros.store(NONE, Ordering::Relaxed);
        }
        self.inner.keeper.ring();
    }

    /// Events of earlier runs that the store has not committed yet.
    #[must_use]
    pub fn recovered_left(&self) -> u64 {
        self.inner.recovered_left.load(Ordering::Acquire)
    }

    /// Whether the store has committed all events of earlier runs. Before that a balance out of the store is too high.
    #[must_use]
    pub fn recovered_drained(&self) -> bool {
        self.recovered_left() == 0
    }

    /// Waits for [`Self::recovered_drained`].
    pub async fn wait_recovered_drained(&self) {
        let mut drained = self.inner.drained.subscribe();
        // The sender lives as long as we do.
        let _ = drained.wait_for(|drained| *drained).await;
    }

    /// Events the store has not committed yet.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.inner.depth()
    }

    /// Figures for the metrics.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let inner = &self.inner;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let appended_total = inner.appended();
        let bytes: u64 = inner.shards.iter().map(|shard| count(&shard.bytes)).sum();
        let oldest = inner.oldest_at_micros.load(Ordering::Relaxed);
        SpoolStats {
            depth: inner.depth(),
            bytes: bytes.saturating_add(count(&inner.recovered_bytes)).saturating_sub(count(&inner.acked_bytes)),
            allocated_bytes: count(&inner.allocated),
            oldest_at_micros: (oldest != NONE).then_some(oldest),
            appended_total,
            acked_total: count(&inner.acked_total),
            recovered_total: count(&inner.recovered_total),
            torn_total: count(&inner.torn_total),
            damaged_total: count(&inner.damaged_total),
            dropped_total: count(&inner.dropped_total),
            cut_total: count(&inner.cut_total),
            refused_total: count(&inner.refused_total),
        }
    }

    /// Brings everything to the disk now, as the end of the process does.
    pub fn sync(&self) {
        self.inner.sync();
    }
}

impl Reservation {
    /// Writes the event down. When this returns the event survives the process. One system call, no waiting for the
    /// disk; texts of an event that is longer than a record are cut.
    ///
    /// # Errors
    /// When the disk fails: the event is lost unless the caller keeps it, and is counted as dropped.
    pub fn append(self, event: &UsageEvent) -> Result<(), SpoolError> {
        self.inner.append(event)
        // The promise is given back by `drop`; the room that was used was taken from `slots` by `append`.
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.slots.fetch_add(1, Ordering::AcqRel);
    }
}

impl Batch {
    /// Records in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len().saturating_add(self.unreadable.len())
    }

    /// Nothing to deliver and nothing to acknowledge.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }
}

thread_local! {
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static THREAD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

impl Inner {
    fn reserve(&self) -> Result<(), SpoolError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(SpoolError::Broken);
        }
        // Others may take what we make: then once more. Not for ever, because we are on the request path.
        for _ in 0..PASSES {
            let before = self.slots.fetch_sub(1, Ordering::AcqRel);
            if before > 0 {
                if before < self.low_water() && !self.full.load(Ordering::Relaxed) {
                    self.keeper.ring();
                }
                return Ok(());
            }
            self.slots.fetch_add(1, Ordering::AcqRel);
            if !self.make_room() {
                break;
            }
        }
        Err(SpoolError::Full)
    }

    fn append(&self, event: &UsageEvent) -> Result<(), SpoolError> {
        let written = RECORD.with_borrow_mut(|record| {
            self.frame(record, event);
            self.write(record)
        });
        match written {
            Ok(()) => {
                if self.oldest_at_micros.load(Ordering::Relaxed) == NONE {
                    self.oldest_at_micros.store(event.at_micros, Ordering::Relaxed);
                }
                if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
                    self.notify.notify_one();
                }
                Ok(())
            }
            Err(error) => {
                self.dropped_total.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn frame(&self, record: &mut Vec<u8>, event: &UsageEvent) {
        segment::frame(record, |into| event.encode(into));
        let mut limit = 1024;
        while size(record) > MAX_RECORD && limit > 0 {
            if limit == 1024 {
                self.cut_total.fetch_add(1, Ordering::Relaxed);
            }
            let short = event.cut(limit);
            segment::frame(record, |into| short.encode(into));
            limit /= 2;
        }
    }

    fn write(&self, record: &[u8]) -> Result<(), SpoolError> {
        let own = THREAD.with(|thread| thread.checked_rem(self.shards.len()).unwrap_or(0));
        // Two failures are two different files' failures: the disk is gone.
        let mut failures = 0_u8;
        // Room was promised, so there is some. It may be in another shard's file, and may move while we look.
        for _ in 0..PASSES {
            for (distance, shard) in self.shards.iter().cycle().skip(own).take(self.shards.len()).enumerate() {
                let mut current = shard.current.lock();
                let has_room = current.as_ref().is_some_and(|segment| segment.room() >= size(record));
                // Only for its own shard does a thread open another file.
                if !has_room
                    && distance == 0
                    && let Some(next) = self.next_segment()
                    && let Some(full) = current.replace(next)
                {
                    self.seal(&full);
                }
                let Some(segment) = current.as_ref().filter(|segment| segment.room() >= size(record)) else { continue };
                let before = slots_in(segment.room());
                let Err(source) = segment.append(record) else {
                    self.slots.fetch_sub(before.saturating_sub(slots_in(segment.room())), Ordering::AcqRel);
                    shard.bytes.fetch_add(size(record), Ordering::Relaxed);
                    shard.appended.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                };
                let path = segment.path.clone();
                if let Some(segment) = current.take() {
                    self.seal(&segment);
                }
                drop(current);
                self.fail(&path, &source);
                failures = failures.saturating_add(1);
                if failures > 1 {
                    return Err(SpoolError::Io { path, source });
                }
            }
            std::thread::yield_now();
        }
        Err(SpoolError::Full)
    }

    /// No more is written to this file; what room it had left cannot be promised any more.
    fn seal(&self, segment: &Segment) {
        self.slots.fetch_sub(slots_in(segment.room()), Ordering::AcqRel);
        segment.sealed.store(true, Ordering::Release);
        self.keeper.ring();
    }

    /// A file to write to: one that stood by, or else a new one.
    fn next_segment(&self) -> Option<Arc<Segment>> {
        let stood_by = self.standby.lock().pop_front();
        let segment =
            stood_by.or_else(|| if self.full.load(Ordering::Relaxed) { None } else { self.make_segment() })?;
        self.segments.lock().push_back(Arc::clone(&segment));
        self.keeper.ring();
        Some(segment)
    }

    /// Makes a file because a request found no room to be promised. Whoever comes second finds it made. While the disk
    /// is full only the keeper tries, so that refusals stay cheap.
    fn make_room(&self) -> bool {
        let _making = self.making.lock();
        self.slots.load(Ordering::Acquire) > 0 || (!self.full.load(Ordering::Relaxed) && self.make_standby())
    }

    fn make_standby(&self) -> bool {
        let made = self.make_segment();
        made.is_some_and(|segment| {
            self.standby.lock().push_back(segment);
            true
        })
    }

    /// Makes a file, the room of which may be promised from now on.
    fn make_segment(&self) -> Option<Arc<Segment>> {
        let larger = |allocated: u64| {
            Some(allocated.saturating_add(self.segment_bytes)).filter(|larger| *larger <= self.max_bytes)
        };
        let made = if self.allocated.fetch_update(Ordering::AcqRel, Ordering::Acquire, larger).is_ok() {
            let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
            Segment::create(&self.directory, sequence, self.segment_bytes).map_err(|error| {
                self.allocated.fetch_sub(self.segment_bytes, Ordering::AcqRel);
                error.to_string()
            })
        } else {
            Err("the configured maximum is reached".to_owned())
        };
        match made {
            Ok(segment) => {
                self.slots.fetch_add(slots_in(segment.room()), Ordering::AcqRel);
                if self.full.swap(false, Ordering::AcqRel) {
                    tracing::info!(directory = %self.directory.display(), "the spool has room again");
                }
                Some(Arc::new(segment))
            }
            Err(error) => {
                if !self.full.swap(true, Ordering::AcqRel) {
                    tracing::error!(directory = %self.directory.display(), %error, "no room for another spool file");
                }
                self.keeper.ring();
                None
            }
        }
    }

    fn fail(&self, path: &Path, error: &io::Error) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            tracing::error!(path = %path.display(), %error, "the spool's disk failed: metered requests are refused until it works");
        }
        self.keeper.ring();
    }

    /// Below this many promises left the keeper makes another file.
    fn low_water(&self) -> i64 {
        slots_in(self.segment_bytes.saturating_sub(HEADER))
    }

    fn acknowledge(&self, mark: &Mark) {
        let segment = &mark.segment;
        if segment.acked.load(Ordering::Acquire) != mark.from {
            return; // acknowledged before: the same records were delivered twice
        }
        let (mut to, mut records) = (mark.to, mark.records);
        if mark.damaged {
            // Nothing behind can be read. The file is kept for a person, and the rest of the spool goes on.
            segment.damaged.store(true, Ordering::Relaxed);
            let left =
                segment.records.load(Ordering::Relaxed).saturating_sub(segment.acked_records.load(Ordering::Relaxed));
            self.damaged_total.fetch_add(left.saturating_sub(records), Ordering::Relaxed);
            records = left;
            to = segment.written.load(Ordering::Acquire);
            tracing::error!(path = %segment.path.display(), offset = mark.to, "a spool file is damaged and was set aside");
        }
        if let Err(error) = segment.acknowledge(to, records) {
            // Only a second delivery after a restart, which the store recognises.
            tracing::warn!(path = %segment.path.display(), %error, "could not note what the store has committed");
        }
        self.acked_bytes.fetch_add(to.saturating_sub(mark.from), Ordering::Relaxed);
        self.acked_total.fetch_add(records, Ordering::SeqCst);
        if segment.recovered && self.recovered_left.fetch_sub(records, Ordering::AcqRel) == records {
            self.drained.send_replace(true);
        }
        if segment.is_finished() {
            self.retire(segment);
        }
    }

    /// Takes a finished file off the list; the keeper removes it.
    fn retire(&self, finished: &Arc<Segment>) {
        let mut segments = self.segments.lock();
        let before = segments.len();
        segments.retain(|segment| !Arc::ptr_eq(segment, finished));
        if segments.len() < before {
            self.finished.lock().push(Arc::clone(finished));
        }
    }

    /// Takes what earlier runs left in the directory.
    fn recover(&self) -> io::Result<()> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if let Some(sequence) = segment::sequence_of(&path) {
                paths.push((sequence, path));
            }
        }
        paths.sort();
        let mut left = 0_u64;
        let mut segments = self.segments.lock();
        for (sequence, path) in paths {
            self.next_sequence.fetch_max(sequence.saturating_add(1), Ordering::Relaxed);
            let (segment, found) = Segment::recover(path)?;
            if found.torn > 0 {
                self.torn_total.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(path = %segment.path.display(), bytes = found.torn, offset = found.end, "a spool file ends in the middle of a record");
            }
            if found.records == 0 {
                segment.remove()?;
                continue;
            }
            left = left.saturating_add(found.records);
            self.recovered_bytes.fetch_add(found.end.saturating_sub(found.start), Ordering::Relaxed);
            self.allocated.fetch_add(segment.length, Ordering::Relaxed);
            let first = found.first.and_then(|payload| UsageEvent::decode(&payload).ok());
            if let Some(event) = first {
                let known = self.oldest_at_micros.load(Ordering::Relaxed);
                let oldest = if known == NONE { event.at_micros } else { known.min(event.at_micros) };
                self.oldest_at_micros.store(oldest, Ordering::Relaxed);
            }
            segments.push_back(Arc::new(segment));
        }
        self.recovered_total.store(left, Ordering::Relaxed);
        self.recovered_left.store(left, Ordering::Release);
        self.drained.send_replace(left == 0);
        Ok(())
    }

    /// `fdatasync` for every file that was written to.
    fn sync(&self) {
        let segments: Vec<_> = self.segments.lock().iter().map(Arc::clone).collect();
        for segment in segments {
            if let Err(error) = segment.sync() {
                self.fail(&segment.path, &error);
            }
        }
    }

    /// Removes finished files, makes room, tries a failed disk again: what the keeper does beside syncing.
    fn tidy(&self) {
        let finished: Vec<_> = {
            // A file sealed after its last record was acknowledged was finished by nobody's call.
            let sealed: Vec<_> =
                self.segments.lock().iter().filter(|segment| segment.is_finished()).map(Arc::clone).collect();
            for segment in &sealed {
                self.retire(segment);
            }
            std::mem::take(&mut *self.finished.lock())
        };
        for segment in finished {
            match segment.remove() {
                Ok(()) => {
                    self.allocated.fetch_sub(segment.length, Ordering::AcqRel);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.allocated.fetch_sub(segment.length, Ordering::AcqRel);
                }
                Err(error) => {
                    tracing::warn!(path = %segment.path.display(), %error, "could not remove a finished spool file");
                    self.finished.lock().push(segment);
                }
            }
        }
        while self.standby.lock().len() < STANDBY || self.slots.load(Ordering::Acquire) < self.low_water() {
            if !self.make_standby() {
                break;
            }
        }
        if self.broken.load(Ordering::Acquire) {
            self.probe();
        }
    }

    /// Whether the disk works again: a new file, written and synced.
    fn probe(&self) {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        match Segment::create(&self.directory, sequence, LEAST_SEGMENT) {
            Ok(segment) => {
                let _ = segment.remove();
                self.broken.store(false, Ordering::Release);
                tracing::info!(directory = %self.directory.display(), "the spool's disk works again");
            }
            Err(error) => tracing::debug!(%error, "the spool's disk still fails"),
        }
    }

    fn appended(&self) -> u64 {
        self.shards.iter().map(|shard| shard.appended.load(Ordering::SeqCst)).sum()
    }

    fn depth(&self) -> u64 {
        // In this order: what is acknowledged was appended before.
        let acked = self.acked_total.load(Ordering::SeqCst);
        self.appended().saturating_add(self.recovered_total.load(Ordering::Relaxed)).saturating_sub(acked)
    }
}

/// Records of the largest size that fit.
fn slots_in(room: u64) -> i64 {
    i64::try_from(room / MAX_RECORD).unwrap_or(i64::MAX)
}

fn size(record: &[u8]) -> u64 {
    u64::try_from(record.len()).unwrap_or(u64::MAX)
}

fn lock(directory: &Path) -> Result<File, SpoolError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let io = |source| SpoolError::Io { path: directory.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join("lock"))
        .map_err(io)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::Locked(directory.to_owned())),
        Err(error) => Err(io(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::FileExt, time::Instant};

    use super::*;
    use crate::{model::credits::Credits, usage::tests::sample};

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
            spool.append(&sample(number)).unwrap();
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
            spool.append(&sample(number)).unwrap();
        }
        spool.ack(spool.next_batch(3).unwrap());
        let left = as_the_dead_process_left_it(directory.path());

        let next = Spool::open(&options(left.path())).unwrap();
        assert_eq!((next.stats().recovered_total, next.recovered_left(), next.recovered_drained()), (497, 497, false));
        next.append(&sample(1000)).unwrap();
        let batch = next.next_batch(10_000).unwrap();
        let numbers: Vec<_> = batch.events.iter().map(|event| event.event_id.as_u64_pair().1).collect();
        assert_eq!(numbers, (3..500).chain([1000]).collect::<Vec<_>>(), "those of the earlier run first");
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
        let large = |number| UsageEvent {
            endpoint: "x".repeat(10_000).into(),
            owner: "o".repeat(900).into(),
            user_id: "u".repeat(900).into(),
            ..sample(number)
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
                        reservation.append(&large(thread * 1000 + number as u64)).unwrap();
                    }
                });
            }
        });
        for (number, reservation) in reserved.into_iter().enumerate() {
            reservation.append(&large(9000 + number as u64)).unwrap();
        }
        assert_eq!(spool.stats().dropped_total, 0);
        let batch = spool.next_batch(10_000).unwrap();
        assert_eq!(batch.events.iter().map(|event| event.event_id).collect::<BTreeSet<_>>().len() as u64, count);
        spool.ack(batch);
        eventually("room again by itself", || spool.is_writable());
        spool.append(&sample(1)).unwrap();
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
                        spool.append(&sample(thread * 10_000 + number)).unwrap();
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

    #[test]
    fn an_event_too_long_for_a_record_is_cut_and_keeps_what_it_charges() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(&options(directory.path())).unwrap();
        // Control characters become six bytes each in JSON.
        for text in ["é".repeat(5000), "\u{1}".repeat(5000), "\"".repeat(3000)] {
            let long = UsageEvent {
                endpoint: text.as_str().into(),
                owner: text.as_str().into(),
                user_id: text.as_str().into(),
                request_id: text.as_str().into(),
                method: text.as_str().into(),
                ..sample(1)
            };
            spool.append(&long).unwrap();
        }
        let batch = spool.next_batch(10).unwrap();
        assert_eq!((batch.events.len(), spool.stats().cut_total), (3, 3));
        for event in batch.events {
            assert_eq!(
                (event.event_id, event.charged, event.holder),
                (sample(1).event_id, Credits::new(3), sample(1).holder)
            );
            assert!(event.endpoint.len() >= 64);
        }
    }

    #[test]
    fn a_failing_disk_costs_no_event_while_another_file_can_be_written_and_heals() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(&options(directory.path())).unwrap();
        spool.append(&sample(1)).unwrap();
        for shard in &spool.inner.shards {
            if let Some(segment) = shard.current.lock().as_mut() {
                *segment = Arc::new(segment.read_only());
            }
        }
        let promised = spool.reserve().unwrap();
        spool.append(&sample(2)).unwrap();
        promised.append(&sample(3)).unwrap();
        eventually("the disk works again", || spool.is_writable());
        assert_eq!(spool.stats().dropped_total, 0);
        assert_eq!(spool.next_batch(10).unwrap().events, (1..4).map(sample).collect::<Vec<_>>());
    }

    #[test]
    fn what_became_unreadable_is_set_aside_and_the_rest_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(&options(directory.path())).unwrap();
        for number in 0..300 {
            spool.append(&sample(number)).unwrap();
        }
        let first = spool.inner.segments.lock().front().map(|segment| segment.path.clone()).unwrap();
        let file = File::options().write(true).open(&first).unwrap();
        file.write_all_at(b"damage", HEADER + 1000).unwrap();
        let batch = spool.next_batch(1000).unwrap();
        let lost = 300 - batch.len();
        assert!(lost > 0 && lost < 200, "{lost}");
        assert_eq!(batch.events.last(), Some(&sample(299)));
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
        segment.append(&record).unwrap();
        let spool = Spool::open(&options(directory.path())).unwrap();
        let batch = spool.next_batch(10).unwrap();
        assert_eq!((batch.events.len(), batch.unreadable[0].payload.as_slice()), (0, b"{\"v\":9}".as_slice()));
        spool.ack(batch);
        assert!(spool.recovered_drained());
    }

    #[tokio::test]
    async fn whoever_waits_for_events_is_woken() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(&options(directory.path())).unwrap();
        for number in 0..200 {
            let appending = spool.clone();
            let appended = tokio::task::spawn_blocking(move || appending.append(&sample(number)));
            tokio::time::timeout(Duration::from_secs(10), spool.ready()).await.expect("woken");
            appended.await.unwrap().unwrap();
            spool.ack(spool.next_batch(10).unwrap());
        }
    }

    /// What an append costs, and what recovery costs: `cg test --release --lib -- --ignored --nocapture figures`.
    #[test]
    #[ignore = "a measurement"]
    fn figures() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let spool = Spool::open(&SpoolOptions {
            max_bytes: 4 << 30,
            segment_bytes: 8 << 20,
            sync_interval: Duration::from_secs(1),
            ..options(directory.path())
        })
        .unwrap();
        let event = sample(1);
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let each = |what: &str, count: u32, mut work: Box<dyn FnMut() + '_>| {
            let start = Instant::now();
            for _ in 0..count {
                work();
            }
            println!("{what}: {:?}", start.elapsed() / count);
        };
        println!("encoded: {} bytes", bytes.len());
        each(
            "encode",
            1_000_000,
            Box::new(|| {
                bytes.clear();
                event.encode(&mut bytes);
                std::hint::black_box(&bytes);
            }),
        );
        each(
            "decode",
            300_000,
            Box::new(|| {
                std::hint::black_box(UsageEvent::decode(&bytes).unwrap());
            }),
        );
        each("reserve and give back", 1_000_000, Box::new(|| drop(spool.reserve().unwrap())));
        each("append, one thread", 1_000_000, Box::new(|| spool.append(&event).unwrap()));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..500_000).for_each(|_| spool.append(&event).unwrap()));
            }
        });
        println!("append, two threads at once: {:?} each", start.elapsed() / 500_000);
        let stats = spool.stats();
        println!("{stats:?}");
        drop(spool);
        let start = Instant::now();
        let spool = Spool::open(&SpoolOptions { max_bytes: 4 << 30, ..options(directory.path()) }).unwrap();
        let took = start.elapsed();
        println!("open with {} events, {} MB: {took:?}", spool.stats().recovered_total, spool.stats().bytes >> 20);
        let start = Instant::now();
        let mut delivered = 0;
        while spool.depth() > 0 {
            let batch = spool.next_batch(1000).unwrap();
            delivered += batch.len();
            spool.ack(batch);
        }
        println!("delivered {delivered} in {:?}", start.elapsed());
    }
}
