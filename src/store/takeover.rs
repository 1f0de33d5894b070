//! What an import from an auth gateway's database does in ours. Nothing here undoes what was done here: clients that were
//! changed and refresh tokens that were used or taken back stay as they are, however often the import is repeated.

use uuid::Uuid;

use super::{
    Result, Store,
    grant::{Digest, Grant, Signer, on},
    postgres, sqlite,
};
use crate::model::client::Client;

/// A refresh token of the replaced server, and the grant that it stands for. Both have its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// What it stands for, as far as the replaced server's database knows.
    pub grant: Grant,
    /// The digest of its name.
    pub digest: Digest,
    /// The end of its life, in microseconds since the Unix epoch; never after its grant's, so that its row outlives it and
    /// no import takes a used one for a new one.
    pub expires_at_micros: i64,
}

impl Store {
    /// Whether the schema has what an import needs: it is up to date.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn can_take_over(&self) -> Result<bool> {
        on!(self, takeover::is_possible())
    }

    /// Whether a client is as an import left it: taken over, and not changed here since.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn is_client_untouched(&self, id: &str) -> Result<bool> {
        on!(self, takeover::is_client_untouched(id))
    }

    /// Takes a client over, or brings one up to date that is untouched. Says whether it did.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn take_over_client(&self, client: &Client) -> Result<bool> {
        on!(self, takeover::client(client))
    }

    /// Which of these grants there are.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn known_grants(&self, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        on!(self, takeover::known_grants(ids))
    }

    /// Takes refresh tokens over that are not there yet and whose client is active, in one transaction. Says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn take_over_refresh_tokens(&self, tokens: &[TakenOver]) -> Result<u64> {
        on!(self, takeover::refresh_tokens(tokens))
    }

    /// Grants whose refresh token was taken over and is still good: neither used nor taken back nor expired. By id, from
    /// after one of them.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn untouched_grants(&self, after: Option<Uuid>, now_micros: i64, limit: u32) -> Result<Vec<Uuid>> {
        on!(self, takeover::untouched_grants(after, now_micros, limit))
    }

    /// Takes back those of these grants whose refresh token was taken over and is not used yet. Says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn revoke_untouched_grants(&self, ids: &[Uuid], now_micros: i64) -> Result<u64> {
        on!(self, takeover::revoke_untouched(ids, now_micros))
    }

    /// Completes a grant that was taken over with what only the token itself and the chain know of it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn complete_grant(&self, id: Uuid, signer: &Signer, auth_time: i64) -> Result<()> {
        on!(self, takeover::complete(id, signer, auth_time))
    }

    /// Which of these events there are.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn known_oauth_events(&self, ids: &[Uuid]) -> Result<Vec<Uuid>> {
        on!(self, takeover::known_events(ids))
    }
}
