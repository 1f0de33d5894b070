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
use arc_swap::ArcSwap;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    config::{KeySource, is_private},
    jose::{Algorithm, JwsError, SigningKey, Verified, verify_compact},
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

/// The keys in use.
pub struct SigningKeys {
    source: KeySource,
    set: ArcSwap<KeySet>,
}

/// The one that signs first.
struct KeySet {
    contents: Vec<Zeroizing<Vec<u8>>>,
    keys: Vec<(Role, SigningKey)>,
}

impl SigningKeys {
    /// Reads them.
    ///
    /// # Errors
    /// When there is none that signs, a file cannot be used, or others can read it.
    pub fn load(source: KeySource) -> anyhow::Result<Self> {
        let set = KeySet::read(&source)?;
        Ok(Self { source, set: ArcSwap::from_pointee(set) })
    }

    /// Reads them again. Says whether anything changed. When it fails, the old ones stay.
    ///
    /// # Errors
    /// As for [`SigningKeys::load`].
    pub fn reload(&self) -> anyhow::Result<bool> {
        if self.source.directory().is_none() {
            return Ok(false);
        }
        let set = KeySet::read(&self.source)?;
        let changed = set.contents != self.set.load().contents;
        if changed {
            self.set.store(Arc::new(set));
        }
        Ok(changed)
    }

    /// Signs claims with the current key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(&self, claims: &impl Serialize, typ: &str) -> Result<String, JwsError> {
        let set = self.set.load();
        let (_, key) = set.keys.first().ok_or(JwsError::UnknownKey)?;
        key.sign_compact(typ, claims)
    }

    /// What the current key signs with.
    #[must_use]
    pub fn signs_with(&self) -> Algorithm {
        self.set.load().keys.first().map_or(Algorithm::Rs256, |(_, key)| key.algorithm())
    }

    /// What a token of one of these types says, if one of our keys signed it. Issuer, audience and expiry are the caller's
    /// to check.
    ///
    /// # Errors
    /// When it is not such a token.
    pub fn verify<T: DeserializeOwned>(&self, unverified_token: &str, types: &[&str]) -> Result<Verified<T>, JwsError> {
        verify_compact(unverified_token, types, self.set.load().keys.iter().map(|(_, key)| key))
    }

    /// The public halves (RFC 7517 §5): the current one, the next, the previous.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.set.load().keys.iter().map(|(_, key)| key.jwk().clone()).collect::<Vec<_>>() })
    }

    /// What tokens are signed with, now and around a rotation: the words of `id_token_signing_alg_values_supported`.
    #[must_use]
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut words = Vec::new();
        for (_, key) in &self.set.load().keys {
            let word = key.algorithm().as_str();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words
    }
}

impl KeySet {
    fn read(source: &KeySource) -> anyhow::Result<Self> {
        match source {
            KeySource::Directory(directory) => Self::read_directory(directory),
            KeySource::Pair { private, public } => {
                let key = SigningKey::from_pair(private.expose().as_bytes(), public.as_bytes());
                let key = key.context("RSA_PRIVATE_KEY_… and RSA_PUBLIC_KEY_…")?;
                Ok(Self { contents: Vec::new(), keys: vec![(Role::Current, key)] })
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
            if set.keys.iter().all(|(_, known)| known.kid() != key.kid()) {
                set.keys.push((role, key));
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
