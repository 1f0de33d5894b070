//! `[database]`: where usage and credits are kept.

use std::{path::PathBuf, time::Duration};

use crate::model::secret::Secret;

/// The database.
#[derive(Clone, Debug)]
pub struct Database {
    /// `url`, `url_file`, `DATABASE_URL` or the `PG_*` variables. Default: `tollgate.db` in the data directory.
    pub target: DatabaseTarget,
    /// `migrate_at_start`: bring the schema up to date before serving. Default true.
    pub migrate_at_start: bool,
    /// `max_connections`: size of the pool. Default 8.
    pub max_connections: u32,
    /// `timeout`: how long one statement, or waiting for a connection, may take. Default 10 s.
    pub timeout: Duration,
    /// `access_tables` or `TOLLGATE_ACCESS_TABLES`: also write `"accessTransactions"` and `"accessProcessorQueue"`, the
    /// replaced system's tables (nevermined.md section 9), which its credits burner works from. Only in Postgres, where
    /// it is the default, unless usage is reported to the backend: that fills the same tables, and every request
    /// would be charged twice.
    pub access_tables: bool,
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseTarget {
    /// A file that we alone use. Written `sqlite://path`.
    Sqlite(PathBuf),
    /// A server that many gateways may share: `postgres://user:password@host:port/database`. Holds a password.
    Postgres(Secret),
}
