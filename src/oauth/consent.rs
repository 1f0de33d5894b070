//! What the authorize page asks for: a message to sign, a code for the signature, or an end without one
//! (auth-gateway.md section 1.2).

use axum::{Router, extract::State as Extract, http::HeaderMap, middleware, response::Response, routing::post};
use serde::Deserialize;
use serde_json::{Map, json};

use super::{
    Body, Error, State,
    account::Account,
    asked, browser,
    direct::private,
    opaque::{self, Kind},
    origin, rates, redirect, sign_in,
};
use crate::{
    model::{client::Client, clock},
    store::{
        challenge::Flow,
        grant::{Digest, Grant, NewCode, Session},
    },
};

/// These endpoints, for our own page.
pub fn routes(state: &State) -> Router<State> {
    Router::new()
        .route("/v1/oauth/challenge", post(challenge))
        .route("/v1/oauth/callback", post(callback))
        .route("/v1/oauth/deny", post(deny))
        .route_layer(middleware::from_fn_with_state(state.clone(), rates::limit_challenges))
}

#[derive(Deserialize)]
struct Challenge {
    session_id: String,
    address: Option<String>,
}

async fn challenge(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Body(request): Body<Challenge>,
) -> Result<Response, Error> {
    origin::of_ours(&headers, &state.settings)?;
    let (digest, session) = waiting(&state, &headers, &request.session_id).await?;
    let client = client(&state, &session).await?;
    let account = Account::parse_if_given(request.address.as_deref())?;
    let account = account.map(|account| account.of_kind(client.sign_method)).transpose()?;
    let scopes = asked::scopes(&asked::split(&session.scope), state.settings.network)?;
    asked::suit(&scopes, client.sign_method)?;
    let asked = sign_in::Asked {
        flow: Flow::Code,
        binding: Some(digest),
        account,
        wallet: client.sign_method,
        client: Some(&client),
        redirect_uri: Some(&session.redirect_uri),
        scope: &session.scope,
        resource: &session.resource,
    };
    let (nonce, expires_in) = sign_in::ask(&state, &asked).await?;
    Ok(private(json!({ "nonce": nonce, "expires_in": expires_in })))
}

#[derive(Deserialize)]
struct Callback {
    session_id: String,
    nonce: String,
    address: String,
    signature: String,
}

async fn callback(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Body(request): Body<Callback>,
) -> Result<Response, Error> {
    origin::of_ours(&headers, &state.settings)?;
    let (digest, session) = waiting(&state, &headers, &request.session_id).await?;
    let client = client(&state, &session).await?;
    if !client.redirect_uris.contains(&session.redirect_uri) {
        return Err(Error::bad_request("The redirect_uri is not registered any more"));
    }
    let account = Account::parse(&request.address)?.of_kind(client.sign_method)?;
    let challenge = sign_in::answered(&state, &request.nonce, Flow::Code, Some(digest)).await?;
    let signer = sign_in::signer_for(&state, &client, account, &challenge, &request.nonce, &request.signature).await?;
    let scopes = asked::scopes(&asked::split(&session.scope), state.settings.network)?;
    asked::allowed(&scopes, &client)?;
    let now = clock::now_micros();
    let lifetimes = &state.settings.lifetimes;
    let grant = Grant {
        id: opaque::uuid().map_err(|error| Error::internal(&error))?,
        client_id: client.id.clone(),
        signer,
        scope: session.scope,
        resource: session.resource,
        nonce: session.nonce,
        auth_time: now.div_euclid(1_000_000),
        expires_at_micros: sign_in::after(now, lifetimes.refresh_token_total),
    };
    let (code, code_digest) = opaque::issue(Kind::Code).map_err(|error| Error::internal(&error))?;
    let kept = NewCode { digest: code_digest, expires_at_micros: sign_in::after(now, lifetimes.authorization_code) };
    if !state.store.approve_session(&digest, &grant, &kept, now).await? {
        return Err(Error::bad_request("The session has already been used"));
    }
    let answer = redirect::parameters(&state, &[("code", code.expose())], session.state.as_deref());
    let mut document = Map::new();
    document.insert("code".into(), json!(code.expose()));
    document.insert("redirect_to".into(), json!(redirect::address(&session.redirect_uri, &answer)));
    Ok(private(document.into()))
}

#[derive(Deserialize)]
struct Deny {
    session_id: String,
}

/// The user says no: the session ends, and the client is told (RFC 6749 section 4.1.2.1).
async fn deny(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Body(request): Body<Deny>,
) -> Result<Response, Error> {
    origin::of_ours(&headers, &state.settings)?;
    let (digest, session) = waiting(&state, &headers, &request.session_id).await?;
    if !state.store.end_session(&digest, clock::now_micros()).await? {
        return Err(over());
    }
    let answer = redirect::parameters(&state, &[("error", "access_denied")], session.state.as_deref());
    Ok(private(json!({ "redirect_to": redirect::address(&session.redirect_uri, &answer) })))
}

/// A session that waits, if it is this browser's. Another's is as unknown as one that never was.
async fn waiting(state: &State, headers: &HeaderMap, unverified_id: &str) -> Result<(Digest, Session), Error> {
    let digest = opaque::presented(Kind::Session, unverified_id).ok_or_else(over)?;
    let session = state.store.session(&digest, clock::now_micros()).await?.ok_or_else(over)?;
    let browser = browser::known(headers, &state.settings);
    if browser != Some(session.browser) {
        return Err(over());
    }
    Ok((digest, session))
}

async fn client(state: &State, session: &Session) -> Result<std::sync::Arc<Client>, Error> {
    state.clients.active(&session.client_id).await?.ok_or_else(|| Error::bad_request("Unknown or inactive client"))
}

fn over() -> Error {
    Error::bad_request("Invalid, expired or used session, or one of another browser; start again from the application")
}
