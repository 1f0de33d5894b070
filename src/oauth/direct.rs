//! The direct flow: a challenge, a signature, an access token (auth-gateway.md section 1.1). It knows no clients, so its
//! tokens name none, and there is nothing to refresh.

use axum::{
    Json, Router,
    extract::State as Extract,
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::json;

use super::{Body, Error, State, account::Account, asked, claims, issue, rates, sign_in};
use crate::{model::client::SignMethod, store::challenge::Flow};

/// These endpoints.
pub fn routes(state: &State) -> Router<State> {
    Router::new()
        .route("/v1/auth/challenge", post(challenge))
        .route("/v1/auth/verify", post(verify))
        .route_layer(middleware::from_fn_with_state(state.clone(), rates::limit_challenges))
}

#[derive(Deserialize)]
struct Challenge {
    address: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

async fn challenge(Extract(state): Extract<State>, Body(request): Body<Challenge>) -> Result<Response, Error> {
    let account = Account::parse_if_given(request.address.as_deref())?;
    let scopes = asked::scopes(&request.scopes, state.settings.network)?;
    if let Some(account) = account {
        asked::suit(&scopes, account.method())?;
    }
    let asked = sign_in::Asked {
        flow: Flow::Direct,
        binding: None,
        account,
        wallet: account.map_or(SignMethod::Sr25519, |account| account.method()),
        client: None,
        redirect_uri: None,
        scope: &asked::joined(&scopes),
        resource: "",
    };
    let (nonce, expires_in) = sign_in::ask(&state, &asked).await?;
    Ok(private(json!({ "nonce": nonce, "expires_in": expires_in })))
}

#[derive(Deserialize)]
struct Verify {
    nonce: String,
    address: String,
    signature: String,
}

async fn verify(Extract(state): Extract<State>, Body(request): Body<Verify>) -> Result<Response, Error> {
    let account = Account::parse(&request.address)?;
    let challenge = sign_in::answered(&state, &request.nonce, Flow::Direct, None).await?;
    let bound = challenge.account.is_some_and(|bound| bound != account.text());
    if bound {
        return Err(Error::bad_request("The challenge was issued for another address"));
    }
    // A message in Ethereum's form names its account, so one without was made for Bittensor's wallets.
    let signer = sign_in::signer(&state, account, &request.nonce, &request.signature, &challenge.scope).await?;
    let issue = issue::Times::now(&state, i64::MAX);
    let token = issue.issue(&state)?.direct_token(&signer, &challenge.scope);
    let token = state.keys.sign(&token, claims::ACCESS_TYPE).map_err(|error| Error::internal(&error))?;
    Ok(private(json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": issue.seconds(),
        "scope": challenge.scope,
    })))
}

/// An answer that nobody shall remember.
#[must_use]
pub fn private(document: serde_json::Value) -> Response {
    ([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(document)).into_response()
}
