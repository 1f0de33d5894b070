//! The database of the replaced auth gateway, to be read (auth-gateway.md section 7).
//!
//! One transaction, which sees one moment and can change nothing. Rows come in pages, so that memory stays bounded however
//! much there is. This is not our schema, so nothing here is checked when the crate is compiled: what it must have is asked
//! of the database, and columns are cast to the types they are said to have.

use std::{future::Future, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgRow},
};
use uuid::Uuid;

use crate::model::secret::Secret;

/// The database, and the moment it is seen at.
pub struct AuthGateway {
    connection: PgConnection,
    place: String,
    migrations: u32,
}

/// Why it cannot be read. No password is in here.
#[derive(Debug, thiserror::Error)]
pub enum AuthGatewayError {
    /// The text names no database of this kind.
    #[error("it must be the URL of a Postgres database, postgres://user@host/database")]
    NoUrl,
    /// Nobody answers, or the server refuses.
    #[error("{place} cannot be opened: {error}")]
    Closed {
        /// Which database.
        place: String,
        /// What the server or the system says.
        error: sqlx::Error,
    },
    /// Not an auth gateway's.
    #[error(
        "{place} has no table {table} that {user} can see: it is not an auth gateway's database, or the tables are in \
             another schema (`?options=-csearch_path%3DSCHEMA` at the end of the URL)"
    )]
    NoSchema {
        /// Which database.
        place: String,
        /// What it lacks.
        table: &'static str,
        /// As whom we look.
        user: String,
    },
    /// A table that the user may not read.
    #[error("{user} may not read the table {table} in {place}: grant select on {table} to {user}")]
    NoRight {
        /// Which database.
        place: String,
        /// Which table.
        table: &'static str,
        /// As whom we look.
        user: String,
    },
    /// A table is not as section 7 has it.
    #[error("the table {table} in {place} has no column {column}: this is no schema that the import knows")]
    NoColumn {
        /// Which database.
        place: String,
        /// Which table.
        table: &'static str,
        /// What it lacks.
        column: &'static str,
    },
    /// A schema that is newer than this program, or another one.
    #[error("{place} has the migration {name}, which the import does not know (it knows 001 to {LATEST:03})")]
    UnknownMigration {
        /// Which database.
        place: String,
        /// The migration's name.
        name: String,
    },
    /// Something went wrong on the way.
    #[error("reading {place}: {error}")]
    Reading {
        /// Which database.
        place: String,
        /// What.
        error: sqlx::Error,
    },
    /// The server is not heard of any more.
    #[error("{place} does not answer")]
    TimedOut {
        /// Which database.
        place: String,
    },
}

/// The result of reading.
pub type Result<T, E = AuthGatewayError> = std::result::Result<T, E>;

/// A row of `oauth_clients`, times in microseconds since the Unix epoch. An element of a list that is null reads as empty.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ClientRow {
    /// `client_id`
    pub client_id: String,
    /// `client_secret_hash`
    pub secret_hash: Option<String>,
    /// `client_name`
    pub name: String,
    /// `client_type`: `confidential` or `public`.
    pub kind: String,
    /// `redirect_uris`
    pub redirect_uris: Vec<String>,
    /// `grant_types`
    pub grant_types: Vec<String>,
    /// `allowed_scopes`
    pub allowed_scopes: Vec<String>,
    /// `allowed_origins`
    pub allowed_origins: Vec<String>,
    /// `allowed_sign_methods`; empty where migration 009 is missing.
    pub sign_methods: Vec<String>,
    /// `rate_limit`
    pub rate_limit: i32,
    /// `active`
    pub active: bool,
    /// `created_at`
    pub created_at: i64,
    /// `updated_at`
    pub updated_at: i64,
}

/// A row of `refresh_tokens`, times in microseconds since the Unix epoch.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct RefreshTokenRow {
    /// `jti`: the token's name.
    pub jti: Uuid,
    /// `client_id`
    pub client_id: String,
    /// `address`, as it was written when its owner signed.
    pub address: String,
    /// `scopes`
    pub scopes: Vec<String>,
    /// `revoked`: used, for the most part.
    pub revoked: bool,
    /// `expires_at`
    pub expires_at: i64,
    /// `created_at`
    pub created_at: i64,
}

/// A row of `oauth_events`, the time in microseconds since the Unix epoch.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EventRow {
    /// `id`
    pub id: Uuid,
    /// `occurred_at`
    pub at: i64,
    /// `client_id`
    pub client_id: String,
    /// `event_type`
    pub kind: String,
    /// `outcome`
    pub outcome: String,
    /// `error_reason`
    pub reason: Option<String>,
    /// `sign_method`
    pub wallet: Option<String>,
    /// `subject_hash`
    pub subject: Option<Vec<u8>>,
    /// `scopes`
    pub scopes: Vec<String>,
    /// `metadata`: JSON.
    pub metadata: String,
}

