//! The two files of a neuron, `client.key` and `client.crt`, and how they are replaced.
//!
//! A key that is to be published is first kept as `client.key.next`, for good: whatever breaks afterwards, the key that
//! the chain has is on this disk. The certificate goes into its place first, then the key. So as long as there is a next
//! key, something is unfinished, and the next run goes on with it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use crate::tls::neuron::NeuronKey;

/// The key's file.
pub const KEY: &str = "client.key";
/// The certificate's file.
pub const CERTIFICATE: &str = "client.crt";
/// The key that is to be published, or has just been.
pub const NEXT_KEY: &str = "client.key.next";

/// Only the owner.
const PRIVATE: u32 = 0o600;
/// A certificate is no secret.
const PUBLIC: u32 = 0o644;
/// The directory's, if we make it.
const DIRECTORY: u32 = 0o755;
/// No key's file is larger.
const LARGEST: u64 = 64 << 10;

/// Which of the two files there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Present {
    /// Neither.
    Nothing,
    /// Both.
    Both,
    /// The key alone.
    KeyAlone,
    /// The certificate alone.
    CertificateAlone,
}

/// The directory of the two files, ours alone until this is dropped.
pub struct Directory {
    path: PathBuf,
    handle: File,
}

/// Room on the disk for a file that is not there yet.
#[must_use]
pub struct Room<'a> {
    directory: &'a Directory,
    name: &'static str,
    file: File,
}

/// Looks which files there are, and changes nothing.
///
/// # Errors
/// When the directory may not be looked into, or something else than a file has one of the names.
pub fn present(directory: &Path) -> anyhow::Result<Present> {
    let exists = |name: &str| {
        let path = directory.join(name);
        match fs::metadata(&path) {
            Ok(about) if about.is_file() => Ok(true),
            Ok(_) => bail!("{} is not a file", path.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("looking for {}", path.display())),
        }
    };
    Ok(match (exists(KEY)?, exists(CERTIFICATE)?) {
        (false, false) => Present::Nothing,
        (true, true) => Present::Both,
        (true, false) => Present::KeyAlone,
        (false, true) => Present::CertificateAlone,
    })
}

/// Whether an earlier run has left something unfinished.
#[must_use]
pub fn unfinished(directory: &Path) -> bool {
    directory.join(NEXT_KEY).exists()
}

/// Takes from everybody but the owner and the group the right to use a key's file. Returns whether there was one.
/// Who gave the group a right has thought about it.
///
/// # Errors
/// When the file is not there, or not ours to change.
pub fn tighten(key: &Path) -> anyhow::Result<bool> {
    let failed = || format!("tightening the mode of {}", key.display());
    let mode = fs::metadata(key).with_context(failed)?.permissions().mode();
    let wide = mode & 0o007 != 0;
    if wide {
        fs::set_permissions(key, Permissions::from_mode(PRIVATE)).with_context(failed)?;
    }
    Ok(wide)
}

/// Reads a key's file.
///
/// # Errors
/// When it cannot be read, or holds no Ed25519 key. Nothing in it is quoted.
pub fn read_key(path: &Path) -> anyhow::Result<NeuronKey> {
    let read = || {
        let file = File::open(path)?;
        ensure!(file.metadata()?.is_file(), "it is not a file");
        // Enough from the start: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(LARGEST)?));
        file.take(LARGEST).read_to_end(&mut text)?;
        NeuronKey::from_pem(&text)
    };
    read().with_context(|| format!("reading the key in {}", path.display()))
}

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// When it cannot be made or opened, or somebody else has it locked.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let failed = || format!("the output directory {}", path.display());
        make(path).with_context(failed)?;
        let handle = File::open(path).with_context(failed)?;
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), handle }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("another `tollgate generate` is at work in {}", path.display())
            }
            Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }

    /// Where a file of this name is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes sure that a file of this name can be written later.
    ///
    /// # Errors
    /// When it could not.
    pub fn room(&self, name: &'static str) -> anyhow::Result<Room<'_>> {
        let failed = || format!("writing {}", self.file(name).display());
        if fs::symlink_metadata(self.file(name)).is_ok_and(|about| about.is_dir()) {
            return Err(std::io::Error::from(ErrorKind::IsADirectory)).with_context(failed);
        }
        let temporary = self.temporary(name);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(failed),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&temporary).with_context(failed)?;
        // More than any of our files needs.
        file.write_all(&[b'\n'; 2048]).and_then(|()| file.sync_all()).with_context(failed)?;
        Ok(Room { directory: self, name, file })
    }

    /// Keeps a key that is about to be published, so that it is still there after a crash.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_next(&self, key: &NeuronKey) -> anyhow::Result<()> {
        self.room(NEXT_KEY)?.keep(key)
    }

    /// Replaces the key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace_key(&self, key: &NeuronKey) -> anyhow::Result<()> {
        self.room(KEY)?.keep(key)
    }

    /// Replaces the certificate.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace_certificate(&self, pem: &str) -> anyhow::Result<()> {
        self.room(CERTIFICATE)?.fill(pem.as_bytes(), PUBLIC)
    }

    /// Replaces the certificate, then the key by the next one.
    ///
    /// # Errors
    /// When one of them cannot be written. Then the next key is still there.
    pub fn replace_both(&self, certificate: &str) -> anyhow::Result<()> {
        self.replace_certificate(certificate)?;
        let (from, to) = (self.file(NEXT_KEY), self.file(KEY));
        fs::rename(&from, &to).with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
        self.sync()
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.tmp"))
    }

    fn sync(&self) -> anyhow::Result<()> {
        self.handle.sync_all().with_context(|| format!("writing the directory {}", self.path.display()))
    }
}

