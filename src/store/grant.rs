//! What wallet holders granted to clients: authorize sessions, grants, codes and refresh tokens.
//!
//! A [`Grant`] is the family of all tokens that came from one signature. Whatever is presented once and never again (a
//! session, a code, a refresh token) is used up by one statement, so that of many who present it at the same time, at
//! whichever gateway, one succeeds.

use uuid::Uuid;

pub use super::challenge::Digest;
use super::{Result, Store, postgres, sqlite};
pub use crate::model::identity::SignerKind;

/// The wallet that signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its address: SS58 with prefix 42, or EIP-55.
    pub account: String,
    /// What it is.
    pub kind: SignerKind,
    /// The hotkey, if it is one.
    pub hotkey: Option<String>,
    /// The coldkey: the wallet itself, or the hotkey's owner.
    pub coldkey: Option<String>,
}

/// A permission, and with it the family of tokens that came from one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: Uuid,
    /// Whom it was given to.
    pub client_id: String,
    /// Who gave it.
    pub signer: Signer,
    /// Scopes with a blank between them.
    pub scope: String,
    /// What the access tokens are for (RFC 8707), URIs with a blank between them; empty: the usual audience.
    pub resource: String,
    /// The OpenID nonce of the authorization request.
    pub nonce: Option<String>,
    /// When the wallet signed, in seconds since the Unix epoch.
    pub auth_time: i64,
    /// However often it is refreshed, it ends then; in microseconds since the Unix epoch.
    pub expires_at_micros: i64,
}

/// An authorization request that waits for a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// The digest of the cookie of the browser that began it.
    pub browser: Digest,
    /// Who asks.
    pub client_id: String,
    /// Where the answer goes.
    pub redirect_uri: String,
    /// For which scopes, with a blank between them.
    pub scope: String,
    /// For which resources.
    pub resource: String,
    /// What the client wants to see again.
    pub state: Option<String>,
    /// The OpenID nonce.
    pub nonce: Option<String>,
    /// The S256 challenge of PKCE (RFC 7636).
    pub code_challenge: Option<String>,
    /// The end of its life, in microseconds since the Unix epoch.
    pub expires_at_micros: i64,
}

/// An authorization code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// What it stands for.
    pub grant: Grant,
    /// The address it was sent to.
    pub redirect_uri: String,
    /// The S256 challenge of PKCE (RFC 7636).
    pub code_challenge: Option<String>,
    /// The end of its life, in microseconds since the Unix epoch.
    pub expires_at_micros: i64,
    /// Whether it has been exchanged.
    pub redeemed: bool,
}

/// A code to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewCode {
    /// Its digest.
    pub digest: Digest,
    /// The end of its life, in microseconds since the Unix epoch.
    pub expires_at_micros: i64,
}

/// A refresh token to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewRefreshToken {
    /// Its digest.
    pub digest: Digest,
    /// The end of its life, in microseconds since the Unix epoch; never after its grant's.
    pub expires_at_micros: i64,
}

/// A refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// What it stands for.
    pub grant: Grant,
    /// The end of its life, in microseconds since the Unix epoch.
    pub expires_at_micros: i64,
    /// When it was exchanged for the next one, in microseconds since the Unix epoch.
    pub used_at_micros: Option<i64>,
    /// Whether the grant was taken back.
    pub revoked: bool,
}

impl std::fmt::Debug for Session {
    /// Without what belongs to the browser and the client alone.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("client_id", &self.client_id)
            .field("redirect_uri", &self.redirect_uri)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// The arms of an operation on both databases.
macro_rules! on {
    ($self:ident, $topic:ident :: $operation:ident ( $($argument:expr),* )) => {
        match $self {
            Self::Postgres(database) => database.limited(postgres::$topic::$operation(database, $($argument),*)).await,
            Self::Sqlite(database) => database.limited(sqlite::$topic::$operation(database, $($argument),*)).await,
        }
    };
}
pub(super) use on;

impl Store {
    /// Keeps an authorization request until somebody signs.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn insert_session(&self, digest: &Digest, session: &Session) -> Result<()> {
        on!(self, oauth_session::insert(digest, session))
    }

