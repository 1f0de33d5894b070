//! Tokens that are known to be genuine: what a key, and nothing else, can tell.
//!
//! That a token is genuine does not change; whether it is valid now, and for what, is asked again at every use.

use std::hash::{Hash, Hasher};

use quick_cache::{Equivalent, Weighter, sync::Cache};

use crate::model::secret::Secret;

/// What a cache entry of ordinary size takes, in bytes: a token of 1 KiB with a few claims.
pub(super) const ORDINARY_ENTRY_BYTES: u64 = 4 * 1024;

/// Genuine tokens and what they say, as many as there is room for.
pub(super) struct Genuine<V>(Cache<TokenText, Entry<V>, Bytes>);

#[derive(Clone)]
struct Entry<V> {
    said: V,
    bytes: usize,
}

impl<V: Clone> Genuine<V> {
    /// Room for `max_entries` tokens of ordinary size, fewer large ones.
    pub fn new(max_entries: usize) -> Self {
        let bytes = u64::try_from(max_entries).unwrap_or(u64::MAX).saturating_mul(ORDINARY_ENTRY_BYTES);
        Self(Cache::with_weighter(max_entries, bytes, Bytes))
    }

    /// What this token says, if it is known.
    pub fn get(&self, unverified_token: &[u8]) -> Option<V> {
        self.0.get(&Unverified(unverified_token)).map(|entry| entry.said)
    }

    /// Remembers a token that has been verified, and what it says, which takes so many bytes besides the token's text.
    pub fn insert(&self, token: &str, said: V, bytes: usize) {
        self.0.insert(TokenText(Secret::new(token.to_owned())), Entry { said, bytes });
    }
}

#[cfg(test)]
impl<V: Clone> Genuine<V> {
    /// How many tokens are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The memory they take, in bytes.
    pub fn weight(&self) -> u64 {
        self.0.weight()
    }
}

/// The whole text of a genuine token: the only key under which it is remembered. A part of it would let somebody who
/// knows that part in (nevermined.md section 5.7). It is wiped when the entry is evicted.
#[derive(Clone, PartialEq, Eq)]
struct TokenText(Secret);

impl Hash for TokenText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Unverified(self.0.expose().as_bytes()).hash(state);
    }
}

/// A text that may be one of those.
struct Unverified<'a>(&'a [u8]);

/// A token ends with its authentication tag or signature, which nobody chooses: that is enough to find it by. Whether it is
/// the same, all of it tells.
impl Hash for Unverified<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self(text) = self;
        text.last_chunk::<22>().map_or(*text, <[u8; 22]>::as_slice).hash(state);
    }
}

impl Equivalent<TokenText> for Unverified<'_> {
    fn equivalent(&self, known: &TokenText) -> bool {
        *self.0 == *known.0.expose().as_bytes()
    }
}

/// Weighs entries by the memory they take.
#[derive(Clone)]
struct Bytes;

impl<V> Weighter<TokenText, Entry<V>> for Bytes {
    fn weight(&self, token: &TokenText, entry: &Entry<V>) -> u64 {
        u64::try_from(token.0.expose().len().saturating_add(entry.bytes)).unwrap_or(u64::MAX)
    }
}
