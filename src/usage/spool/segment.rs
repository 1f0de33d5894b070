//! One file of the spool.
//!
//! ```text
//! header  32 bytes   magic (8) · acknowledged up to (8, little endian) · CRC-32 of that (4) · zeros
//! record             length of the payload (4, little endian) · CRC-32 of length and payload (4) · payload
//! …
//! zeros              the room that is left; a length of nought ends the file
//! ```
//!
//! The room is allocated when the file is made, so a full disk shows then and not in the middle of a response.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use super::mapping::Mapping;

/// Bytes before the first record.
pub const HEADER: u64 = 32;
/// Bytes before a record's payload.
pub const RECORD_HEADER: usize = 8;
/// The most one record takes, its header included. A longer event is cut.
pub const MAX_RECORD: u64 = 4096;
/// No version writes a longer payload; a length beyond it is not a length.
const MAX_PAYLOAD: usize = 64 * 1024;
/// How much is read at once. More than any record.
const CHUNK: u64 = 256 * 1024;

const MAGIC: [u8; 8] = *b"tollseg1";

/// One file of the spool.
#[derive(Debug)]
pub struct Segment {
    /// An earlier run wrote it.
    pub recovered: bool,
    pub path: PathBuf,
    file: Arc<File>,
    /// The file's room in memory, until who writes to the file takes it.
    mapping: Mutex<Option<Mapping>>,
    /// The file's length: no record ends beyond it.
    pub length: u64,
    /// Where the next record goes. Records before it are whole.
    pub written: AtomicU64,
    /// Records written.
    pub records: AtomicU64,
    /// The store has committed everything before.
    pub acked: AtomicU64,
    /// Records before `acked`.
    pub acked_records: AtomicU64,
    /// What `fdatasync` has seen.
    pub synced: AtomicU64,
    /// Nothing will be written any more.
    pub sealed: AtomicBool,
    /// Holds bytes that could not be read and are worth keeping for a person to look at.
    pub damaged: AtomicBool,
}

impl Segment {
    /// Makes a file of `length` bytes and allocates all of it.
    pub fn create(directory: &Path, sequence: u64, length: u64) -> io::Result<Self> {
        let path = directory.join(file_name(sequence));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let file = Arc::new(file);
        let made = (|| {
            let allocated = allocate(&file, length)?;
            file.write_all_at(&header(HEADER), 0)?;
            file.sync_data()?;
            // The name has to survive a power cut as well.
            File::open(directory)?.sync_all()?;
            Ok(allocated)
        })();
        let mapping = match made {
            Ok(Allocated::Promised) => Mapping::of(&file, length),
            Ok(Allocated::Written) => None,
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
        };
        Ok(Self {
            recovered: false,
            path,
            file,
            mapping: Mutex::new(mapping),
            length,
            written: AtomicU64::new(HEADER),
            records: AtomicU64::new(0),
            acked: AtomicU64::new(HEADER),
            acked_records: AtomicU64::new(0),
            synced: AtomicU64::new(HEADER),
            sealed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        })
    }

