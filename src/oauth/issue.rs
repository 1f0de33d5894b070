//! Issuing tokens for a grant.

use serde_json::{Map, Value, json};

use super::{
    Error, State,
    claims::{self, Issue},
    opaque::{self, Kind},
    sign_in::after,
};
use crate::{
    config::OAuthCompatibility,
    model::{
        client::{Client, GrantType},
        clock::{self, Timestamp},
        secret::Secret,
    },
    store::grant::{Grant, NewRefreshToken},
};

/// From when to when an access token is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    now: Timestamp,
    expires_at: Timestamp,
}

impl Times {
    /// From now on, as long as the settings say, and never beyond the grant's end.
    #[must_use]
    pub fn now(state: &State, grant_ends_micros: i64) -> Self {
        let now = Timestamp::now();
        let expires_at = now.plus(state.settings.lifetimes.access_token);
        Self { now, expires_at: expires_at.min(Timestamp(grant_ends_micros.div_euclid(1_000_000))) }
    }

    /// How long that is.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        self.expires_at.0.saturating_sub(self.now.0).max(0)
    }

    /// What all tokens of one answer have in common.
    ///
    /// # Errors
    /// 500 if the system has no random numbers.
    pub fn issue<'s>(&self, state: &'s State) -> Result<Issue<'s>, Error> {
        Ok(Issue {
            issuer: &state.settings.issuer,
            audience: &state.settings.audience,
            now: self.now,
            expires_at: self.expires_at,
            id: opaque::uuid().map_err(|error| Error::internal(&error))?,
        })
    }
}

/// A refresh token that nobody has yet, and what the store keeps of it.
///
/// # Errors
/// 500 if the system has no random numbers.
pub fn refresh_token(state: &State, grant: &Grant) -> Result<(Secret, NewRefreshToken), Error> {
    let (token, digest) = opaque::issue(Kind::RefreshToken).map_err(|error| Error::internal(&error))?;
    let expires_at_micros = after(clock::now_micros(), state.settings.lifetimes.refresh_token);
    Ok((token, NewRefreshToken { digest, expires_at_micros: expires_at_micros.min(grant.expires_at_micros) }))
}

/// The answer of the token endpoint (RFC 6749 section 5.1). `grant` is what this answer is about: after narrowing it has
/// fewer scopes or resources than what the refresh token stands for. The replaced server gave a refresh token also to
/// clients that may not use it.
///
/// # Errors
/// 500 if a library fails.
pub fn answer(
    state: &State,
    client: &Client,
    grant: &Grant,
    refresh_token: &Secret,
    nonce: Option<&str>,
) -> Result<Value, Error> {
    let failed = |error: crate::jose::JwsError| Error::internal(&error);
    let times = Times::now(state, grant.expires_at_micros);
    let issue = times.issue(state)?;
    let access_token = state.keys.sign(&issue.access_token(grant), claims::ACCESS_TYPE).map_err(failed)?;
    let mut answer = Map::new();
    if grant.scope.split(' ').any(|scope| scope == "openid") {
        let id_token = issue.id_token(grant, nonce, &access_token, state.keys.signs_with());
        let id_token = state.keys.sign(&id_token, claims::ID_TYPE).map_err(failed)?;
        answer.insert("id_token".into(), json!(id_token));
    }
    let refreshes = client.grant_types.contains(&GrantType::RefreshToken);
    if refreshes || state.settings.compatibility == OAuthCompatibility::AuthGateway {
        answer.insert("refresh_token".into(), json!(refresh_token.expose()));
    }
    answer.insert("access_token".into(), json!(access_token));
    answer.insert("token_type".into(), json!("Bearer"));
    answer.insert("expires_in".into(), json!(times.seconds()));
    answer.insert("scope".into(), json!(grant.scope));
    Ok(Value::Object(answer))
}
