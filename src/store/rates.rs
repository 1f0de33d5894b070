//! What the store does for rate limits.

use super::{Result, Store, postgres, sqlite};

impl Store {
    /// Counts `units` more for a key in the window that began at `window_micros`, and says how many it is then.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn take_rate(&self, key: &str, window_micros: i64, units: u32) -> Result<u64> {
        let units = i64::from(units);
        let taken = match self {
            Self::Postgres(database) => {
                database.limited(postgres::rate::take(database, key, window_micros, units)).await
            }
            Self::Sqlite(database) => database.limited(sqlite::rate::take(database, key, window_micros, units)).await,
        }?;
        Ok(u64::try_from(taken).unwrap_or_default())
    }

    /// Removes windows that began before, at most `limit`; says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delete_rates_before(&self, before_micros: i64, limit: u32) -> Result<u64> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::rate::delete_before(database, before_micros, limit)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::rate::delete_before(database, before_micros, limit)).await
            }
        }
    }
}