    /// Opens a file of an earlier run. Besides the segment says how many bytes at its end were cut off because they
    /// are no whole record, and gives the first payload not yet acknowledged.
    pub fn recover(path: PathBuf) -> io::Result<(Self, Scan)> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let bytes = std::fs::read(&path)?;
        let scan = scan(&bytes);
        let segment = Self {
            recovered: true,
            path,
            file: Arc::new(file),
            mapping: Mutex::default(),
            length: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            written: AtomicU64::new(scan.end),
            records: AtomicU64::new(scan.records),
            acked: AtomicU64::new(scan.start),
            acked_records: AtomicU64::new(0),
            synced: AtomicU64::new(scan.end),
            sealed: AtomicBool::new(true),
            // Less than a record is what a crash leaves. More than that was written, and then lost.
            damaged: AtomicBool::new(scan.torn > MAX_RECORD),
        };
        Ok((segment, scan))
    }

    /// Room for records.
    pub fn room(&self) -> u64 {
        self.length.saturating_sub(self.written.load(Ordering::Relaxed))
    }

    /// The file's room in memory, for the shard that is to write to it. None: it has it already, or the file is written to
    /// with system calls.
    pub fn take_mapping(&self) -> Option<Mapping> {
        self.mapping.lock().take()
    }

    /// Where the next record goes. The answer stays true only for the shard that writes to the segment, under its lock.
    pub fn end(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Writes one record at the end: copies it to the mapping, or makes one system call. Only for the shard that writes to
    /// the segment, under its lock.
    pub fn append(&self, record: &[u8], mapping: Option<&Mapping>) -> io::Result<()> {
        let at = self.end();
        match mapping {
            Some(mapping) => mapping.write(record, at)?,
            None => self.file.write_all_at(record, at)?,
        }
        add_alone(&self.records, 1);
        let end = at.saturating_add(u64::try_from(record.len()).unwrap_or(u64::MAX));
        self.written.store(end, Ordering::Release);
        Ok(())
    }

    /// The payload of the record that begins at a place. None: no whole, unharmed record begins there.
    pub fn payload_at(&self, place: u64) -> io::Result<Option<Vec<u8>>> {
        let read = |length: usize| {
            let mut bytes = vec![0; length];
            match self.file.read_exact_at(&mut bytes, place) {
                Ok(()) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(error),
            }
        };
        let Some(size) = read(RECORD_HEADER)?.as_deref().and_then(size_of) else { return Ok(None) };
        let record = read(size.saturating_add(RECORD_HEADER))?;
        Ok(record.as_deref().and_then(next_record).map(|(payload, _)| payload.to_vec()))
    }

    /// Gives up to `max` payloads after `from` to `each`, and says where the last one ends and how many they were. What
    /// is in `chunk` does not matter: it is kept by the caller, because fresh memory is dear.
    pub fn read(&self, chunk: &mut Vec<u8>, from: u64, max: usize, mut each: impl FnMut(&[u8])) -> io::Result<Read> {
        let until = self.written.load(Ordering::Acquire);
        let mut read = Read { end: from, records: 0, damaged: false };
        while read.end < until && read.records < max {
            let length = until.saturating_sub(read.end).min(CHUNK);
            let length = usize::try_from(length).unwrap_or(0);
            if chunk.len() < length {
                chunk.resize(length, 0);
            }
            let Some(bytes) = chunk.get_mut(..length) else { break };
            self.file.read_exact_at(bytes, read.end)?;
            let mut rest = &*bytes;
            let mut progress = false;
            while read.records < max
                && let Some((payload, after)) = next_record(rest)
            {
                each(payload);
                let used = rest.len().saturating_sub(after.len());
                read.end = read.end.saturating_add(u64::try_from(used).unwrap_or(0));
                read.records = read.records.saturating_add(1);
                rest = after;
                progress = true;
            }
            if !progress {
                read.damaged = true;
                break;
            }
        }
        Ok(read)
    }

    /// Remembers that the store has everything before `end`. Losing this in a crash costs a second delivery only.
    pub fn acknowledge(&self, end: u64, records: u64) -> io::Result<()> {
        self.acked_records.fetch_add(records, Ordering::Relaxed);
        self.acked.store(end, Ordering::Release);
        self.file.write_all_at(&header(end), 0)
    }

    /// Nothing will be written any more.
    pub fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Nothing will be written, and the store has all of it.
    pub fn is_finished(&self) -> bool {
        self.sealed.load(Ordering::Acquire) && self.is_acknowledged()
    }

    /// The store has all that was written so far.
    pub fn is_acknowledged(&self) -> bool {
        self.acked.load(Ordering::Acquire) >= self.written.load(Ordering::Acquire)
    }

    /// Brings what was written to the disk itself.
    pub fn sync(&self) -> io::Result<()> {
        let written = self.written.load(Ordering::Acquire);
        if self.synced.load(Ordering::Relaxed) < written {
            self.file.sync_data()?;
            self.synced.store(written, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes the file, or sets it aside if a person should look at it.
    pub fn remove(&self) -> io::Result<()> {
        if self.damaged.load(Ordering::Relaxed) {
            std::fs::rename(&self.path, self.path.with_extension("damaged"))
        } else {
            std::fs::remove_file(&self.path)
        }
    }
}

#[cfg(test)]
impl Segment {
    /// The same file, at the same place, on which every write fails.
    pub fn read_only(&self) -> Self {
        let same = |counter: &AtomicU64| AtomicU64::new(counter.load(Ordering::Relaxed));
        Self {
            recovered: self.recovered,
            path: self.path.clone(),
            file: Arc::new(File::open(&self.path).unwrap()),
            mapping: Mutex::default(),
            length: self.length,
            written: same(&self.written),
            records: same(&self.records),
            acked: same(&self.acked),
            acked_records: same(&self.acked_records),
            synced: same(&self.synced),
            sealed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        }
    }
}

/// What [`Segment::read`] found.
#[derive(Debug)]
pub struct Read {
    pub end: u64,
    pub records: usize,
    /// What follows `end` was written and cannot be read any more.
    pub damaged: bool,
}

/// What [`scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// Where the first record not yet acknowledged begins.
    pub start: u64,
    /// Where the last whole record ends.
    pub end: u64,
    /// Whole records between the two.
    pub records: u64,
    /// Bytes after `end` that are not the empty room of the file.
    pub torn: u64,
    /// The first payload after `start`.
    pub first: Option<Vec<u8>>,
}

/// Goes through a file's bytes and stops at the first thing that is no record.
pub fn scan(bytes: &[u8]) -> Scan {
    let size = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let start = acknowledged(bytes);
    let Some(mut rest) = start.and_then(|start| bytes.get(usize::try_from(start).ok()?..)) else {
        // Not a header: nothing is known about what follows. Or an acknowledgement beyond the end: the file was cut,
        // and the store has all that was in it.
        let torn = if start.is_some() { 0 } else { size(bytes.trim_end_zeros()) };
        return Scan { start: size(bytes), end: size(bytes), records: 0, torn, first: None };
    };
    let start = start.unwrap_or(HEADER);
    let mut found = Scan { start, end: start, records: 0, torn: 0, first: None };
    while let Some((payload, after)) = next_record(rest) {
        found.records = found.records.saturating_add(1);
        if found.first.is_none() {
            found.first = Some(payload.to_vec());
        }
        rest = after;
    }
    found.end = size(bytes).saturating_sub(size(rest));
    found.torn = size(rest.trim_end_zeros());
    found
}

/// Frames a payload that `write` appends to `record`, which is emptied first.
pub fn frame(record: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    record.clear();
    record.extend_from_slice(&[0; RECORD_HEADER]);
    write(record);
    let length = u32::try_from(record.len().saturating_sub(RECORD_HEADER)).unwrap_or(u32::MAX).to_le_bytes();
    if let Some((head, payload)) = record.split_first_chunk_mut::<RECORD_HEADER>() {
        let check = checksum(length, payload).to_le_bytes();
        for (slot, byte) in head.iter_mut().zip(length.into_iter().chain(check)) {
            *slot = byte;
        }
    }
}

/// Adds to a counter that nobody else adds to meanwhile, which a lock sees to: many read it. An addition that others could
/// interrupt would wait for every byte that was copied before it.
pub fn add_alone(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).saturating_add(more), Ordering::Relaxed);
}

