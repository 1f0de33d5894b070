//! The database: what must outlive the process, and what several gateways share.
//!
//! One method per operation of the domain, for two databases that mean the same by it (architecture.md section 11).
//! `store/postgres` and `store/sqlite` hold the statements, one function each; the tests in `tests/all/store.rs` run
//! every operation against both.

pub mod auth_gateway;
pub mod challenge;
mod clients;
pub mod device;
pub mod event;
pub mod grant;
mod postgres;
mod rates;
mod row;
mod sqlite;
pub mod takeover;

use std::{path::PathBuf, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

use crate::model::{
    address::EvmAddress,
    credits::{CreditSource, Credits},
    did::Did,
    nonce::Nonce,
    secret::Secret,
    usage::UsageEvent,
};

/// Which database, and how it is used.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Which database.
    pub target: StoreTarget,
    /// Connections at most. `SQLite` has one for writing besides.
    pub max_connections: u32,
    /// How long a connection is waited for, how long a statement may take, and, twice as long, an operation.
    pub timeout: Duration,
    /// Also write the tables of the replaced system, `"accessTransactions"` and `"accessProcessorQueue"`, for a burner
    /// that reads them (nevermined.md section 9). Postgres only.
    pub access_tables: bool,
    /// Keep a queue of events to be told to the backend: see [`crate::usage::report`].
    pub reports: bool,
}

/// Which database.
#[derive(Clone, Debug)]
pub enum StoreTarget {
    /// `postgres://…`
    Postgres(Secret),
    /// A file, made if absent.
    Sqlite(PathBuf),
}

/// The store. Cheap to clone. Opened once per tokio runtime: pools must not be shared between runtimes.
#[derive(Clone, Debug)]
pub enum Store {
    /// The shared one.
    Postgres(postgres::Database),
    /// The embedded one.
    Sqlite(sqlite::Database),
}

/// What went wrong in the store. What to do about it is asked with the methods.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no, or nothing.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The tables of the replaced system did not take a row. That concerns every event and not one: what a client can
    /// choose is cut to fit them.
    #[error("the access tables: {0}")]
    AccessTables(#[source] sqlx::Error),
    /// A migration could not be applied.
    #[error(transparent)]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The operation took longer than it may.
    #[error("the database took too long")]
    TimedOut,
    /// The options contradict each other.
    #[error("{0}")]
    Options(&'static str),
    /// An event, or a batch of them, that can never be written.
    #[error("{0}")]
    InvalidEvent(String),
    /// A row holds what this version cannot read.
    #[error("a row of {table} cannot be read: {error}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What is wrong.
        error: String,
    },
}

/// The result of an operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// What [`Store::append_usage`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Events that were not there before.
    pub inserted: u64,
    /// Events that were: an earlier attempt had been committed.
    pub known: u64,
}

/// What one account has and owes, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The local balance. None: the credits are on chain, or the account was never granted any. A debt reads as
    /// nothing: [`Store::balances`] tells it.
    pub balance: Option<Credits>,
    /// Charged and not burned yet. Always nothing for local credits, which are burned as they are charged.
    pub unburned: Credits,
}

/// A local account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Whose.
    pub holder: EvmAddress,
    /// Of which plan.
    pub plan: Did,
    /// What is left. Negative: what was served cost more than there was, which is the gateway's debt claim.
    pub balance: i64,
    /// When it changed last, in microseconds since the Unix epoch.
    pub updated_at_micros: i64,
}

/// Which usage: every condition that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// At or after, in microseconds since the Unix epoch.
    pub since_micros: Option<i64>,
    /// Before, in microseconds since the Unix epoch.
    pub until_micros: Option<i64>,
    /// The account.
    pub holder: Option<EvmAddress>,
    /// The plan.
    pub plan: Option<Did>,
    /// The service.
    pub service: Option<Did>,
    /// The route's name.
    pub route: Option<String>,
}

/// One line of the usage table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The event.
    pub event: UsageEvent,
    /// When the store took it, in microseconds since the Unix epoch.
    pub recorded_at_micros: i64,
    /// When its charge was burned, in microseconds since the Unix epoch.
    pub burned_at_micros: Option<i64>,
    /// What burned it: `local`, `queue` (the replaced system's burner), `queue-error` (which gave up), or a burn's id.
    pub burn: Option<String>,
}

