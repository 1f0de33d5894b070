//! `[credits]`: how balances are remembered.

use std::time::Duration;

/// How holders' balances are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditSettings {
    /// `refresh`: how old a holder's balance may be before it is asked for again in the background. Default 5 s.
    pub refresh: Duration,
    /// `max_accounts`: holders that are remembered at a time. Default 100 000.
    pub max_accounts: usize,
}