    /// An authorization request that still waits.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn session(&self, digest: &Digest, now_micros: i64) -> Result<Option<Session>> {
        on!(self, oauth_session::find(digest, now_micros))
    }

    /// Ends an authorization request without a grant. False: it had ended already.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn end_session(&self, digest: &Digest, now_micros: i64) -> Result<bool> {
        on!(self, oauth_session::end(digest, now_micros))
    }

    /// Ends an authorization request with a grant and a code for it, in one transaction. False: it had ended already.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn approve_session(
        &self,
        digest: &Digest,
        grant: &Grant,
        code: &NewCode,
        now_micros: i64,
    ) -> Result<bool> {
        on!(self, oauth_session::approve(digest, grant, code, now_micros))
    }

    /// A code, whether or not it is still good.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn code(&self, digest: &Digest) -> Result<Option<Code>> {
        on!(self, oauth_grant::code(digest))
    }

    /// Exchanges a code for the first refresh token of its grant, in one transaction. False: somebody was faster, or it
    /// has expired, or the grant was taken back.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn redeem_code(&self, digest: &Digest, token: &NewRefreshToken, now_micros: i64) -> Result<bool> {
        on!(self, oauth_grant::redeem_code(digest, token, now_micros))
    }

    /// A refresh token, whether or not it is still good.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn refresh_token(&self, digest: &Digest) -> Result<Option<RefreshToken>> {
        on!(self, oauth_grant::refresh_token(digest))
    }

    /// Exchanges a refresh token for the next one. False: it is used, has expired, or its grant has ended.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn rotate_refresh_token(&self, old: &Digest, new: &NewRefreshToken, now_micros: i64) -> Result<bool> {
        on!(self, oauth_grant::rotate(old, new, now_micros))
    }

    /// Exchanges a refresh token that was used already for another one, in place of the one it was exchanged for: the
    /// answer seems to have been lost. Once for each, only if it was first used at or after `used_since_micros`, and only
    /// if nobody has used what it was exchanged for. False otherwise.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn forgive_refresh_token(
        &self,
        old: &Digest,
        new: &NewRefreshToken,
        used_since_micros: i64,
        now_micros: i64,
    ) -> Result<bool> {
        on!(self, oauth_grant::forgive(old, new, used_since_micros, now_micros))
    }

    /// Whether a grant still stands: neither it nor its client was taken back, and its time has not come.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn grant_stands(&self, id: Uuid, now_micros: i64) -> Result<bool> {
        on!(self, oauth_grant::stands(id, now_micros))
    }

    /// Takes a grant back, and with it all its tokens. False: it was taken back before, or is unknown.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn revoke_grant(&self, id: Uuid, now_micros: i64) -> Result<bool> {
        on!(self, oauth_grant::revoke(id, now_micros))
    }

    /// Takes back all that a client was granted. Says how many grants.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn revoke_client(&self, client_id: &str, now_micros: i64) -> Result<u64> {
        on!(self, oauth_grant::revoke_client(client_id, now_micros))
    }

    /// The grants that do not stand: those taken back at or after `since_micros`, and those of clients that were deactivated.
    /// Not those whose time has come: no token outlives its grant.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn revoked_grants(&self, since_micros: i64) -> Result<Vec<Uuid>> {
        on!(self, oauth_grant::revoked(since_micros))
    }

    /// How many refresh tokens can be used, of all clients together. Looks at all of them.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn usable_refresh_tokens(&self, now_micros: i64) -> Result<u64> {
        on!(self, oauth_grant::usable_refresh_tokens(now_micros))
    }

    /// Removes what nobody can present any more, and what only proved that something was used: at most `limit` rows of
    /// each kind, so that no transaction grows long; says how many. To be called every minute, by any number of gateways.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn sweep_oauth(&self, now_micros: i64, limit: u32) -> Result<u64> {
        let challenges = on!(self, oauth_challenge::sweep(now_micros, limit))?;
        let sessions = on!(self, oauth_session::sweep(now_micros, limit))?;
        let devices = on!(self, oauth_device::sweep(now_micros, limit))?;
        let tokens = on!(self, oauth_grant::sweep(now_micros, limit))?;
        Ok(challenges.saturating_add(sessions).saturating_add(devices).saturating_add(tokens))
    }
}