/// What sums are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The account.
    Holder,
    /// The plan.
    Plan,
    /// The service.
    Service,
    /// The route's name.
    Route,
    /// The day in UTC, `2026-11-23`.
    Day,
}

/// One line of a sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSum {
    /// Of what; empty for events without one.
    pub key: String,
    /// Events.
    pub events: u64,
    /// Credits charged.
    pub charged: Credits,
    /// Credits charged and not burned yet.
    pub unburned: Credits,
}

/// An event to be told to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportJob {
    /// The event.
    pub event: UsageEvent,
    /// How often it has been claimed, this time included.
    pub attempts: u32,
}

/// An event that the store could not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its number.
    pub id: i64,
    /// The event as JSON. A record that nobody could read: its text, or its bytes in hexadecimal.
    pub raw: String,
    /// Why.
    pub error: String,
    /// When, in microseconds since the Unix epoch.
    pub at_micros: i64,
}

impl Appended {
    fn of(given: usize, inserted: usize) -> Self {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Self { inserted: count(inserted), known: count(given.saturating_sub(inserted)) }
    }
}

impl GroupBy {
    /// The word in the statements and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Plan => "plan",
            Self::Service => "service",
            Self::Route => "route",
            Self::Day => "day",
        }
    }
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's help: the database is away, busy, or another
    /// transaction was in the way.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut => true,
            Self::Database(error) | Self::AccessTables(error) => match error {
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_)
                | sqlx::Error::Tls(_) => true,
                sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing(&code)),
                _ => false,
            },
            Self::Migration(_) | Self::Options(_) | Self::InvalidEvent(_) | Self::Unreadable { .. } => false,
        }
    }

    /// Whether it is what was to be written that is wrong, so that no later attempt can succeed.
    #[must_use]
    pub fn is_data(&self) -> bool {
        match self {
            Self::InvalidEvent(_) | Self::Database(sqlx::Error::Encode(_)) => true,
            // SQLite has no code of its own for a sum that does not fit.
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| is_about_data(&code)) || error.message() == "integer overflow"
            }
            _ => false,
        }
    }
}

/// Postgres: connection exception, transaction rollback, insufficient resources, operator intervention, system error,
/// lock not available, read-only (a standby that will be promoted). `SQLite`: busy, locked, I/O error, full.
fn is_passing(code: &str) -> bool {
    match code.parse::<u32>() {
        // SQLite's extended codes keep the primary one in their low byte.
        Ok(sqlite) if code.len() < 5 => matches!(sqlite & 0xff, 5 | 6 | 10 | 13),
        _ => ["08", "40", "53", "57", "58", "55P03", "25006"].iter().any(|class| code.starts_with(class)),
    }
}

/// Postgres: data exception, check violation. `SQLite`: a check, the type of a strict table, too big, mismatch.
fn is_about_data(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(sqlite) if code.len() < 5 => matches!(sqlite, 18 | 20 | 275 | 3091),
        _ => code.starts_with("22") || code == "23514",
    }
}

impl Store {
    /// Prepares the connections without making one, so that a database that is away does not keep the gateway from
    /// starting. Must be called inside the runtime that will use it.
    ///
    /// # Errors
    /// When the options are contradictory or the URL cannot be parsed.
    pub fn open(options: &StoreOptions) -> Result<Self> {
        match &options.target {
            StoreTarget::Postgres(url) => Ok(Self::Postgres(postgres::Database::open(url, options)?)),
            StoreTarget::Sqlite(_) if options.access_tables => {
                Err(StoreError::Options("the access tables of the replaced system exist in Postgres only"))
            }
            StoreTarget::Sqlite(path) => Ok(Self::Sqlite(sqlite::Database::open(path, options)?)),
        }
    }