/// Rows of a page.
pub const PAGE: u32 = 500;

/// The last migration whose schema is known.
const LATEST: u32 = 13;
/// The one that brought `allowed_sign_methods`.
const SIGN_METHODS: u32 = 9;

/// Tables, the migration that brought each, and what is read of it.
const TABLES: [(&str, u32, &[&str]); 3] = [
    (
        "oauth_clients",
        1,
        &[
            "client_id",
            "client_secret_hash",
            "client_name",
            "client_type",
            "redirect_uris",
            "grant_types",
            "allowed_scopes",
            "allowed_origins",
            "rate_limit",
            "active",
            "created_at",
            "updated_at",
        ],
    ),
    ("refresh_tokens", 2, &["jti", "client_id", "address", "scopes", "revoked", "expires_at", "created_at"]),
    (
        "oauth_events",
        LATEST,
        &[
            "id",
            "occurred_at",
            "client_id",
            "event_type",
            "outcome",
            "error_reason",
            "sign_method",
            "subject_hash",
            "scopes",
            "metadata",
        ],
    ),
];

/// How long one statement may take.
const PATIENCE: Duration = Duration::from_mins(1);

impl AuthGateway {
    /// Connects, begins to read, and makes sure that it is an auth gateway's database of a version that is known.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub async fn open(url: &Secret, timeout: Duration) -> Result<Self> {
        let scheme = url.expose().split_once("://").map(|(scheme, _)| scheme);
        let options = match scheme {
            Some("postgres" | "postgresql") => url.expose().parse::<PgConnectOptions>().ok(),
            _ => None,
        };
        let options = options.ok_or(AuthGatewayError::NoUrl)?.application_name("tollgate-import");
        let database = options.get_database().unwrap_or(options.get_username());
        let place = format!("the database {database} at {}:{}", options.get_host(), options.get_port());
        let user = options.get_username().to_owned();
        let options = options.disable_statement_logging();
        let connection = match tokio::time::timeout(timeout, options.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(AuthGatewayError::Closed { place, error }),
            Err(_) => return Err(AuthGatewayError::TimedOut { place }),
        };
        let mut opened = Self { connection, place, migrations: 0 };
        for statement in [
            "begin isolation level repeatable read, read only",
            // The server ends a transaction whose reader is not heard of any more.
            "set local idle_in_transaction_session_timeout = '10min'",
            "set local statement_timeout = '1min'",
        ] {
            let done = sqlx::query(statement).execute(&mut opened.connection);
            limited(&opened.place, done).await?;
        }
        opened.migrations = opened.known_migrations(&user).await?;
        for (table, since, columns) in TABLES {
            if since <= opened.migrations {
                opened.check_table(table, columns, &user).await?;
            }
        }
        Ok(opened)
    }

    /// Which database it is, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The number of its latest migration.
    #[must_use]
    pub fn migrations(&self) -> u32 {
        self.migrations
    }

    /// Clients, by id, from after one of them: at most [`PAGE`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn clients(&mut self, after: Option<&str>) -> Result<Vec<ClientRow>> {
        let there = self.migrations >= SIGN_METHODS;
        let sign_methods = if there { "array_replace(allowed_sign_methods, null, '')" } else { "'{}'" };
        let statement = format!(
            "
            select client_id::text, client_secret_hash::text as secret_hash, client_name::text as name,
                   client_type::text as kind, array_replace(redirect_uris, null, '')::text[] as redirect_uris,
                   array_replace(grant_types, null, '')::text[] as grant_types,
                   array_replace(allowed_scopes, null, '')::text[] as allowed_scopes,
                   array_replace(allowed_origins, null, '')::text[] as allowed_origins,
                   {sign_methods}::text[] as sign_methods, rate_limit::integer, active,
                   {created} as created_at, {updated} as updated_at
              from oauth_clients
             where $1::text is null or client_id > $1
             order by client_id
             limit $2
            ",
            created = micros("created_at"),
            updated = micros("updated_at"),
        );
        self.page(&statement, after.map(str::to_owned)).await
    }

    /// Refresh tokens, by name, from after one of them: at most [`PAGE`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refresh_tokens(&mut self, after: Option<Uuid>) -> Result<Vec<RefreshTokenRow>> {
        if !self.has("refresh_tokens") {
            return Ok(Vec::new());
        }
        let statement = format!(
            "
            select jti::uuid, client_id::text, address::text, array_replace(scopes, null, '')::text[] as scopes, revoked,
                   {expires} as expires_at, {created} as created_at
              from refresh_tokens
             where $1::uuid is null or jti > $1
             order by jti
             limit $2
            ",
            expires = micros("expires_at"),
            created = micros("created_at"),
        );
        self.page(&statement, after).await
    }

    /// Which of these refresh tokens are still good there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn good_refresh_tokens(&mut self, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        if !self.has("refresh_tokens") {
            return Ok(Vec::new());
        }
        let good = sqlx::query_scalar("select jti::uuid from refresh_tokens where jti = any($1) and not revoked");
        let good = good.bind(ids.to_vec()).fetch_all(&mut self.connection);
        limited(&self.place, good).await
    }

    /// Events since a moment, by id, from after one of them: at most [`PAGE`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(&mut self, since_micros: i64, after: Option<Uuid>) -> Result<Vec<EventRow>> {
        if !self.has("oauth_events") {
            return Ok(Vec::new());
        }
        let statement = format!(
            "
            select id::uuid, {at} as at, client_id::text, event_type::text as kind, outcome::text,
                   error_reason::text as reason, sign_method::text as wallet, subject_hash as subject,
                   array_replace(scopes, null, '')::text[] as scopes, metadata::text
              from oauth_events
             where ($1::uuid is null or id > $1) and occurred_at >= to_timestamp({since_micros}::double precision / 1000000)
             order by id
             limit $2
            ",
            at = micros("occurred_at"),
        );
        self.page(&statement, after).await
    }

    /// Ends the transaction.
    pub async fn close(self) {
        // Nothing was written, and the server notices an end that it was not told.
        let _ = tokio::time::timeout(PATIENCE, self.connection.close()).await;
    }

    fn has(&self, table: &str) -> bool {
        TABLES.iter().any(|(name, since, _)| *name == table && *since <= self.migrations)
    }

    async fn page<K, R>(&mut self, statement: &str, after: Option<K>) -> Result<Vec<R>>
    where
        K: for<'q> sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + 'static,
        R: for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin,
    {
        let page = sqlx::query_as(AssertSqlSafe(statement.to_owned())).bind(after).bind(i64::from(PAGE));
        limited(&self.place, page.fetch_all(&mut self.connection)).await
    }

    /// The number of the latest migration. All of them must be known: another schema may mean other things by the same
    /// words.
    async fn known_migrations(&mut self, user: &str) -> Result<u32> {
        self.check_table("_migrations", &["name"], user).await?;
        let names = sqlx::query_scalar("select name::text from _migrations order by 1 limit 1000");
        let names: Vec<String> = limited(&self.place, names.fetch_all(&mut self.connection)).await?;
        let mut latest = 0;
        for name in names {
            let digits = name.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
            match digits.parse::<u32>() {
                Ok(number @ 1..=LATEST) => latest = latest.max(number),
                _ => return Err(AuthGatewayError::UnknownMigration { place: self.place.clone(), name }),
            }
        }
        if latest == 0 {
            let (place, user) = (self.place.clone(), user.to_owned());
            return Err(AuthGatewayError::NoSchema { place, table: "oauth_clients", user });
        }
        Ok(latest)
    }

    async fn check_table(&mut self, table: &'static str, columns: &[&'static str], user: &str) -> Result<()> {
        let may_read = sqlx::query_scalar("select has_table_privilege(to_regclass($1)::oid, 'select')").bind(table);
        let may_read: Option<bool> = limited(&self.place, may_read.fetch_one(&mut self.connection)).await?;
        let (place, user) = (self.place.clone(), user.to_owned());
        match may_read {
            None => return Err(AuthGatewayError::NoSchema { place, table, user }),
            Some(false) => return Err(AuthGatewayError::NoRight { place, table, user }),
            Some(true) => {}
        }
        let there = sqlx::query_scalar(
            "select attname::text from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped",
        );
        let there: Vec<String> = limited(&place, there.bind(table).fetch_all(&mut self.connection)).await?;
        match columns.iter().find(|column| there.iter().all(|name| name != *column)) {
            None => Ok(()),
            Some(column) => Err(AuthGatewayError::NoColumn { place, table, column }),
        }
    }
}

/// The server minds the time a statement takes; this minds a server that is not heard of any more.
async fn limited<T>(place: &str, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE.saturating_mul(2), work).await {
        Ok(done) => done.map_err(|error| AuthGatewayError::Reading { place: place.to_owned(), error }),
        Err(_) => Err(AuthGatewayError::TimedOut { place: place.to_owned() }),
    }
}

fn micros(column: &str) -> String {
    format!("(extract(epoch from {column}) * 1000000)::bigint")
}
