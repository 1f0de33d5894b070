//! Access tokens of our own authorization server, as a credential of routes (RFC 9068).
//!
//! All that is asked is known here: the keys, which the authorization server in the same process signs with, and the grants
//! that were taken back lately. No question goes anywhere while a request waits.
//!
//! That a token is genuine is remembered, for as long as the key that signed it is one of ours. Whether it is valid now
//! (its time, its audience, its grant) is asked at every use, and what it entitles to is `authz`' question.

pub mod revocations;

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use uuid::Uuid;

use self::revocations::Revocations;
use super::{Presented, genuine::Genuine};
use crate::{
    jose::{JwsError, KeySet},
    model::{
        address::EvmAddress,
        clock::Timestamp,
        decision::{Denial, Reason},
        identity::{AccessToken, Identity, Proof, SignerKind, Subject},
    },
};

/// The `typ` of an access token (RFC 9068 section 2.1).
const TYPE: &str = "at+jwt";
/// The claim that tells it from the other tokens that the replaced server signed with the same key (auth-gateway.md section 3).
const KIND: &str = "access";
/// How far ahead of ours the clock of a gateway that issues tokens may be. How late a token ends is not stretched: its
/// introspection says that it has ended, and so do we.
const CLOCK_SKEW: Duration = Duration::from_secs(5);
/// Tokens of ordinary size that are remembered.
const MAX_REMEMBERED: usize = 50_000;

/// Verifies access tokens.
pub struct AccessTokens {
    keys: Arc<KeySet>,
    issuer: String,
    lifetime: Duration,
    revocations: Arc<Revocations>,
    genuine: Genuine<Arc<Token>>,
}

/// A genuine token.
struct Token {
    identity: Arc<Identity>,
    audience: Audience,
    /// The key that signed it.
    kid: String,
}

/// What a token says (RFC 9068 section 2.2), as far as anybody here wants to know.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    iat: i64,
    nbf: Option<i64>,
    client_id: Option<String>,
    scope: String,
    #[serde(rename = "type")]
    kind: String,
    signer_type: String,
    grant_id: Option<Uuid>,
}

/// Whom a token is for (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

const MALFORMED: Reason = "malformed_claims";

impl AccessTokens {
    /// Takes the keys that sign, the name of who does, the longest that a token may live, and what tells which grants were
    /// taken back.
    #[must_use]
    pub fn new(keys: Arc<KeySet>, issuer: String, lifetime: Duration, revocations: Arc<Revocations>) -> Self {
        Self { keys, issuer, lifetime, revocations, genuine: Genuine::new(MAX_REMEMBERED) }
    }

    /// Which grants were taken back: whoever reads the database publishes them there.
    #[must_use]
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// How long ago a grant may have been taken back that still has tokens which would be valid otherwise: the longest life
    /// of a token, and a while for clocks of gateways that differ.
    #[must_use]
    pub fn memory(&self) -> Duration {
        self.lifetime.saturating_add(Duration::from_mins(5))
    }

    /// Finds out who is calling, and by whose leave.
    ///
    /// `Ok(None)` means that no `Authorization` header was presented; see [`super::nevermined::TokenVerifier::identify`].
    ///
    /// # Errors
    /// [`Denial::InvalidCredential`] with one of these reasons:
    ///
    /// | Reason | The token |
    /// | --- | --- |
    /// | `malformed_authorization` | is not in the header ([`super::Authorization::bearer`]) |
    /// | `token_too_long`, `malformed_token` | is no signed token |
    /// | `token_type` | is another one: an ID token, say |
    /// | `token_critical_header` | has extensions that nobody here understands |
    /// | `unknown_key` | names no key of ours, or another algorithm than the key's |
    /// | `wrong_signature` | was not signed by that key, or changed afterwards |
    /// | `malformed_claims` | lacks a claim, or has one of a wrong form |
    /// | `wrong_issuer`, `wrong_audience` | is from or for somebody else |
    /// | `expired`, `not_yet_valid` | is genuine, but not now |
    /// | `revoked` | belongs to a grant that was taken back |
    ///
    /// [`Denial::Unavailable`] when it cannot be known whether the grant was taken back.
    pub fn identify(
        &self,
        presented: &Presented<'_>,
        audience: &str,
        now: Timestamp,
    ) -> Result<Option<Arc<Identity>>, Denial> {
        let Some(unverified_token) = presented.authorization.bearer()? else { return Ok(None) };
        let token = self.genuine(unverified_token).map_err(Denial::InvalidCredential)?;
        let identity = &token.identity;
        if !token.audience.has(audience) {
            return Err(Denial::InvalidCredential("wrong_audience"));
        }
        if identity.expires_at.is_none_or(|moment| moment <= now) {
            return Err(Denial::InvalidCredential("expired"));
        }
        if identity.not_before.is_some_and(|moment| moment > now.plus(CLOCK_SKEW)) {
            return Err(Denial::InvalidCredential("not_yet_valid"));
        }
        let grant = identity.access_token.as_ref().and_then(|token| token.grant);
        let issued_at = identity.issued_at.unwrap_or(Timestamp(0));
        if let Some(grant) = grant
            && self.revocations.include(grant, issued_at)?
        {
            return Err(Denial::InvalidCredential("revoked"));
        }
        Ok(Some(Arc::clone(identity)))
    }

