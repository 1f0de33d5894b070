//! Asking about tokens (RFC 7662), taking them back (RFC 7009), and what an access token says of its user (OpenID Connect
//! Core section 5.3).

use axum::{
    Router,
    extract::State as Extract,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    Body, ClientAddress, Code, Error, State,
    claims::{ACCESS_TYPE, AccessToken},
    client::Credentials,
    direct::private,
    origin, refresh_token, token,
};
use crate::{
    model::{client::Client, clock},
    store::grant::{Grant, RefreshToken},
};

/// These endpoints.
pub fn routes() -> Router<State> {
    Router::new()
        .route("/v1/oauth/introspect", post(introspect))
        .route("/v1/oauth/revoke", post(revoke))
        .route("/v1/oauth/userinfo", get(user_info).post(user_info))
        .route_layer(middleware::from_fn(token::unremembered))
}

#[derive(Deserialize)]
struct Request {
    token: Option<String>,
    #[serde(flatten)]
    credentials: Credentials,
}

/// A token, as what it turned out to be.
enum Found {
    Access(Box<AccessToken>),
    Refresh(Box<RefreshToken>),
}

/// What a token is, whatever the hint says: RFC 7662 section 2.1 and RFC 7009 section 2.1 want the search widened if the
/// hint is wrong, and the prefix tells anyway. None: it is none of ours, or its time is over.
async fn find(state: &State, unverified: &str) -> Result<Option<Found>, Error> {
    let now = clock::now_micros();
    if let Some(presented) = refresh_token::find(state, unverified).await? {
        let token = Some(presented.token);
        let token = token.filter(|token| token.expires_at_micros.min(token.grant.expires_at_micros) > now);
        return Ok(token.map(|token| Found::Refresh(Box::new(token))));
    }
    let token = state.keys.verify::<AccessToken>(unverified, &[ACCESS_TYPE]).ok().map(|verified| verified.claims);
    let token = token.filter(|claims| claims.iss == state.settings.issuer && claims.exp > now.div_euclid(1_000_000));
    Ok(token.map(|claims| Found::Access(Box::new(claims))))
}

/// Who may ask: clients that have a secret, such as resource servers. About a refresh token only the client that has it.
async fn introspect(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    body: Result<Body<Request>, Error>,
) -> Result<Response, Error> {
    let Body(request) = body.map_err(Error::in_oauth)?;
    let client = state.clients.authenticate(&headers, request.credentials, address).await?;
    origin::of_client(&headers, &client)?;
    if client.is_public() {
        return Err(Error::invalid_client("Only clients that have a secret may ask about tokens"));
    }
    let unverified = request.token.ok_or_else(|| Error::oauth(Code::InvalidRequest, "token is required"))?;
    let inactive = || Ok(private(json!({ "active": false })));
    match find(&state, &unverified).await? {
        None => inactive(),
        Some(Found::Refresh(token)) => {
            let own = token.grant.client_id == client.id && token.used_at_micros.is_none();
            if !own || !stands(&state, &token.grant).await? {
                return inactive();
            }
            let ends = token.expires_at_micros.min(token.grant.expires_at_micros);
            Ok(private(json!({
                "active": true,
                "client_id": token.grant.client_id,
                "sub": token.grant.signer.account,
                "scope": token.grant.scope,
                "iss": state.settings.issuer,
                "exp": ends.div_euclid(1_000_000),
            })))
        }
        Some(Found::Access(claims)) => {
            if !still_good(&state, &claims).await? {
                return inactive();
            }
            let mut document = serde_json::to_value(&*claims).map_err(|error| Error::internal(&error))?;
            if let Some(members) = document.as_object_mut() {
                members.remove("type");
                members.insert("active".into(), json!(true));
                members.insert("token_type".into(), json!("Bearer"));
            }
            Ok(private(document))
        }
    }
}

async fn stands(state: &State, grant: &Grant) -> Result<bool, Error> {
    Ok(state.store.grant_stands(grant.id, clock::now_micros()).await?)
}

/// A token of the direct flow belongs to no grant, and nobody can take it back.
async fn still_good(state: &State, claims: &AccessToken) -> Result<bool, Error> {
    match claims.grant_id {
        None => Ok(true),
        Some(grant) => Ok(state.store.grant_stands(grant, clock::now_micros()).await?),
    }
}

/// Takes back the whole grant: refresh tokens, and the access tokens that name it.
async fn revoke(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    body: Result<Body<Request>, Error>,
) -> Result<Response, Error> {
    let Body(request) = body.map_err(Error::in_oauth)?;
    let client = state.clients.authenticate(&headers, request.credentials, address).await?;
    origin::of_client(&headers, &client)?;
    let unverified = request.token.ok_or_else(|| Error::oauth(Code::InvalidRequest, "token is required"))?;
    let (owner, grant) = match find(&state, &unverified).await? {
        Some(Found::Refresh(token)) => (Some(token.grant.client_id), Some(token.grant.id)),
        Some(Found::Access(claims)) => (claims.client_id, claims.grant_id),
        // RFC 7009 section 2.2: what is invalid already is as good as taken back.
        None => return Ok(StatusCode::OK.into_response()),
    };
    check_owner(&client, owner.as_deref())?;
    if let Some(grant) = grant {
        state.store.revoke_grant(grant, clock::now_micros()).await?;
    }
    Ok(StatusCode::OK.into_response())
}

/// RFC 7009 section 2.1: a client takes back its own tokens.
fn check_owner(client: &Client, owner: Option<&str>) -> Result<(), Error> {
    if owner == Some(&*client.id) {
        return Ok(());
    }
    let error = Error::oauth(Code::UnauthorizedClient, "The token was issued to somebody else");
    Err(error.or_as_replaced(StatusCode::BAD_REQUEST, "unauthorized_client"))
}

/// Who has signed, for whoever has an access token with `openid`.
async fn user_info(Extract(state): Extract<State>, headers: HeaderMap) -> Response {
    match user(&state, &headers).await {
        Ok(response) => response,
        Err(error) => {
            // RFC 6750 section 3: no error for those who presented nothing.
            let presented = headers.contains_key(header::AUTHORIZATION);
            let word = error.word();
            let challenge = if presented {
                format!("Bearer realm=\"tollgate\", error=\"{word}\"")
            } else {
                "Bearer realm=\"tollgate\"".into()
            };
            let told = error.is(Code::InvalidToken) || error.is(Code::InsufficientScope);
            let mut response = error.into_response();
            if let Some(value) = HeaderValue::try_from(challenge).ok().filter(|_| told) {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            }
            response
        }
    }
}

async fn user(state: &State, headers: &HeaderMap) -> Result<Response, Error> {
    let refused = || Error::oauth(Code::InvalidToken, "The access token is missing, invalid, expired or revoked");
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return Err(refused()) };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(refused)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refused());
    }
    let Some(Found::Access(claims)) = find(state, token.trim()).await? else { return Err(refused()) };
    if !still_good(state, &claims).await? {
        return Err(refused());
    }
    if !claims.scope.split(' ').any(|scope| scope == "openid") {
        return Err(Error::oauth(Code::InsufficientScope, "The access token lacks the scope openid"));
    }
    Ok(private(json!({
        "sub": claims.sub,
        "hotkey": claims.hotkey,
        "coldkey": claims.coldkey,
        "evm_address": claims.evm_address,
        "signer_type": claims.signer_type,
    })))
}
