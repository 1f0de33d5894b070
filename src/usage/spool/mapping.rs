//! A spool file as memory: what is copied there outlives the process as what is written does, without a system call.

use std::{fs::File, io, sync::Arc};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// A file's allocated room, mapped into memory.
#[derive(Debug)]
pub struct Mapping(MmapRegion);

/// File systems on which room that was allocated can be written through a mapping, whatever becomes of the disk's other
/// room: ext2 to ext4, XFS, tmpfs (statfs(2)). Others may copy on write and find no room when a page is written, which is
/// a signal and not an error.
const KEEP_THEIR_PROMISE: [i64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

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
