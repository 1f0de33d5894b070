//! Postgres: the database that several gateways share. Statements are checked against the migrations when the crate is
//! compiled (`.sqlx`).

pub mod access;
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

use std::{future::Future, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Result, StoreError, StoreOptions, connections};
use crate::model::secret::Secret;

/// A pool of connections.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    timeout: Duration,
    access_tables: bool,
    reports: bool,
}

impl Database {
    pub fn open(url: &Secret, options: &StoreOptions) -> Result<Self> {
        let milliseconds = options.timeout.as_millis().max(1).to_string();
        let connect = url
            .expose()
            .parse::<PgConnectOptions>()?
            .application_name("tollgate")
            // A transaction that nobody goes on with would hold its locks, and with them the other gateways.
            .options([
                ("statement_timeout", milliseconds.as_str()),
                ("idle_in_transaction_session_timeout", milliseconds.as_str()),
            ])
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections.max(1))
            .acquire_timeout(options.timeout)
            .idle_timeout(Duration::from_mins(10))
            .connect_lazy_with(connect);
        Ok(Self { pool, timeout: options.timeout, access_tables: options.access_tables, reports: options.reports })
    }

    pub async fn migrate(&self) -> Result<()> {
        // On a connection of its own, without the time limits: a migration may have much to move.
        let connect = self
            .pool
            .connect_options()
            .as_ref()
            .clone()
            .options([("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")]);
        let mut connection =
            tokio::time::timeout(self.timeout, connect.connect()).await.map_err(|_| StoreError::TimedOut)??;
        let mut migrations = sqlx::migrate!("migrations/postgres");
        migrations.set_ignore_missing(true).run_direct(None, &mut connection, false).await?;
        connection.close().await?;
        Ok(())
    }

    /// All, and those that are idle.
    pub fn connections(&self) -> (u32, usize) {
        connections(&self.pool)
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The server minds the time a statement takes; this minds a server that is not heard of any more.
    pub async fn limited<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.timeout.saturating_mul(2), operation).await.unwrap_or(Err(StoreError::TimedOut))
    }
}

pub async fn health(database: &Database) -> Result<()> {
    sqlx::query!("select 1 as one").fetch_one(&database.pool).await?;
    Ok(())
}
