//! The files behind the spool: where an event is written, when a file is made, synced, retired, and found again.

use std::{
    cell::RefCell,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use minicbor::Encode;
use parking_lot::MutexGuard;

use super::{
    Current, Inner, LEAST_SEGMENT, Mark, NONE, PASSES, STANDBY, SpoolError,
    segment::{self, HEADER, MAX_RECORD, Segment, add_alone},
};
use crate::model::usage::{Reader, Record, encode_place};

thread_local! {
    /// A record as it goes into a file. Kept, because fresh memory is dear.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static THREAD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

impl Inner {
    pub(super) fn reserve(&self) -> Result<(), SpoolError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(SpoolError::Broken);
        }
        if self.promise() { Ok(()) } else { self.reserve_in_more_room() }
    }

    /// Takes a slot, if there is one.
    fn promise(&self) -> bool {
        let before = self.slots.fetch_sub(1, Ordering::AcqRel);
        if before <= 0 {
            self.slots.fetch_add(1, Ordering::AcqRel);
        } else if before < self.low_water() && !self.full.load(Ordering::Relaxed) {
            self.keeper.ring();
        }
        before > 0
    }

    /// Others may take what we make: then once more. Not for ever, because we are on the request path.
    #[cold]
    fn reserve_in_more_room(&self) -> Result<(), SpoolError> {
        let promised = (0..PASSES).map_while(|_| self.make_room().then(|| self.promise())).any(|promised| promised);
        if promised { Ok(()) } else { Err(SpoolError::Full) }
    }

    pub(super) fn append<E: Encode<()>>(&self, event: &Record<'_, E>) -> Result<(), SpoolError> {
        let written = RECORD.with_borrow_mut(|record| self.write(event, record));
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

    /// Writes an event, of which the record is made in `record`.
    fn write<E: Encode<()>>(&self, event: &Record<'_, E>, record: &mut Vec<u8>) -> Result<(), SpoolError> {
        let first = THREAD.with(|thread| thread.checked_rem(self.shards.len()).unwrap_or(0));
        // For the longest, as it was promised.
        let has_room = |current: &Current| current.segment.room() >= MAX_RECORD;
        // Two failures are two different files' failures: the disk is gone.
        let mut failures = 0_u8;
        // Room was promised, so there is some. It may be in another shard's file, and may move while we look.
        for _ in 0..PASSES {
            for (distance, shard) in self.shards.iter().cycle().skip(first).take(self.shards.len()).enumerate() {
                let mut current = shard.current.lock();
                // Only for its own shard does a thread open another file.
                if !current.as_ref().is_some_and(has_room) && distance == 0 {
                    self.open_another(&mut current);
                }
                let Some(Current { segment, mapping, said }) = current.as_mut().filter(|current| has_room(current))
                else {
                    continue;
                };
                let before = slots_in(segment.room());
                let at = segment.end();
                if let Some(mapping) = mapping {
                    mapping.fetch(at);
                }
                let said_at = said.place(&event.terms);
                let cut = make(record, event, said_at);
                let Err(source) = segment.append(record, mapping.as_ref()) else {
                    if said_at.is_none() && !cut {
                        said.remember(&event.terms, at);
                    }
                    let used = before.saturating_sub(slots_in(segment.room()));
                    if used > 0 {
                        self.slots.fetch_sub(used, Ordering::AcqRel);
                    }
                    add_alone(&shard.bytes, size(record));
                    shard.appended.fetch_add(1, Ordering::SeqCst);
                    if cut {
                        self.cut_total.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(());
                };
                let failed = self.give_up(current, source);
                failures = failures.saturating_add(1);
                if failures > 1 {
                    return Err(failed);
                }
            }
            std::thread::yield_now();
        }
        Err(SpoolError::Full)
    }

    /// Another file to write to for a shard whose file has no room left.
    #[cold]
    fn open_another(&self, current: &mut Option<Current>) {
        if let Some(segment) = self.next_segment()
            && let Some(full) = current.replace(Current::new(segment))
        {
            self.seal(&full.segment);
        }
    }

    /// Writes no more to a file that could not be written to.
    #[cold]
    fn give_up(&self, mut current: MutexGuard<'_, Option<Current>>, source: io::Error) -> SpoolError {
        let failed = current.take();
        let path = failed.as_ref().map_or_else(|| self.directory.clone(), |failed| failed.segment.path.clone());
        if let Some(failed) = failed {
            self.seal(&failed.segment);
        }
        drop(current);
        self.fail(&path, &source);
        SpoolError::Io { path, source }
    }

    /// No more is written to this file; what room it had left cannot be promised any more.
    pub(super) fn seal(&self, segment: &Segment) {
        self.slots.fetch_sub(slots_in(segment.room()), Ordering::AcqRel);
        segment.seal();
        self.keeper.ring();
    }

    /// A file to write to: one that stood by, or else a new one.
    pub(super) fn next_segment(&self) -> Option<Arc<Segment>> {
        let stood_by = || self.standby.lock().pop_front();
        let segment = stood_by().or_else(|| {
            let making = self.making.lock();
            // Whoever had the lock may have made one.
            stood_by()
                .or_else(|| (!self.full.load(Ordering::Relaxed) && self.make_segment(&making)).then(stood_by).flatten())
        })?;
        self.segments.lock().push_back(Arc::clone(&segment));
        self.keeper.ring();
        Some(segment)
    }

    /// Makes a file because a request found no room to be promised. Whoever comes second finds it made. While the disk
    /// is full only the keeper tries, so that refusals stay cheap.
    pub(super) fn make_room(&self) -> bool {
        let making = self.making.lock();
        self.slots.load(Ordering::Acquire) > 0 || (!self.full.load(Ordering::Relaxed) && self.make_segment(&making))
    }

    /// Makes a file that stands by, the room of which may be promised from now on. Says whether it did.
    pub(super) fn make_segment(&self, _one_at_a_time: &MutexGuard<'_, ()>) -> bool {
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
                let slots = slots_in(segment.room());
                // In this order: what is promised is where it will be looked for.
                self.standby.lock().push_back(Arc::new(segment));
                self.slots.fetch_add(slots, Ordering::AcqRel);
                if self.full.swap(false, Ordering::AcqRel) {
                    tracing::info!(directory = %self.directory.display(), "the spool has room again");
                }
                true
            }
            Err(error) => {
                if !self.full.swap(true, Ordering::AcqRel) {
                    tracing::error!(directory = %self.directory.display(), %error, "no room for another spool file");
                }
                self.keeper.ring();
                false
            }
        }
    }

    pub(super) fn fail(&self, path: &Path, error: &io::Error) {
        if !self.broken.swap(true, Ordering::AcqRel) {
            tracing::error!(path = %path.display(), %error, "the spool's disk failed: metered requests are refused until it works");
        }
        self.keeper.ring();
    }

    /// Below this many promises left the keeper makes another file.
    pub(super) fn low_water(&self) -> i64 {
        slots_in(self.segment_bytes.saturating_sub(HEADER))
    }

    pub(super) fn acknowledge(&self, mark: &Mark) {
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
    pub(super) fn retire(&self, finished: &Arc<Segment>) {
        let mut segments = self.segments.lock();
        let before = segments.len();
        segments.retain(|segment| !Arc::ptr_eq(segment, finished));
        if segments.len() < before {
            self.finished.lock().push(Arc::clone(finished));
        }
    }

    /// Takes what earlier runs left in the directory.
    pub(super) fn recover(&self) -> io::Result<()> {
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
            let payload_at = |place| segment.payload_at(place).ok().flatten();
            let first = found.first.and_then(|first| Reader::default().read_in_file(&first, payload_at).ok());
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
    pub(super) fn sync(&self) {
        let segments: Vec<_> = self.segments.lock().iter().map(Arc::clone).collect();
        for segment in segments {
            if let Err(error) = segment.sync() {
                self.fail(&segment.path, &error);
            }
        }
    }

    /// Removes finished files, makes room, tries a failed disk again: what the keeper does beside syncing.
    pub(super) fn tidy(&self) {
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
            // Who finds no room meanwhile waits for this file and is not refused.
            if !self.make_segment(&self.making.lock()) {
                break;
            }
        }
        if self.broken.load(Ordering::Acquire) {
            self.probe();
        }
    }

    /// Whether the disk works again: a new file, written and synced.
    pub(super) fn probe(&self) {
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

    pub(super) fn appended(&self) -> u64 {
        self.shards.iter().map(|shard| shard.appended.load(Ordering::SeqCst)).sum()
    }

    pub(super) fn depth(&self) -> u64 {
        // In this order: what is acknowledged was appended before.
        let acked = self.acked_total.load(Ordering::SeqCst);
        self.appended().saturating_add(self.recovered_total.load(Ordering::Relaxed)).saturating_sub(acked)
    }
}

/// Makes the record of an event, of which the file says the terms at that place if it does. Says whether its texts were cut.
fn make<E: Encode<()>>(record: &mut Vec<u8>, event: &Record<'_, E>, said_at: Option<u64>) -> bool {
    segment::frame(record, |into| {
        event.encode_own(into);
        match said_at {
            Some(place) => encode_place(place, into),
            None => event.terms.encode_into(into),
        }
    });
    let too_long = size(record) > MAX_RECORD;
    if too_long {
        cut(record, event);
    }
    too_long
}

/// Makes the record of an event that is too long with its texts cut. With all of them at the smaller limit, everything fits.
#[cold]
fn cut<E: Encode<()>>(record: &mut Vec<u8>, event: &Record<'_, E>) {
    let mut long = Vec::new();
    event.encode_into(&mut long);
    let whole = Record::read(&long);
    debug_assert!(whole.is_ok(), "what was just written is read: {whole:?}");
    if let Ok(whole) = whole {
        for limit in [1024, 512] {
            segment::frame(record, |into| whole.cut(limit).encode_into(into));
            if size(record) <= MAX_RECORD {
                break;
            }
        }
    }
}

/// Records of the largest size that fit.
pub(super) fn slots_in(room: u64) -> i64 {
    i64::try_from(room / MAX_RECORD).unwrap_or(i64::MAX)
}

pub(super) fn size(record: &[u8]) -> u64 {
    u64::try_from(record.len()).unwrap_or(u64::MAX)
}
