//! A spool file as memory: what is copied there outlives the process as what is written does, without a system call.

use std::{
    fs::File,
    io,
    sync::{Arc, atomic::AtomicU8},
};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// A file's allocated room, mapped into memory.
#[derive(Debug)]
pub struct Mapping(MmapRegion);

/// File systems on which room that was allocated can be written through a mapping, whatever becomes of the disk's other
/// room: ext2 to ext4, XFS, tmpfs (statfs(2)). Others may copy on write and find no room when a page is written, which is
/// a signal and not an error.
const KEEP_THEIR_PROMISE: [i64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// What a processor fetches at once, in bytes.
const LINE: u64 = 64;

impl Mapping {
    /// Maps the first `length` bytes of a file, all of them allocated. None: what is written to it had better be written
    /// with a system call.
    pub fn of(file: &Arc<File>, length: u64) -> Option<Self> {
        let kind = rustix::fs::fstatfs(file).ok()?.f_type;
        if !KEEP_THEIR_PROMISE.contains(&kind) {
            return None;
        }
        let offset = FileOffset::from_arc(Arc::clone(file), 0);
        MmapRegion::from_file(offset, usize::try_from(length).ok()?).ok().map(Self)
    }

    /// Has the bytes fetched that will be written next, so that nobody waits for them then: many other things have gone
    /// through the cache since the last time. Nobody waits here either.
    pub fn fetch(&self, at: u64) {
        for line in [0, LINE] {
            let place = usize::try_from(at.saturating_add(line)).unwrap_or(usize::MAX);
            if let Ok(byte) = self.0.get_atomic_ref::<AtomicU8>(place) {
                prefetch(byte);
            }
        }
    }

    /// Copies bytes to an offset.
    ///
    /// # Errors
    /// When they would not fit.
    pub fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        self.0.get_slice(at, bytes.len()).map_err(io::Error::other)?.copy_from(bytes);
        Ok(())
    }
}

/// Fetches for writing. A hint: no page is made for it, and what cannot be fetched is not.
#[cfg(target_arch = "x86_64")]
fn prefetch(byte: &AtomicU8) {
    safe_arch::prefetch_et0(byte);
}

/// The standard library has no hint for other processors.
#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_: &AtomicU8) {}
