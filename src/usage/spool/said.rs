//! Which terms a file says already, and where: a record of a holder who has called before names the place and does not repeat
//! two thirds of itself.

use std::{collections::HashMap, sync::Arc};

use quick_cache::DefaultHashBuilder;

/// Terms by how they are written, and the places of the records that say them. For one file.
#[derive(Debug, Default)]
pub struct Said {
    last: Option<(Arc<[u8]>, u64)>,
    all: HashMap<Arc<[u8]>, u64, DefaultHashBuilder>,
}

/// The most that are remembered, so that many holders cost no more memory than some: some 300 bytes each. The terms of others
/// are said again.
pub const MOST: usize = 1024;

impl Said {
    /// Where the file says these terms. None: nowhere that is remembered.
    pub fn place(&mut self, terms: &[u8]) -> Option<u64> {
        // Neighbours often have the same.
        if let Some((last, place)) = &self.last
            && **last == *terms
        {
            return Some(*place);
        }
        let (known, place) = self.all.get_key_value(terms)?;
        self.last = Some((Arc::clone(known), *place));
        Some(*place)
    }

    /// The record at this place says them.
    pub fn remember(&mut self, terms: &[u8], place: u64) {
        if self.all.len() < MOST {
            let terms: Arc<[u8]> = terms.into();
            self.all.insert(Arc::clone(&terms), place);
            self.last = Some((terms, place));
        }
    }
}
