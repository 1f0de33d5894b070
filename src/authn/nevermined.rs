//! Nevermined access tokens (nevermined.md section 2).
//!
//! A token is encrypted with a key that the issuer and we share, and nothing else vouches for it: it names no audience
//! and cannot be revoked. What is cached is that a token is genuine and what it says. Whether it is valid now is asked
//! again every time, and what it entitles to is decided elsewhere, per request.

use std::sync::Arc;

use super::{Presented, genuine::Genuine};
use crate::{
    jose,
    model::{
        clock::Timestamp,
        decision::{Denial, Reason},
        endpoint::{Endpoint, Origin},
        identity::Identity,
        key::ContentKey,
        secret::Secret,
    },
};

mod claims;
mod issue;

pub use issue::{Authentication, Claims, issue};

/// The most endpoints a token may have.
pub const MAX_ENDPOINTS: usize = 64;

/// Verifies tokens, and remembers those that are genuine.
pub struct TokenVerifier {
    keys: Vec<ContentKey>,
    backend: Option<Backend>,
    max_token_bytes: usize,
    genuine: Genuine<Arc<Identity>>,
}

/// The provider's own back end, which wants another credential than the one in the token (`BACKEND_API_URI` and
/// `PROXY_AUTH_TOKEN`, nevermined.md section 2.6).
struct Backend {
    origin: Origin,
    token: Secret,
    authorization: Secret,
}

/// The back end's token has characters that no header value may have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the back end's token has characters that a header value cannot have")]
pub struct UnsendableToken;

impl TokenVerifier {
    /// Takes the keys, in the order in which they are tried, and the origin of the back end with its token.
    ///
    /// Up to `max_entries` tokens of ordinary size are remembered, fewer large ones. Longer tokens than
    /// `max_token_bytes` are refused unread.
    ///
    /// # Errors
    /// When the back end's token cannot be sent.
    pub fn new(
        keys: Vec<ContentKey>,
        backend: Option<(Origin, Secret)>,
        max_entries: usize,
        max_token_bytes: usize,
    ) -> Result<Self, UnsendableToken> {
        let backend = backend
            .map(|(origin, token)| {
                let authorization = Secret::new(format!("Bearer {}", token.expose()));
                claims::is_sendable(token.expose()).then_some(Backend { origin, token, authorization })
            })
            .map(|backend| backend.ok_or(UnsendableToken))
            .transpose()?;
        Ok(Self { keys, backend, max_token_bytes, genuine: Genuine::new(max_entries) })
    }

    /// Finds out who is calling.
    ///
    /// `Ok(None)` means that no `Authorization` header was presented. One that *is* presented and holds no valid token
    /// is an error, even where an anonymous caller would be let in: a caller who sends a token wants it looked at.
    ///
    /// # Errors
    /// [`Denial::InvalidCredential`] with one of these reasons:
    ///
    /// | Reason | The token |
    /// | --- | --- |
    /// | `malformed_authorization` | is not in the header ([`super::Authorization::token`]) |
    /// | `token_too_long` | is longer than allowed |
    /// | `malformed_token`, `malformed_token_header`, `token_algorithm`, `token_encryption`, `token_compressed`, `token_critical_header`, `token_encrypted_key`, `malformed_ciphertext` | is not of the one shape ([`jose::JweError`]) |
    /// | `wrong_key` | was not made with a key of ours, or changed afterwards |
    /// | `malformed_claims` | lacks a claim, or has one of a wrong type or form |
    /// | `too_many_endpoints` | has more than [`MAX_ENDPOINTS`] |
    /// | `unsendable_credential` | has an upstream credential that no header can hold |
    /// | `expired`, `not_yet_valid` | is genuine, but not now |
    ///
    /// A token whose endpoints are all unusable is an identity without endpoints: see
    /// [`NO_USABLE_ENDPOINT`](crate::model::endpoint::NO_USABLE_ENDPOINT).
    pub fn identify(&self, presented: &Presented<'_>, now: Timestamp) -> Result<Option<Arc<Identity>>, Denial> {
        let known = presented.authorization.unverified_rest().and_then(|rest| self.genuine.get(rest));
        let identity = match known {
            Some(identity) => identity,
            None => match self.genuine(presented, now)? {
                Some(identity) => identity,
                None => return Ok(None),
            },
        };
        if identity.expires_at.is_some_and(|moment| moment <= now) {
            return Err(Denial::InvalidCredential("expired"));
        }
        if identity.not_before.is_some_and(|moment| moment > now) {
            return Err(Denial::InvalidCredential("not_yet_valid"));
        }
        Ok(Some(identity))
    }

    /// The whole `Authorization` value that the upstream gets for a call of this endpoint, or none if it gets none. The
    /// back end's own credential comes before the token's.
    #[must_use]
    pub fn authorization_for<'s>(&'s self, identity: &'s Identity, endpoint: &Endpoint) -> Option<&'s Secret> {
        let credential = &identity.entitlement.as_ref()?.upstream_credential;
        match self.backend_of(endpoint) {
            Some(backend) => Some(&backend.authorization),
            None => credential.authorization.as_ref(),
        }
    }

    /// The credential without its scheme, as introspection answers it (`service_token`). Empty if there is none.
    #[must_use]
    pub fn service_token_for<'s>(&'s self, identity: &'s Identity, endpoint: &Endpoint) -> Option<&'s Secret> {
        let credential = &identity.entitlement.as_ref()?.upstream_credential;
        Some(self.backend_of(endpoint).map_or(&credential.service_token, |backend| &backend.token))
    }

    fn backend_of(&self, endpoint: &Endpoint) -> Option<&Backend> {
        self.backend.as_ref().filter(|backend| backend.origin == *endpoint.origin())
    }

    /// What a token says that has not been presented before.
    #[cold]
    fn genuine(&self, presented: &Presented<'_>, now: Timestamp) -> Result<Option<Arc<Identity>>, Denial> {
        let Some(unverified_token) = presented.authorization.token()? else { return Ok(None) };
        self.read(unverified_token, now).map(Some).map_err(Denial::InvalidCredential)
    }

    /// What a token says, once it is known to be genuine. Its time is looked at only to explain why it cannot be read.
    fn read(&self, unverified_token: &str, now: Timestamp) -> Result<Arc<Identity>, Reason> {
        if unverified_token.len() > self.max_token_bytes {
            return Err(jose::JweError::TooLong.reason());
        }
        if let Some(identity) = self.genuine.get(unverified_token.as_bytes()) {
            return Ok(identity);
        }
        let payload = jose::decrypt_compact(unverified_token, &self.keys).map_err(jose::JweError::reason)?;
        let malformed = |reason| if claims::is_expired(&payload, now) { "expired" } else { reason };
        let identity = Arc::new(claims::parse(&payload).map_err(malformed)?);
        let bytes = footprint(unverified_token, &identity);
        self.genuine.insert(unverified_token, Arc::clone(&identity), bytes);
        Ok(identity)
    }
}

/// The memory that an identity takes, besides its token's text.
fn footprint(token: &str, identity: &Identity) -> usize {
    let endpoints = identity.entitlement.iter().flat_map(|entitlement| &entitlement.endpoints);
    // The claims are no longer than the token that holds them.
    token.len() + size_of::<Identity>() + endpoints.map(Endpoint::footprint).sum::<usize>()
}

#[cfg(test)]
mod tests;