    /// What a token says, once it is known to be genuine.
    fn genuine(&self, unverified_token: &str) -> Result<Arc<Token>, Reason> {
        if let Some(token) = self.genuine.get(unverified_token.as_bytes()) {
            // A key that was taken away, because somebody else has it, say, makes no token genuine any more.
            return if self.keys.has(&token.kid) { Ok(token) } else { Err(JwsError::UnknownKey.reason()) };
        }
        let verified = self.keys.verify::<Claims>(unverified_token, &[TYPE]).map_err(JwsError::reason)?;
        let token = Arc::new(self.read(verified.claims, verified.kid)?);
        // What was read is no longer than what it was read from.
        let bytes = unverified_token.len().saturating_add(size_of::<Token>()).saturating_add(size_of::<Identity>());
        self.genuine.insert(unverified_token, Arc::clone(&token), bytes);
        Ok(token)
    }

    /// From claims to an identity.
    fn read(&self, claims: Claims, kid: String) -> Result<Token, Reason> {
        if claims.iss != self.issuer {
            return Err("wrong_issuer");
        }
        if claims.kind != KIND {
            return Err(JwsError::Type.reason());
        }
        let signer = SignerKind::from_word(&claims.signer_type).ok_or(MALFORMED)?;
        let subject = subject(signer, &claims.sub).ok_or(MALFORMED)?;
        if !is_visible(&claims.scope) || claims.client_id.as_deref().is_some_and(|id| id.is_empty() || !is_visible(id))
        {
            return Err(MALFORMED);
        }
        // No token lives longer than the settings say, not even one of a time when they said otherwise: of grants that were
        // taken back longer ago nothing is known.
        let expires_at = Timestamp(claims.exp).min(Timestamp(claims.iat).plus(self.lifetime));
        let access_token = AccessToken {
            account: claims.sub.into(),
            signer,
            client: claims.client_id.map(Into::into),
            scopes: claims.scope.split(' ').filter_map(|text| text.parse().ok()).collect(),
            scope: claims.scope.into(),
            grant: claims.grant_id,
        };
        let identity = Identity {
            subject,
            proof: Proof::AccessToken,
            not_before: Some(Timestamp(claims.nbf.unwrap_or(claims.iat).max(claims.iat))),
            expires_at: Some(expires_at),
            issued_at: Some(Timestamp(claims.iat)),
            entitlement: None,
            access_token: Some(access_token),
        };
        Ok(Token { identity: Arc::new(identity), audience: claims.aud, kid })
    }
}

/// The account that signed, in its one spelling.
fn subject(signer: SignerKind, account: &str) -> Option<Subject> {
    match signer {
        SignerKind::Evm => {
            account.parse::<EvmAddress>().ok().filter(|address| address.checksummed() == account).map(Subject::Evm)
        }
        SignerKind::Hotkey => account.parse().ok().map(Subject::Hotkey),
        SignerKind::Coldkey => account.parse().ok().map(Subject::Coldkey),
    }
}

/// Whether a text can be a header's value (RFC 6749 appendix A: visible ASCII, and blanks between scopes).
fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests;
