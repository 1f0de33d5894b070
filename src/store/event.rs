//! What happened at the authorization server, by client.

use uuid::Uuid;

use super::{Result, Store, challenge::Digest, grant::on, postgres, row::count, sqlite};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub id: Uuid,
    /// When, in microseconds since the Unix epoch.
    pub at_micros: i64,
    /// With which client.
    pub client_id: String,
    /// What: `token_exchange`, `authorize`, … (auth-gateway.md section 12).
    pub kind: String,
    /// `success`, `failure`, `rejected` or `pending`.
    pub outcome: String,
    /// Why not, if not.
    pub reason: Option<String>,
    /// `sr25519` or `evm`, where a wallet took part.
    pub wallet: Option<String>,
    /// SHA-256 of the account.
    pub subject: Option<Digest>,
    /// Scopes with a blank between them.
    pub scope: String,
    /// A JSON object.
    pub detail: String,
}

/// How many, of which which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Token requests that were answered with yes or no; polls of devices that wait do not count.
    pub exchanges: u64,
    /// Yes.
    pub successes: u64,
    /// No.
    pub failures: u64,
    /// Accounts that got tokens, each counted once.
    pub distinct_users: u64,
}

/// A client's numbers since some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// All together.
    pub totals: Counts,
    /// Failures by reason, most first.
    pub reasons: Vec<(String, u64)>,
    /// Scopes of successful exchanges as they were asked for together, with a blank between them.
    pub scopes: Vec<(String, u64)>,
    /// By time: the beginning in seconds since the Unix epoch, and the numbers from then on.
    pub buckets: Vec<(i64, Counts)>,
}

impl Store {
    /// Keeps events. The same event is kept once.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn append_oauth_events(&self, events: &[Event]) -> Result<()> {
        // Of no rows no statement can be made.
        if events.is_empty() {
            return Ok(());
        }
        on!(self, oauth_event::append(events))
    }

    /// A client's events, latest first, from before one of them: its time and its name.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn oauth_events(&self, client_id: &str, before: Option<(i64, Uuid)>, limit: u32) -> Result<Vec<Event>> {
        on!(self, oauth_event::list(client_id, before, limit))
    }

    /// A client's numbers since a moment, in buckets of so many seconds.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn oauth_stats(&self, client_id: &str, since_micros: i64, bucket_seconds: u32) -> Result<ClientStats> {
        on!(self, oauth_event::stats(client_id, since_micros, i64::from(bucket_seconds.max(1))))
    }

    /// Everybody's numbers since a moment: by client, and all together.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn oauth_overview(&self, since_micros: i64) -> Result<(Counts, Vec<(String, Counts)>)> {
        on!(self, oauth_event::overview(since_micros))
    }

    /// Removes events from before; at most `limit`; says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn delete_oauth_events_before(&self, before_micros: i64, limit: u32) -> Result<u64> {
        on!(self, oauth_event::delete_before(before_micros, limit))
    }
}

impl Counts {
    pub(super) fn of(successes: i64, failures: i64, users: i64) -> Self {
        let (successes, failures) = (count(successes), count(failures));
        Self { exchanges: successes.saturating_add(failures), successes, failures, distinct_users: count(users) }
    }
}