/// The name of the file with this number.
pub fn file_name(sequence: u64) -> String {
    format!("{sequence:016x}.segment")
}

/// The number in a file's name. None: not one of ours.
pub fn sequence_of(path: &Path) -> Option<u64> {
    if path.extension()? != "segment" {
        return None;
    }
    u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()
}

/// The first record and what follows it. None: no whole, unharmed record begins here.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let size = size_of(bytes)?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<4>()?;
    let (payload, rest) = rest.split_at_checked(size)?;
    (checksum(*length, payload) == u32::from_le_bytes(*expected)).then_some((payload, rest))
}

/// The size of a first record's payload. None: no record begins here.
fn size_of(bytes: &[u8]) -> Option<usize> {
    let length = bytes.first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (1..=MAX_PAYLOAD).contains(&size).then_some(size)
}

/// The length is included, so that no damaged length finds a matching payload.
fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

fn header(acknowledged: u64) -> [u8; 20] {
    let mut header = [0; 20];
    let mark = acknowledged.to_le_bytes();
    let check = crc32fast::hash(&mark).to_le_bytes();
    for (slot, byte) in header.iter_mut().zip(MAGIC.into_iter().chain(mark).chain(check)) {
        *slot = byte;
    }
    header
}

/// The acknowledgement in a file's header. None: this is not a segment. A mark that was cut in half says nothing, and
/// everything is delivered again.
fn acknowledged(bytes: &[u8]) -> Option<u64> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    if *magic != MAGIC || u64::try_from(bytes.len()).ok()? < HEADER {
        return None;
    }
    let (mark, rest) = rest.split_first_chunk::<8>()?;
    let (check, _) = rest.split_first_chunk::<4>()?;
    let valid = crc32fast::hash(mark) == u32::from_le_bytes(*check);
    Some(if valid { u64::from_le_bytes(*mark).max(HEADER) } else { HEADER })
}

/// How a file came by its room.
enum Allocated {
    /// The file system promises it.
    Promised,
    /// Zeros were written.
    Written,
}

/// Allocates `length` bytes. Where the file system cannot promise room, zeros are written, which is the same but slow.
fn allocate(file: &File, length: u64) -> io::Result<Allocated> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 64 * 1024];
            let mut at = 0_u64;
            while at < length {
                let left = usize::try_from(length.saturating_sub(at)).unwrap_or(usize::MAX);
                let piece = zeros.get(..left.min(zeros.len())).unwrap_or(&zeros);
                file.write_all_at(piece, at)?;
                at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            }
            Ok(Allocated::Written)
        }
        promised => Ok(promised.map(|()| Allocated::Promised)?),
    }
}

trait TrimZeros {
    /// Without the zeros at the end.
    fn trim_end_zeros(&self) -> &Self;
}

