//! Refresh tokens as clients present them: our own, and those of the replaced server, which an import has taken over.
//!
//! The latter are JWTs (auth-gateway.md section 3). Neither database keeps more of them than their names, so each is
//! verified and then looked up by its name; what happened to it is known of the row, as for our own.

use serde::Deserialize;
use uuid::Uuid;

use super::{
    Error, State,
    account::Account,
    opaque::{self, Kind},
};
use crate::{
    model::clock::Timestamp,
    store::grant::{Digest, Grant, RefreshToken},
};

/// A refresh token that is or was good.
pub struct Presented {
    /// What it is kept under.
    pub digest: Digest,
    /// What it is.
    pub token: RefreshToken,
    /// Whether the replaced server issued it. Then its grant is not complete before it is used.
    pub taken_over: bool,
}

/// `typ` of all tokens of the replaced server.
const REPLACED_TYPE: &str = "JWT";

/// The claims that count.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: i64,
    jti: Uuid,
    #[serde(rename = "type")]
    kind: String,
    client_id: String,
    auth_time: Option<i64>,
}

/// What is kept of a token of the replaced server.
#[must_use]
pub fn digest(jti: Uuid) -> Digest {
    opaque::sha256(format!("auth-gateway refresh token {jti}").as_bytes())
}

/// Finds what was presented. None: nobody ever issued it, or it is a token of another kind.
///
/// # Errors
/// When the store is away.
pub async fn find(state: &State, unverified: &str) -> Result<Option<Presented>, Error> {
    if let Some(digest) = opaque::presented(Kind::RefreshToken, unverified) {
        let token = state.store.refresh_token(&digest).await?;
        return Ok(token.map(|token| Presented { digest, token, taken_over: false }));
    }
    let Some(claims) = Claims::verify(state, unverified) else { return Ok(None) };
    let digest = digest(claims.jti);
    let Some(token) = state.store.refresh_token(&digest).await? else { return Ok(None) };
    let grant = claims.complete(&token.grant);
    Ok(grant.map(|grant| Presented { digest, token: RefreshToken { grant, ..token }, taken_over: true }))
}

impl Claims {
    /// What a token says that one of our keys signed, and that is a refresh token: the replaced server's other tokens
    /// differ from it in one claim alone (auth-gateway.md section 14.1, 3).
    fn verify(state: &State, unverified: &str) -> Option<Self> {
        let claims = state.keys.verify::<Self>(unverified, &[REPLACED_TYPE]).ok()?.claims;
        let good = claims.kind == "refresh" && claims.iss == state.settings.issuer && claims.exp > Timestamp::now().0;
        good.then_some(claims)
    }

    /// Its grant, with what the replaced server's database did not know: when the wallet signed. None: the row of this name
    /// is about somebody else.
    fn complete(&self, grant: &Grant) -> Option<Grant> {
        let account = Account::parse(&self.sub).ok()?.text();
        let same = self.client_id == grant.client_id && account == grant.signer.account;
        same.then(|| Grant { auth_time: self.auth_time.unwrap_or(grant.auth_time), ..grant.clone() })
    }
}
