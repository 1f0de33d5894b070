//! Which terms a file says already, and where: a record of a holder who has called before names the place and does not repeat
//! two thirds of itself.

use std::{hash::BuildHasher, sync::Arc};

use hashbrown::HashTable;
use quick_cache::DefaultHashBuilder;

use crate::model::usage::{Terms, TermsRecord};

/// Terms and the places of the records that say them. For one file.
#[derive(Debug, Default)]
pub struct Said {
    /// Neighbours often have the same.
    last: Option<(Arc<Terms>, u64)>,
    all: HashTable<(Arc<Terms>, u64)>,
    hasher: DefaultHashBuilder,
}

/// The most that are remembered, so that many holders cost no more memory than some: some 300 bytes each. The terms of others
/// are said again.
pub const MOST: usize = 1024;

impl Said {
    /// Where the file says these terms. None: nowhere that is remembered.
    pub fn place(&mut self, terms: &TermsRecord<'_>) -> Option<u64> {
        if let Some((last, place)) = &self.last
            && TermsRecord::from(&**last) == *terms
        {
            return Some(*place);
        }
        let same = |known: &(Arc<Terms>, u64)| TermsRecord::from(&*known.0) == *terms;
        let known = self.all.find(self.hasher.hash_one(terms), same)?;
        self.last = Some(known.clone());
        Some(known.1)
    }

    /// The record at this place says them.
    pub fn remember(&mut self, terms: &TermsRecord<'_>, place: u64) {
        if self.all.len() < MOST {
            let known = (Arc::new(Terms::from(*terms)), place);
            self.last = Some(known.clone());
            let hash = |known: &(Arc<Terms>, u64)| self.hasher.hash_one(TermsRecord::from(&*known.0));
            self.all.insert_unique(hash(&known), known, hash);
        }
    }
}
