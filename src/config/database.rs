//! `[database]`: where usage and credits are kept.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use super::{
    context::{Context, Found, Recorded},
    reader::Section,
    value::Timeout,
};
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

impl Database {
    /// `reports`: whether usage is reported to the backend.
    pub(super) fn read(section: &Section<'_>, data_dir: &Path, reports: bool) -> Self {
        let target = read_target(section).unwrap_or_default();
        let target = target.unwrap_or_else(|| DatabaseTarget::Sqlite(data_dir.join("tollgate.db")));
        let postgres = matches!(target, DatabaseTarget::Postgres(_));
        let access_tables = section.optional::<bool>("access_tables", &["TOLLGATE_ACCESS_TABLES"]);
        if let Some(Found { value: true, at }) = &access_tables {
            if !postgres {
                section.context.mistake(at, "the access tables exist in Postgres only");
            } else if reports {
                let message = "usage is also reported to the backend, which fills the same tables: \
                               every request would be charged twice; choose one of the two";
                section.context.mistake(at, message);
            }
        }
        Self {
            target,
            migrate_at_start: section.or("migrate_at_start", true) && !migrations_forbidden(section.context),
            max_connections: section.within("max_connections", 1..=1000, 8),
            timeout: section.or("timeout", Timeout(Duration::from_secs(10))).0,
            access_tables: access_tables.map_or(postgres && !reports, |found| found.value),
        }
    }
}

/// The database that is asked for, the strongest wish first: `DATABASE_URL`, `PG_*`, the file.
fn read_target(section: &Section<'_>) -> Result<Option<DatabaseTarget>, Recorded> {
    let context = section.context;
    section.know_secret("url");
    let variable = context.secret_variable("DATABASE_URL");
    let parts = read_parts(context);
    let url = match variable?.or(parts?) {
        Some(url) => Some(url),
        None => section.secret("url", None)?,
    };
    let Some(Found { value: url, at }) = url else { return Ok(None) };
    parse_target(&url).map(Some).map_err(|message| {
        context.mistake(&at, message);
        Recorded
    })
}

/// Only the exact word was true to the auth gateway.
fn migrations_forbidden(context: &Context<'_>) -> bool {
    let alone = context.replaced().auth_gateway;
    alone && context.variable("RUN_MIGRATIONS").is_some_and(|found| found.value != "true")
}

/// Whether the environment names a Postgres database.
pub(super) fn postgres_in_environment(context: &Context<'_>) -> bool {
    let url = context.secret_variable("DATABASE_URL").ok().flatten();
    url.map_or_else(
        || PARTS.iter().any(|name| context.variable(name).is_some()),
        |found| matches!(parse_target(&found.value), Ok(DatabaseTarget::Postgres(_))),
    )
}

const PARTS: [&str; 6] = ["PG_HOST", "PG_PORT", "PG_USER", "PG_DB", "PG_PASSWORD", "PG_PASSWORD_FILE"];

/// `PG_*`, with the replaced burner's defaults for those that are not set. None if none is.
fn read_parts(context: &Context<'_>) -> Result<Option<Found<Secret>>, Recorded> {
    let port = context.parsed_variable::<u16>(&["PG_PORT"])?;
    let password = context.secret_variable("PG_PASSWORD")?;
    let text = |name, default| context.variable(name).map_or(default, |found| found.value);
    let (host, user, database) = (text("PG_HOST", "localhost"), text("PG_USER", "postgres"), text("PG_DB", "nvm_one"));
    let Some(at) = PARTS.iter().find_map(|name| Some(context.variable(name)?.at)) else { return Ok(None) };
    let build = || {
        let mut url = Url::parse("postgres://localhost").ok()?;
        if host.starts_with('/') {
            url.query_pairs_mut().append_pair("host", host);
        } else {
            url.set_host(Some(host)).ok()?;
        }
        url.set_port(Some(port.map_or(5432, |found| found.value))).ok()?;
        url.set_username(user).ok()?;
        url.set_password(password.as_ref().map(|found| found.value.expose())).ok()?;
        url.path_segments_mut().ok()?.push(database);
        Some(Secret::new(url.into()))
    };
    let Some(value) = build() else {
        context.mistake_in_variable("PG_HOST", format!("must be a host name, and is {host:?}"));
        return Err(Recorded);
    };
    Ok(Some(Found { value, at }))
}

/// Which database a URL names. The message never repeats it: it holds a password.
fn parse_target(url: &Secret) -> Result<DatabaseTarget, String> {
    const WHAT: &str = "must be postgres://user:password@host:port/database or sqlite://path";
    let text = url.expose();
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.starts_with(":memory:") || path.contains(['?', '#']) {
            return Err(format!("{WHAT}: a file, without parameters; one in memory would forget what is owed"));
        }
        return Ok(DatabaseTarget::Sqlite(path.into()));
    }
    let parsed = Url::parse(text).map_err(|_| WHAT.to_owned())?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(WHAT.into());
    }
    Ok(DatabaseTarget::Postgres(url.clone()))
}