    /// The word for logs: `postgres` or `sqlite`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Sqlite(_) => "sqlite",
        }
    }

    /// Applies the migrations that are missing. Several gateways may do so at once. A database that is newer than this
    /// program is left as it is: old code runs on a newer schema.
    ///
    /// # Errors
    /// When the database is away or a migration fails.
    pub async fn migrate(&self) -> Result<()> {
        match self {
            Self::Postgres(database) => database.migrate().await,
            Self::Sqlite(database) => database.migrate().await,
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn health(&self) -> Result<()> {
        match self {
            Self::Postgres(database) => database.limited(postgres::health(database)).await,
            Self::Sqlite(database) => database.limited(sqlite::health(database)).await,
        }
    }

    /// How many connections there are: in use, and idle.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let (all, idle) = match self {
            Self::Postgres(database) => database.connections(),
            Self::Sqlite(database) => database.connections(),
        };
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).min(all);
        (all - idle, idle)
    }

    /// Closes the connections.
    pub async fn close(&self) {
        match self {
            Self::Postgres(database) => database.close().await,
            Self::Sqlite(database) => database.close().await,
        }
    }

    /// Takes a batch in one transaction: all of it or nothing. Events that are there already are left alone. For those
    /// that are new, local credits are burned, the access tables are written and reports are queued in the same
    /// transaction, so that each of it happens once.
    ///
    /// # Errors
    /// [`StoreError::is_data`] says that an event of the batch can never be taken.
    pub async fn append_usage(&self, events: &[UsageEvent]) -> Result<Appended> {
        match self {
            Self::Postgres(database) => database.limited(postgres::usage::append(database, events)).await,
            Self::Sqlite(database) => database.limited(sqlite::usage::append(database, events)).await,
        }
    }

    /// Sets an event aside that the store cannot take, for a person to look at: `raw` is the event as JSON, or else what
    /// the spool had; `error` says why. The same event is set aside once.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn reject_usage(&self, raw: &str, error: &str) -> Result<()> {
        let raw = without_nul(raw);
        let error = without_nul(error);
        match self {
            Self::Postgres(database) => database.limited(postgres::rejected::insert(database, &raw, &error)).await,
            Self::Sqlite(database) => database.limited(sqlite::rejected::insert(database, &raw, &error)).await,
        }
    }

    /// What was set aside, latest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn rejected_usage(&self, limit: u32) -> Result<Vec<Rejected>> {
        match self {
            Self::Postgres(database) => database.limited(postgres::rejected::list(database, limit)).await,
            Self::Sqlite(database) => database.limited(sqlite::rejected::list(database, limit)).await,
        }
    }

    /// What an account has and owes, in one statement, so that both belong to the same moment.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn snapshot(&self, source: &CreditSource, plan: &Did, holder: &EvmAddress) -> Result<Snapshot> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::credits::snapshot(database, source, plan, holder)).await
            }
            Self::Sqlite(database) => database.limited(sqlite::credits::snapshot(database, source, plan, holder)).await,
        }
    }

    /// Adds to a local balance, and says what it is then. A debt is paid first.
    ///
    /// # Errors
    /// When the database is away, or the sum is more than an `i64` holds.
    pub async fn grant(&self, holder: &EvmAddress, plan: &Did, amount: Credits) -> Result<i64> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::credits::grant(database, holder, plan, amount)).await
            }
            Self::Sqlite(database) => database.limited(sqlite::credits::grant(database, holder, plan, amount)).await,
        }
    }

    /// Local balances, of one holder or one plan or all, by plan and holder.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn balances(&self, holder: Option<&EvmAddress>, plan: Option<&Did>) -> Result<Vec<Balance>> {
        match self {
            Self::Postgres(database) => database.limited(postgres::credits::balances(database, holder, plan)).await,
            Self::Sqlite(database) => database.limited(sqlite::credits::balances(database, holder, plan)).await,
        }
    }

    /// Usage, latest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_usage(&self, filter: &UsageFilter, limit: u32) -> Result<Vec<UsageRow>> {
        match self {
            Self::Postgres(database) => database.limited(postgres::usage::list(database, filter, limit)).await,
            Self::Sqlite(database) => database.limited(sqlite::usage::list(database, filter, limit)).await,
        }
    }

    /// The events with this event id or request id: a client may have sent the same request id twice.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn show_usage(&self, id: &str) -> Result<Vec<UsageRow>> {
        match self {
            Self::Postgres(database) => database.limited(postgres::usage::show(database, id)).await,
            Self::Sqlite(database) => database.limited(sqlite::usage::show(database, id)).await,
        }
    }

    /// Sums, the largest charge first; days in their order.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn sum_usage(&self, by: GroupBy, filter: &UsageFilter) -> Result<Vec<UsageSum>> {
        let mut sums = match self {
            Self::Postgres(database) => database.limited(postgres::usage::sum(database, by, filter)).await,
            Self::Sqlite(database) => database.limited(sqlite::usage::sum_by(database, by, filter)).await,
        }?;
        match by {
            GroupBy::Day => sums.sort_by(|a, b| a.key.cmp(&b.key)),
            _ => sums.sort_by(|a, b| b.charged.cmp(&a.charged).then_with(|| a.key.cmp(&b.key))),
        }
        Ok(sums)
    }

    /// Marks as burned what the replaced system's burner has burned, or has given up on (`queue-error`: it will never
    /// burn that, so it must not weigh on the holder for ever). At most `limit` events; says how many. Nothing without
    /// access tables. To be called every few seconds where somebody else burns.
    ///
    /// # Errors
    /// When the database is away or the tables are not as nevermined.md section 9 has them.
    pub async fn adopt_burns(&self, limit: u32) -> Result<u64> {
        match self {
            Self::Postgres(database) => database.limited(postgres::access::adopt_burns(database, limit)).await,
            Self::Sqlite(_) => Ok(0),
        }
    }

    /// Claims reports that are due at `now_micros`: nobody else gets them before `lease` has passed. Claimed and never
    /// settled, they are due again then, so each is told at least once.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn claim_reports(&self, limit: u32, now_micros: i64, lease: Duration) -> Result<Vec<ReportJob>> {
        let until = now_micros.saturating_add(i64::try_from(lease.as_micros()).unwrap_or(i64::MAX));
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::report::claim(database, limit, now_micros, until)).await
            }
            Self::Sqlite(database) => database.limited(sqlite::report::claim(database, limit, now_micros, until)).await,
        }
    }

    /// These have been told.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn mark_reported(&self, events: &[Uuid]) -> Result<()> {
        match self {
            Self::Postgres(database) => database.limited(postgres::report::done(database, events)).await,
            Self::Sqlite(database) => database.limited(sqlite::report::done(database, events)).await,
        }
    }

    /// These could not be told: again at `retry_at_micros`, or, with none, never; they stay in the table with the error
    /// for a person to look at.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn fail_reports(&self, events: &[Uuid], retry_at_micros: Option<i64>, error: &str) -> Result<()> {
        let error = without_nul(error);
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::report::failed(database, events, retry_at_micros, &error)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::report::failed(database, events, retry_at_micros, &error)).await
            }
        }
    }

    /// Removes usage from before `before_micros` that nobody needs any more: its charge is burned or was nothing, and
    /// it is reported. At most `limit` rows are touched, so that no transaction grows long, each of which is an event in
    /// Postgres and thousands in `SQLite`. Says how many events it was: none are left when it says none.
    ///
    /// `before_micros` must be older than anything a spool may still hold: an event that is delivered again after its
    /// row is gone is charged again.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delete_usage_before(&self, before_micros: i64, limit: u32) -> Result<u64> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::usage::delete_before(database, before_micros, limit)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::usage::delete_before(database, before_micros, limit)).await
            }
        }
    }

    /// Uses a signed request, which can be done once: false says that it has been done, here or by another gateway.
    ///
    /// # Errors
    /// When the database is away. The request may count as used all the same.
    pub async fn use_nonce(&self, nonce: &Nonce) -> Result<bool> {
        match self {
            Self::Postgres(database) => database.limited(postgres::nonces::insert(database, nonce)).await,
            Self::Sqlite(database) => database.limited(sqlite::nonces::insert(database, nonce)).await,
        }
    }

    /// Forgets used requests that nobody takes any more, at most `limit` of them; says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delete_nonces_before(&self, before_micros: i64, limit: u32) -> Result<u64> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::nonces::delete_before(database, before_micros, limit)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::nonces::delete_before(database, before_micros, limit)).await
            }
        }
    }
}

/// All connections of a pool, and those that are idle. sqlx takes a connection before it counts one less and gives it back before
/// it counts one more, so for a moment its number may be the one before nought.
fn connections<D: sqlx::Database>(pool: &sqlx::Pool<D>) -> (u32, usize) {
    let all = pool.size();
    (all, possible(pool.num_idle(), all))
}

fn possible(idle: usize, all: u32) -> usize {
    if u32::try_from(idle).is_ok_and(|idle| idle <= all) { idle } else { 0 }
}

/// Postgres keeps no NUL in a text, and a client can write one into its path.
fn without_nul(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A time for the database; one out of range counts as the epoch.
fn to_time(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros).saturating_mul(1000))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Added up over pools, one before nought was a panic.
    #[test]
    fn a_pool_never_has_fewer_than_no_idle_connections() {
        assert_eq!([usize::MAX, 5, 4, 0].map(|idle| possible(idle, 4)), [0, 0, 4, 0]);
    }
}
