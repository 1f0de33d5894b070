//! A code for tokens (RFC 6749 section 4.1.3), with PKCE (RFC 7636).
//!
//! What is wrong with a request does not use the code up: the client may try again while it lives. A second use of a code,
//! with everything else right, takes back what the first one got (RFC 6749 section 4.1.2).

use axum::http::StatusCode;

use super::{Issued, Request, another_clients, invalid_grant, narrowed, required, revoke};
use crate::{
    config::OAuthCompatibility,
    model::{client::Client, clock},
    oauth::{
        Code as Word, Error, State, issue,
        opaque::{self, Kind},
        pkce,
    },
    store::grant::Code,
};

pub async fn exchange(state: &State, client: &Client, request: &Request) -> Result<Issued, Error> {
    let unverified = required(request.code.as_ref(), "code")?;
    let unknown = || invalid_grant("Invalid or expired authorization code");
    let digest = opaque::presented(Kind::Code, unverified).ok_or_else(unknown)?;
    let code = state.store.code(&digest).await?.ok_or_else(unknown)?;
    let now = clock::now_micros();
    if code.expires_at_micros <= now && !code.redeemed {
        return Err(unknown());
    }
    if code.grant.client_id != client.id {
        return Err(another_clients());
    }
    if request.redirect_uri.as_deref() != Some(&code.redirect_uri) {
        // RFC 6749 section 5.2.
        let error = invalid_grant("redirect_uri is not that of the authorization request");
        return Err(error.or_as_replaced(StatusCode::BAD_REQUEST, "invalid_request"));
    }
    check_pkce(state, client, &code, request.code_verifier.as_deref())?;
    let (token, kept) = issue::refresh_token(state, &code.grant)?;
    let grant = narrowed(state, code.grant.clone(), request)?;
    if code.redeemed || !state.store.redeem_code(&digest, &kept, now).await? {
        revoke(state, &code.grant, "its code was used twice").await?;
        return Err(invalid_grant("The authorization code has already been used"));
    }
    let answer = issue::answer(state, client, &grant, &token, grant.nonce.as_deref())?;
    Ok(Issued { answer, grant })
}

fn check_pkce(state: &State, client: &Client, code: &Code, verifier: Option<&str>) -> Result<(), Error> {
    let wrong = |text: &'static str| Err(Error::oauth(Word::InvalidRequest, text));
    match (&code.code_challenge, verifier) {
        (None, _) if client.is_public() => wrong("PKCE is required for public clients"),
        (None, None) => Ok(()),
        // A verifier without a challenge: somebody has taken the challenge out of the request (RFC 9700 section 4.8.2).
        // The replaced server did not mind.
        (None, Some(_)) if state.settings.compatibility == OAuthCompatibility::AuthGateway => Ok(()),
        (None, Some(_)) => Err(invalid_grant("There was no code_challenge in the authorization request")),
        (Some(_), None) => wrong("PKCE: code_verifier is required"),
        (Some(_), Some(verifier)) if !pkce::is_verifier(verifier) => {
            wrong("code_verifier must be 43 to 128 letters, digits, '-', '.', '_' or '~'")
        }
        (Some(challenge), Some(verifier)) if pkce::fits(challenge, verifier) => Ok(()),
        (Some(_), Some(_)) => Err(invalid_grant("code_verifier does not match the code_challenge")),
    }
}
