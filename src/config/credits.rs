//! `[credits]`: how balances are remembered.

use std::time::Duration;

use super::{reader::Section, value::Timeout};

/// How holders' balances are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditSettings {
    /// `refresh`: how old a holder's balance may be before it is asked for again in the background. Default 5 s.
    pub refresh: Duration,
    /// `max_accounts`: holders that are remembered at a time. Default 100 000.
    pub max_accounts: usize,
}

impl CreditSettings {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            refresh: section.or("refresh", Timeout(Duration::from_secs(5))).0,
            max_accounts: section.within("max_accounts", 1..=100_000_000, 100_000),
        }
    }
}
