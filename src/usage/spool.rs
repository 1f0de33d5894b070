//! The durable queue between the request path and the store.
//!
//! An event is in the spool when [`Reservation::append`] returned: it is in a file's pages in the kernel, so it survives
//! the death of the process, by whatever signal. It gets there through a mapping of the file, or with a system call
//! ([ADR 14](../../docs/adr/0014-spool-through-a-mapping.md)). A power cut loses at most what was appended since the last
//! `fdatasync`, which a thread of the spool calls every [`SpoolOptions::sync_interval`]. An event leaves the spool
//! when [`Spool::ack`] says that the store has committed it.
//!
//! The request path takes no lock that everybody shares: every thread writes to a shard, and thus a file, of its own.
//! Room is promised with the decision ([`Spool::reserve`]) out of space that the disk has already allocated, so a
//! request that was let in can be written down: a full disk refuses requests, it does not lose events.

mod files;
mod keeper;
mod mapping;
mod said;
mod segment;

use std::{
    borrow::Cow,
    collections::VecDeque,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use minicbor::Encode;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use tokio::sync::{Notify, watch};

use self::{keeper::Keeper, mapping::Mapping, said::Said, segment::Segment};
use crate::model::{
    address::hex_text,
    usage::{Reader, Record, UsageEvent},
};

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
    /// Where files are read to. For the writer alone.
    chunk: Mutex<Vec<u8>>,
    allocated: AtomicU64,
    next_sequence: AtomicU64,
    /// One maker at a time, the keeper included: many who find no room make one file and not many, and nobody is refused
    /// while one is being made.
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
    current: Mutex<Option<Current>>,
    appended: AtomicU64,
    bytes: AtomicU64,
}

/// The file that a shard writes to.
#[derive(Debug)]
struct Current {
    segment: Arc<Segment>,
    /// Where records are copied to. None: they are written with a system call. Given back as soon as nothing more is
    /// written: there may be many files that wait for the store.
    mapping: Option<Mapping>,
    said: Said,
}

impl Current {
    fn new(segment: Arc<Segment>) -> Self {
        let mapping = segment.take_mapping();
        Self { segment, mapping, said: Said::default() }
    }
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
            chunk: Mutex::default(),
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
    pub fn append<E: Encode<()>>(&self, event: &Record<'_, E>) -> Result<(), SpoolError> {
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
        let mut reader = Reader::default();
        batch.events.reserve(usize::try_from(self.depth()).unwrap_or(usize::MAX).min(max));
        let mut chunk = self.inner.chunk.lock();
        for segment in segments {
            let left = max.saturating_sub(batch.len());
            if left == 0 {
                break;
            }
            let from = segment.acked.load(Ordering::Acquire);
            let Batch { events, unreadable, marks } = &mut batch;
            reader.begin_file();
            let mut failed = None;
            let read = segment.read(&mut chunk, from, left, |payload| {
                let payload_at = |place| segment.payload_at(place).map_err(|error| failed = Some(error)).ok().flatten();
                match reader.read_in_file(payload, payload_at) {
                    Ok(event) => {
                        oldest = if oldest == NONE { event.at_micros } else { oldest.min(event.at_micros) };
                        events.push(event);
                    }
                    Err(error) => unreadable.push(Unreadable { payload: payload.to_vec(), error: error.to_string() }),
                }
            });
            // A disk that fails makes no record unreadable: it is asked again.
            let read = failed.map_or(read, Err);
            let read = read.map_err(|source| SpoolError::Io { path: segment.path.clone(), source })?;
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

    /// Tells when [`Self::recovered_drained`] has become true.
    #[must_use]
    pub fn recovered(&self) -> watch::Receiver<bool> {
        self.inner.drained.subscribe()
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
    /// Writes the event down. When this returns the event survives the process. One system call at the most, no waiting
    /// for the disk; texts of an event that is longer than a record are cut.
    ///
    /// # Errors
    /// When the disk fails: the event is lost unless the caller keeps it, and is counted as dropped.
    pub fn append<E: Encode<()>>(self, event: &Record<'_, E>) -> Result<(), SpoolError> {
        self.inner.append(event)
        // The promise is given back by `drop`; the room that was used was taken from `slots` by `append`.
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.inner.slots.fetch_add(1, Ordering::AcqRel);
    }
}

impl Unreadable {
    /// For a person: text as it is, and everything else in hexadecimal.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match std::str::from_utf8(&self.payload) {
            Ok(text) => text.into(),
            Err(_) => hex_text(&mut vec![0; self.payload.len().saturating_mul(2)], "", &self.payload).to_owned().into(),
        }
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
mod tests;
