//! The token endpoint (RFC 6749 section 3.2, auth-gateway.md section 1.3): a code, a device code or a refresh token for
//! tokens.

mod code;
mod device;
mod refresh;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::State as Extract,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Body, ClientAddress, Code, Error, Limit, RateKey, State, client::Credentials, direct::private, events::Happened,
    origin, resource::Resources,
};
use crate::{
    config::OAuthCompatibility,
    model::client::{Client, GrantType},
    store::grant::Grant,
};

/// These endpoints.
pub fn routes() -> Router<State> {
    Router::new()
        .route("/v1/oauth/token", post(token))
        .route("/v1/oauth/refresh", post(refresh_only))
        .route_layer(middleware::from_fn(unremembered))
}

/// Nobody shall remember these answers, whatever they say (RFC 6749 section 5.1).
pub async fn unremembered(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// What may be in a request; each grant takes its own.
#[derive(Deserialize)]
struct Request {
    grant_type: String,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    refresh_token: Option<String>,
    device_code: Option<String>,
    scope: Option<String>,
    #[serde(default)]
    resource: Resources,
    #[serde(flatten)]
    credentials: Credentials,
}

/// What was issued: the answer, and what it is about.
struct Issued {
    answer: Value,
    grant: Grant,
}

async fn token(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    body: Result<Body<Request>, Error>,
) -> Result<Response, Error> {
    let Body(request) = body.map_err(Error::in_oauth)?;
    let asked = request.grant_type.parse::<GrantType>().ok();
    let (client, kind) = admitted(&state, address, &headers, &request, asked).await.inspect_err(|error| {
        let happened = Happened { reason: Some(error.word()), grant_type: asked, ..Happened::default() };
        state.events.count(event(asked), "failure", happened);
    })?;
    let issued = match kind {
        GrantType::AuthorizationCode => code::exchange(&state, &client, &request).await,
        GrantType::RefreshToken => refresh::exchange(&state, &client, &request).await,
        GrantType::DeviceCode => device::exchange(&state, &client, &request).await,
    };
    remember(&state, &client, kind, &issued);
    Ok(private(issued?.answer))
}

/// Who asks, and by which grant, if the one may use the other.
async fn admitted(
    state: &State,
    address: IpAddr,
    headers: &HeaderMap,
    request: &Request,
    asked: Option<GrantType>,
) -> Result<(Arc<Client>, GrantType), Error> {
    let client = state.clients.authenticate(headers, request.credentials.clone(), address).await?;
    origin::of_client(headers, &client)?;
    limit(state, &client, address, asked).await?;
    let kind = asked.ok_or_else(|| Error::oauth(Code::UnsupportedGrantType, "Unsupported grant_type"))?;
    if !client.grant_types.contains(&kind) {
        return Err(Error::oauth(Code::UnauthorizedClient, "This client may not use this grant_type"));
    }
    Ok((client, kind))
}

/// The event's name.
fn event(kind: Option<GrantType>) -> &'static str {
    if kind == Some(GrantType::RefreshToken) { "token_refresh" } else { "token_exchange" }
}

async fn refresh_only(
    Extract(state): Extract<State>,
    address: ClientAddress,
    headers: HeaderMap,
    body: Result<Body<Request>, Error>,
) -> Result<Response, Error> {
    let Body(request) = body.map_err(Error::in_oauth)?;
    if request.grant_type != GrantType::RefreshToken.as_str() {
        return Err(Error::oauth(Code::UnsupportedGrantType, "Only refresh_token is accepted here"));
    }
    token(Extract(state), address, headers, Ok(Body(request))).await
}