impl TrimZeros for [u8] {
    fn trim_end_zeros(&self) -> &Self {
        let end = self.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        self.get(..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file_of(payloads: &[Vec<u8>], room: usize) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(HEADER).to_vec();
        bytes.resize(usize::try_from(HEADER).unwrap(), 0);
        let (mut record, mut ends) = (Vec::new(), Vec::new());
        for payload in payloads {
            frame(&mut record, |into| into.extend_from_slice(payload));
            bytes.extend_from_slice(&record);
            ends.push(bytes.len());
        }
        bytes.resize(bytes.len() + room, 0);
        (bytes, ends)
    }

    proptest! {
        #[test]
        fn a_file_cut_anywhere_holds_exactly_the_records_before_the_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..20),
            cut in any::<proptest::sample::Index>(), room in 0..100_usize, refill: bool,
        ) {
            let (bytes, ends) = file_of(&payloads, room);
            let cut = cut.index(bytes.len() + 1);
            let mut bytes_left = bytes[..cut].to_vec();
            if refill {
                // What a preallocated file looks like when the tail never reached the disk.
                bytes_left.resize(bytes.len(), 0);
            }
            let found = scan(&bytes_left);
            // Zeros put back may complete a record that ended in zeros.
            let whole = ends.iter().filter(|end| **end <= cut || (refill && bytes_left[..**end] == bytes[..**end])).count();
            let header_whole = cut >= usize::try_from(HEADER).unwrap() || (refill && cut >= 20);
            prop_assert_eq!(found.records, if header_whole { whole as u64 } else { 0 });
        }

        #[test]
        fn garbage_is_no_record(mut bytes: Vec<u8>, with_header: bool) {
            if with_header {
                let (file, _) = file_of(&[], 0);
                bytes.splice(0..0, file);
            }
            prop_assert_eq!(scan(&bytes).records, 0);
        }

        #[test]
        fn a_flipped_bit_ends_the_file_where_it_is(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..100), 1..10),
            place in any::<proptest::sample::Index>(), bit in 0..8_u8,
        ) {
            let (mut bytes, ends) = file_of(&payloads, 10);
            let first = usize::try_from(HEADER).unwrap();
            let place = first + place.index(ends.last().unwrap() - first);
            bytes[place] ^= 1 << bit;
            let found = scan(&bytes);
            prop_assert_eq!(found.records, ends.iter().filter(|end| **end <= place).count() as u64);
            prop_assert!(found.torn > 0);
        }
    }

    #[test]
    fn what_is_copied_and_what_is_written_is_read_alike() {
        let directory = tempfile::tempdir().unwrap();
        let segment = Segment::create(directory.path(), 1, 4096).unwrap();
        let mut record = Vec::new();
        for (number, payload) in [b"copied".as_slice(), b"written"].into_iter().enumerate() {
            frame(&mut record, |into| into.extend_from_slice(payload));
            // Debian's builders and this machine have ext4 or tmpfs there; elsewhere both are written.
            segment.append(&record, segment.take_mapping().as_ref()).unwrap();
            assert_eq!(segment.records.load(Ordering::Relaxed), number as u64 + 1);
        }
        let mut found = Vec::new();
        segment.read(&mut Vec::new(), HEADER, 10, |payload| found.push(payload.to_vec())).unwrap();
        assert_eq!(found, [b"copied".as_slice(), b"written"]);
        let again = Segment::recover(segment.path.clone()).unwrap().1;
        assert_eq!((again.records, again.torn), (2, 0));
    }

    #[test]
    fn nothing_is_copied_beyond_a_files_end() {
        let directory = tempfile::tempdir().unwrap();
        let segment = Segment::create(directory.path(), 1, 4096).unwrap();
        if let Some(mapping) = segment.take_mapping() {
            assert!(mapping.write(b"12345", 4092).is_err());
            assert!(mapping.write(b"1", u64::MAX).is_err());
            for at in [0, 1, 4032, 4095, 4096, u64::MAX - 1, u64::MAX] {
                mapping.fetch(at);
            }
        }
    }

    #[test]
    fn an_acknowledgement_is_remembered_and_one_cut_in_half_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let segment = Segment::create(directory.path(), 7, 4096).unwrap();
        let mut record = Vec::new();
        for payload in [b"one", b"two"] {
            frame(&mut record, |into| into.extend_from_slice(payload));
            segment.append(&record, None).unwrap();
        }
        let first = segment.read(&mut Vec::new(), HEADER, 1, |payload| assert_eq!(payload, b"one")).unwrap();
        segment.acknowledge(first.end, 1).unwrap();
        let path = segment.path.clone();
        drop(segment);

        let (again, found) = Segment::recover(path.clone()).unwrap();
        assert_eq!((found.records, found.torn, found.first.as_deref()), (1, 0, Some(b"two".as_slice())));
        again.file.write_all_at(&[0xff; 4], 9).unwrap();
        assert_eq!(Segment::recover(path).unwrap().1.records, 2);
    }
}
