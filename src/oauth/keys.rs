//! The keys that sign tokens: read from their files, published, exchanged while serving.
//!
//! A folder has `current.pem`, which signs, and around a rotation `next.pem`, which is published before it signs, so that
//! whoever remembers the key set knows it in time, and `previous.pem`, which is published for as long as tokens that it
//! signed are valid.

use std::{
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::{
    config::{KeySource, is_private},
    jose::{KeySet, SigningKey},
};

/// A key's place in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Signs.
    Current,
    /// Will sign after the next rotation.
    Next,
    /// Signed before the last rotation.
    Previous,
}

impl Role {
    /// All of them, the one that signs first.
    pub const ALL: [Self; 3] = [Self::Current, Self::Next, Self::Previous];

    /// Its word, which is the name of its file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Previous => "previous",
        }
    }

    /// Its file.
    #[must_use]
    pub fn path(self, directory: &Path) -> PathBuf {
        directory.join(self.as_str()).with_extension("pem")
    }
}

/// The files that the keys in use were read from.
pub struct SigningKeys {
    source: KeySource,
    /// As they were read last.
    contents: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    set: Arc<KeySet>,
}

/// What was found there. The key that signs comes first.
struct Found {
    contents: Vec<Zeroizing<Vec<u8>>>,
    keys: Vec<SigningKey>,
}

impl SigningKeys {
    /// Reads them.
    ///
    /// # Errors
    /// When there is none that signs, a file cannot be used, or others can read it.
    pub fn load(source: KeySource) -> anyhow::Result<Self> {
        let Found { contents, keys } = Found::read(&source)?;
        Ok(Self { source, contents: Mutex::new(contents), set: Arc::new(KeySet::new(keys)) })
    }

    /// The keys in use: the current one, which signs, the next, the previous.
    #[must_use]
    pub fn set(&self) -> &Arc<KeySet> {
        &self.set
    }

    /// Reads them again. Says whether anything changed. When it fails, the old ones stay.
    ///
    /// # Errors
    /// As for [`SigningKeys::load`].
    pub fn reload(&self) -> anyhow::Result<bool> {
        if self.source.directory().is_none() {
            return Ok(false);
        }
        let Found { contents, keys } = Found::read(&self.source)?;
        let mut known = self.contents.lock();
        let changed = *known != contents;
        if changed {
            *known = contents;
            self.set.replace(keys);
        }
        Ok(changed)
    }
}

impl Found {
    fn read(source: &KeySource) -> anyhow::Result<Self> {
        match source {
            KeySource::Directory(directory) => Self::read_directory(directory),
            KeySource::Pair { private, public } => {
                let key = SigningKey::from_pair(private.expose().as_bytes(), public.as_bytes());
                let key = key.context("RSA_PRIVATE_KEY_… and RSA_PUBLIC_KEY_…")?;
                Ok(Self { contents: Vec::new(), keys: vec![key] })
            }
        }
    }

    fn read_directory(directory: &Path) -> anyhow::Result<Self> {
        let mut set = Self { contents: Vec::new(), keys: Vec::new() };
        for role in Role::ALL {
            let path = role.path(directory);
            let Some(pem) = read_private(&path)? else {
                if role == Role::Current {
                    bail!("there is no signing key: {} is missing; `tollgate key generate` makes it", path.display());
                }
                continue;
            };
            let key = SigningKey::from_pem(&pem).with_context(|| path.display().to_string())?;
            set.contents.push(pem);
            // In the middle of a rotation the same key may be there twice.
            if set.keys.iter().all(|known| known.kid() != key.kid()) {
                set.keys.push(key);
            }
        }
        Ok(set)
    }
}

/// A file that nobody else may read. None: there is none.
///
/// # Errors
/// When it cannot be read, or others could read it too.
pub fn read_private(path: &Path) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    ensure!(about.is_file() && about.len() < LARGEST, "{} is not a key file", path.display());
    ensure!(
        is_private(about.mode(), about.uid()),
        "{} can be read by others (mode {:03o}): a private key must be its owner's alone; `chmod 600` it",
        path.display(),
        about.mode() & 0o777,
    );
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Some(Zeroizing::new(bytes)))
}

const LARGEST: u64 = 1 << 20;
