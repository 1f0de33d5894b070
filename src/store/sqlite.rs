//! `SQLite`: the embedded database, for one gateway. What differs from Postgres stays here: times are microseconds,
//! ids are texts, lists travel as one JSON text where Postgres takes arrays, and usage is kept in batches
//! (docs/adr/0013-usage-in-batches.md).

pub mod credits;
pub mod nonces;
pub mod oauth_challenge;
pub mod oauth_client;
pub mod oauth_device;
pub mod oauth_event;
pub mod oauth_grant;
pub mod oauth_session;
pub mod rate;
pub mod rejected;
pub mod report;
pub mod takeover;
pub mod usage;

use std::{future::Future, path::Path, time::Duration};

use sqlx::{
    ConnectOptions, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Result, StoreError, StoreOptions, connections};

/// One connection that writes, since `SQLite` has one writer at a time and waiting in our own queue is fairer than its
/// busy handler; and some that read.
#[derive(Clone, Debug)]
pub struct Database {
    write: SqlitePool,
    read: SqlitePool,
    timeout: Duration,
    reports: bool,
}

impl Database {
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(sqlx::Error::Io)?;
        }
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A commit has to be on the disk when the spool forgets the event.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(options.timeout)
            .foreign_keys(true)
            .disable_statement_logging();
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(options.timeout)
                // A file does not hang up, and each question wakes the thread that has the connection.
                .test_before_acquire(false)
                .connect_lazy_with(connect.clone())
        };
        Ok(Self {
            write: pool(1),
            read: pool(options.max_connections.max(1)),
            timeout: options.timeout,
            reports: options.reports,
        })
    }

    pub async fn migrate(&self) -> Result<()> {
        let mut migrations = sqlx::migrate!("migrations/sqlite");
        migrations.set_ignore_missing(true).run(&self.write).await?;
        usage::conversion::run(self).await
    }

    /// All, and those that are idle.
    pub fn connections(&self) -> (u32, usize) {
        let [(read, read_idle), (write, write_idle)] = [&self.read, &self.write].map(connections);
        (read.saturating_add(write), read_idle.saturating_add(write_idle))
    }

    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    pub async fn limited<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.timeout.saturating_mul(2), operation).await.unwrap_or(Err(StoreError::TimedOut))
    }
}

pub async fn health(database: &Database) -> Result<()> {
    sqlx::query("select 1").execute(&database.read).await?;
    Ok(())
}

/// A list for `in (select value from json_each(…))`.
fn json_list(ids: &[String]) -> String {
    serde_json::Value::from(ids).to_string()
}