impl Room<'_> {
    /// Writes a key's file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(self, key: &NeuronKey) -> anyhow::Result<()> {
        self.fill(key.to_pem().as_bytes(), PRIVATE)
    }

    /// Writes the file: completely or, whatever happens, not at all.
    fn fill(mut self, contents: &[u8], mode: u32) -> anyhow::Result<()> {
        let (from, to) = (self.directory.temporary(self.name), self.directory.file(self.name));
        let mut write = || {
            self.file.rewind()?;
            self.file.write_all(contents)?;
            self.file.set_len(u64::try_from(contents.len()).unwrap_or(u64::MAX))?;
            self.file.set_permissions(Permissions::from_mode(mode))?;
            self.file.sync_all()?;
            fs::rename(&from, &to)
        };
        write().with_context(|| format!("writing {}", to.display()))?;
        self.directory.sync()
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        // Nobody is waiting for it any more; after `fill` it has another name.
        let _ = fs::remove_file(self.directory.temporary(self.name));
    }
}

/// Makes a directory and those above it, each with our mode whatever the umask says.
fn make(path: &Path) -> std::io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make(above)?;
    }
    match DirBuilder::new().mode(DIRECTORY).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(DIRECTORY))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_pair_is_written_with_its_modes_and_nothing_is_left_over() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/certs");
        assert_eq!(present(&path).unwrap(), Present::Nothing);
        let directory = Directory::open(&path).unwrap();
        assert_eq!((mode(&root.path().join("a")), mode(&path)), (0o755, 0o755));
        let key = NeuronKey::generate().unwrap();
        directory.keep_next(&key).unwrap();
        assert!(unfinished(&path));
        assert_eq!((mode(&directory.file(NEXT_KEY)), present(&path).unwrap()), (0o600, Present::Nothing));
        directory.replace_both("certificate").unwrap();
        assert_eq!(names(&path), [CERTIFICATE, KEY]);
        assert_eq!((mode(&directory.file(KEY)), mode(&directory.file(CERTIFICATE))), (0o600, 0o644));
        assert_eq!(fs::read_to_string(directory.file(CERTIFICATE)).unwrap(), "certificate");
        assert_eq!(read_key(&directory.file(KEY)).unwrap().public(), key.public());
        assert_eq!((present(&path).unwrap(), unfinished(&path)), (Present::Both, false));
    }

    #[test]
    fn one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::open(root.path()).unwrap();
        let Err(error) = Directory::open(root.path()) else { panic!("locked twice") };
        assert!(error.to_string().contains("another"), "{error}");
        drop(first);
        Directory::open(root.path()).unwrap();
    }

    #[test]
    fn leftovers_of_a_crash_are_in_nobodys_way() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".client.crt.tmp"), "half").unwrap();
        let directory = Directory::open(root.path()).unwrap();
        directory.replace_certificate("whole").unwrap();
        assert_eq!(names(root.path()), [CERTIFICATE]);
        drop(directory.room(NEXT_KEY).unwrap());
        assert_eq!(names(root.path()), [CERTIFICATE]);
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(NEXT_KEY)).unwrap();
        let directory = Directory::open(root.path()).unwrap();
        assert!(directory.room(NEXT_KEY).is_err());
        fs::write(root.path().join("file"), "").unwrap();
        assert!(Directory::open(&root.path().join("file")).is_err());
        assert!(Directory::open(&root.path().join("file/below")).is_err());
        fs::create_dir(root.path().join(KEY)).unwrap();
        assert!(present(root.path()).is_err());
    }

    #[test]
    fn a_key_that_all_may_read_is_tightened_and_a_groups_right_is_not() {
        let root = tempfile::tempdir().unwrap();
        let key = root.path().join(KEY);
        fs::write(&key, "").unwrap();
        for (before, after) in [(0o644, 0o600), (0o640, 0o640), (0o600, 0o600), (0o604, 0o600)] {
            fs::set_permissions(&key, Permissions::from_mode(before)).unwrap();
            assert_eq!(tighten(&key).unwrap(), before != after);
            assert_eq!(mode(&key), after);
        }
    }
}