/// So many requests of one client in a minute. Anybody can name a public client, so that its users at one address cannot
/// use up what those at another have (auth-gateway.md section 14.1, 14).
async fn limit(state: &State, client: &Client, address: IpAddr, kind: Option<GrantType>) -> Result<(), Error> {
    let Some(limit) = u32::try_from(client.rate_limit).ok().filter(|limit| *limit > 0) else { return Ok(()) };
    let key =
        if client.is_public() { RateKey::address("client", &client.id, address) } else { RateKey::client(&client.id) };
    let Err(retry_after) = state.rates.take(key, Limit(limit)).await else { return Ok(()) };
    let happened = Happened { detail: Some(("endpoint", "token")), ..Happened::default() };
    state.events.record(&client.id, "rate_limit_hit", "failure", happened);
    Err(match kind {
        Some(GrantType::DeviceCode) => Error::oauth(Code::SlowDown, "This client asks too often"),
        _ => retry_after.into(),
    })
}

/// A device that waits is no failure, and is remembered where it is found out.
fn remember(state: &State, client: &Client, kind: GrantType, issued: &Result<Issued, Error>) {
    let word = event(Some(kind));
    let happened = Happened { wallet: Some(client.sign_method), grant_type: Some(kind), ..Happened::default() };
    match issued {
        Ok(Issued { grant, .. }) => {
            let (account, scope) = (Some(grant.signer.account.as_str()), grant.scope.as_str());
            state.events.record(&client.id, word, "success", Happened { account, scope, ..happened });
        }
        Err(error) if error.is(Code::AuthorizationPending) || error.is(Code::SlowDown) => {
            state.events.record(&client.id, "device_code_polled", "pending", happened);
        }
        Err(error) => {
            let ended = match () {
                () if error.is(Code::AccessDenied) => Some("device_code_denied"),
                () if error.is(Code::ExpiredToken) => Some("device_code_expired"),
                () => None,
            };
            let happened = Happened { reason: Some(error.word()), ..happened };
            if let Some(ended) = ended {
                state.events.record(&client.id, ended, "failure", happened);
            }
            state.events.record(&client.id, word, "failure", happened);
        }
    }
}

/// A field that this grant needs.
fn required<'r>(field: Option<&'r String>, name: &'static str) -> Result<&'r str, Error> {
    let given = field.map(String::as_str).filter(|text| !text.is_empty());
    given.ok_or_else(|| Error::oauth(Code::InvalidRequest, format!("{name} is required")))
}

/// What was presented stands for nothing, or not any more.
fn invalid_grant(description: &'static str) -> Error {
    Error::oauth(Code::InvalidGrant, description)
}

/// What was presented is another client's (RFC 6749 section 5.2). The replaced server blamed the client.
fn another_clients() -> Error {
    Error::oauth(Code::InvalidGrant, "It was issued to another client")
        .or_as_replaced(StatusCode::UNAUTHORIZED, "invalid_client")
}

/// A grant with fewer scopes, if fewer were asked for (RFC 6749 section 6). The replaced server did not look.
fn narrowed(state: &State, grant: Grant, request: &Request) -> Result<Grant, Error> {
    let resource = request.resource.narrowing(&grant.resource)?;
    let grant = Grant { resource, ..grant };
    let asked = request.scope.as_deref().filter(|_| state.settings.compatibility == OAuthCompatibility::Standard);
    let Some(asked) = asked else { return Ok(grant) };
    let granted: Vec<&str> = grant.scope.split_ascii_whitespace().collect();
    if !asked.split_ascii_whitespace().all(|scope| granted.contains(&scope)) {
        return Err(Error::oauth(Code::InvalidScope, "scope has more than was granted"));
    }
    Ok(Grant { scope: asked.split_ascii_whitespace().collect::<Vec<_>>().join(" "), ..grant })
}

/// Takes a grant back, because something that was good for one use was used twice.
async fn revoke(state: &State, grant: &Grant, why: &'static str) -> Result<(), Error> {
    if state.store.revoke_grant(grant.id, crate::model::clock::now_micros()).await? {
        tracing::warn!(client = %grant.client_id, grant = %grant.id, why, "a grant was taken back");
    }
    Ok(())
}
