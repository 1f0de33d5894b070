//! Devices without a browser (RFC 8628, auth-gateway.md section 1.4): the device gets two codes, shows one of them, and
//! polls with the other until somebody has signed.

use axum::{
    Json, Router,
    extract::State as Extract,
    http::{HeaderMap, StatusCode},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Map, json};

use super::{
    Body, ClientAddress, Code, Error, Limit, RateKey, State,
    account::Account,
    asked,
    body::Query,
    client::Credentials,
    direct::private,
    events::Happened,
    opaque::{self, Kind},
    origin, rates,
    resource::Resources,
    scope::{SigningHint, description},
    sign_in, token,
};
use crate::{
    config::OAuthCompatibility,
    model::{
        client::{Client, GrantType},
        clock,
    },
    store::{
        challenge::Flow,
        device::Device,
        grant::{Digest, Grant},
    },
};

/// These endpoints.
pub fn routes(state: &State) -> Router<State> {
    let answers = Router::new()
        .route("/v1/device/approve", post(approve))
        .route("/v1/device/confirm", post(confirm))
        .route("/v1/device/deny", post(deny))
        .route_layer(middleware::from_fn_with_state(state.clone(), rates::limit_challenges));
    Router::new().route("/v1/device/scopes", get(scopes)).merge(answers)
}

/// Where devices begin, which counts among a client's requests.
pub fn device_routes() -> Router<State> {
    Router::new().route("/v1/device/code", post(begin)).route_layer(middleware::from_fn(token::unremembered))
}

#[derive(Deserialize)]
struct Begin {
    #[serde(default)]
    scopes: Option<Vec<String>>,
    scope: Option<String>,
    #[serde(default)]
    resource: Resources,
    #[serde(flatten)]
    credentials: Credentials,
}

async fn begin(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    body: Result<Body<Begin>, Error>,
) -> Result<Response, Error> {
    let Body(request) = body.map_err(Error::in_oauth)?;
    let client = state.clients.authenticate(&headers, request.credentials.clone(), address).await?;
    origin::of_client(&headers, &client)?;
    if !client.grant_types.contains(&GrantType::DeviceCode) {
        let error = Error::oauth(Code::UnauthorizedClient, "This client may not use the device grant");
        return Err(error.or_as_replaced(StatusCode::BAD_REQUEST, "Bad Request"));
    }
    let standard = state.settings.compatibility == OAuthCompatibility::Standard;
    // RFC 8628 section 3.1 has `scope`; the replaced server had a list, and ignored what the RFC has.
    let written = request.scope.filter(|_| standard).map(|scope| asked::split(&scope));
    let texts = request.scopes.or(written).unwrap_or_default();
    let scopes = asked::scopes(&texts, state.settings.network).map_err(|refused| refused.oauth())?;
    asked::suit(&scopes, client.sign_method).map_err(|refused| refused.oauth())?;
    asked::allowed(&scopes, &client).map_err(|refused| refused.oauth())?;
    let lifetimes = &state.settings.lifetimes;
    let device = Device {
        user_code: String::new(),
        client_id: client.id.clone(),
        scope: asked::joined(&scopes),
        resource: request.resource.among(&state.settings.resources)?,
        interval_seconds: u32::try_from(lifetimes.device_poll_interval.as_secs()).unwrap_or(u32::MAX),
        expires_at_micros: sign_in::after(clock::now_micros(), lifetimes.device_code),
    };
    let (code, user_code) = kept(&state, device.clone()).await?;
    let happened = Happened { scope: &device.scope, wallet: Some(client.sign_method), ..Happened::default() };
    state.events.record(&client.id, "device_code_issued", "success", happened);
    let mut document = Map::new();
    document.insert("device_code".into(), json!(code.expose()));
    document.insert("user_code".into(), json!(user_code));
    document.insert("verification_uri".into(), json!(state.settings.verification_uri));
    if standard {
        let complete = super::redirect::address(&state.settings.verification_uri, &[("user_code", &user_code)]);
        document.insert("verification_uri_complete".into(), json!(complete));
    }
    document.insert("expires_in".into(), json!(lifetimes.device_code.as_secs()));
    document.insert("interval".into(), json!(device.interval_seconds));
    Ok(private(document.into()))
}

/// Keeps a device under a user code that no other has.
async fn kept(state: &State, device: Device) -> Result<(crate::model::secret::Secret, String), Error> {
    let (code, digest) = opaque::issue(Kind::DeviceCode).map_err(|error| Error::internal(&error))?;
    for _ in 0..5 {
        let user_code = opaque::user_code().map_err(|error| Error::internal(&error))?;
        let device = Device { user_code: user_code.clone(), ..device.clone() };
        if state.store.insert_device(&digest, &device).await? {
            return Ok((code, user_code));
        }
    }
    Err(Error::unavailable("Too many devices are waiting; try again"))
}

#[derive(Deserialize)]
struct Shown {
    user_code: Option<String>,
}

/// What a device asks for: for our page.
async fn scopes(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    Query(shown): Query<Shown>,
) -> Result<Response, Error> {
    state.rates.take(RateKey::address("device_scopes", "", address), Limit(LOOKS)).await?;
    let code = shown.user_code.unwrap_or_default();
    let found = waiting(&state, &code).await?;
    let Some((device, client)) = found else {
        let document = json!({ "error": "Unknown, expired or used code" });
        return Ok((StatusCode::NOT_FOUND, Json(document)).into_response());
    };
    let scopes = asked::split(&device.scope);
    let hint = SigningHint::of_all(scopes.iter().map(String::as_str));
    Ok(private(json!({
        "scopes": scopes,
        "descriptions": scopes.iter().map(|scope| description(scope)).collect::<Vec<_>>(),
        "sign_method": client.sign_method.as_str(),
        "signing_key": hint.as_str(),
        "client_name": client.name,
    })))
}

/// How often one address may look a code up in a minute.
const LOOKS: u32 = 30;
/// How often anybody may try something with one code in a minute.
const TRIES: u32 = 10;

#[derive(Deserialize)]
struct Approve {
    user_code: String,
    address: Option<String>,
}

async fn approve(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Body(request): Body<Approve>,
) -> Result<Response, Error> {
    origin::of_ours(&headers, &state.settings)?;
    let account = Account::parse_if_given(request.address.as_deref())?;
    let (device, client) = tried(&state, &request.user_code).await?;
    let account = account.map(|account| account.of_kind(client.sign_method)).transpose()?;
    let asked = sign_in::Asked {
        flow: Flow::Device,
        binding: Some(binding(&device)),
        account,
        wallet: client.sign_method,
        client: Some(&client),
        redirect_uri: None,
        scope: &device.scope,
        resource: &device.resource,
    };
    let (nonce, expires_in) = sign_in::ask(&state, &asked).await?;
    Ok(private(match state.settings.compatibility {
        OAuthCompatibility::AuthGateway => json!({ "nonce": nonce }),
        OAuthCompatibility::Standard => json!({ "nonce": nonce, "expires_in": expires_in }),
    }))
}

#[derive(Deserialize)]
struct Confirm {
    user_code: String,
    address: String,
    nonce: String,
    signature: String,
}

async fn confirm(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Body(request): Body<Confirm>,
) -> Result<Response, Error> {
    origin::of_ours(&headers, &state.settings)?;
    let account = Account::parse(&request.address)?;
    let (device, client) = tried(&state, &request.user_code).await?;
    let account = account.of_kind(client.sign_method)?;
    let challenge = sign_in::answered(&state, &request.nonce, Flow::Device, Some(binding(&device))).await?;
    let signer = sign_in::signer_for(&state, &client, account, &challenge, &request.nonce, &request.signature).await?;
    let now = clock::now_micros();
    let grant = Grant {
        id: opaque::uuid().map_err(|error| Error::internal(&error))?,
        client_id: client.id.clone(),
        signer,
        scope: device.scope,
        resource: device.resource,
        nonce: None,
        auth_time: now.div_euclid(1_000_000),
        expires_at_micros: sign_in::after(now, state.settings.lifetimes.refresh_token_total),
    };
    if !state.store.approve_device(&device.user_code, &grant, now).await? {
        let error = Error::http(StatusCode::CONFLICT, "The code has expired or been used meanwhile");
        return Err(error.or_as_replaced(StatusCode::CONFLICT, "Bad Request"));
    }
    let happened = Happened {
        account: Some(&grant.signer.account),
        scope: &grant.scope,
        wallet: Some(client.sign_method),
        ..Happened::default()
    };
    state.events.record(&client.id, "device_code_approved", "success", happened);
    Ok(private(json!({ "status": "approved" })))
}

#[derive(Deserialize)]
struct Deny {
    user_code: String,
}

/// The user says no, and the device is told at its next poll.
async fn deny(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Body(request): Body<Deny>,
) -> Result<Response, Error> {
    origin::of_ours(&headers, &state.settings)?;
    let (device, _) = tried(&state, &request.user_code).await?;
    if !state.store.deny_device(&device.user_code, clock::now_micros()).await? {
        return Err(unknown());
    }
    Ok(private(json!({ "status": "denied" })))
}

/// The device that shows this code, and how often that is tried is limited, wherever it is tried from.
async fn tried(state: &State, user_code: &str) -> Result<(Device, std::sync::Arc<Client>), Error> {
    let code = user_code.get(..9).filter(|code| code.len() == user_code.len()).ok_or_else(unknown)?;
    state.rates.take(RateKey::user_code(code), Limit(TRIES)).await?;
    waiting(state, code).await?.ok_or_else(unknown)
}

async fn waiting(state: &State, user_code: &str) -> Result<Option<(Device, std::sync::Arc<Client>)>, Error> {
    // Postgres keeps no NUL in a text, and a stranger may send one.
    if user_code.len() != 9 || !user_code.is_ascii() || user_code.contains('\0') {
        return Ok(None);
    }
    let Some(device) = state.store.waiting_device(user_code, clock::now_micros()).await? else { return Ok(None) };
    Ok(state.clients.active(&device.client_id).await?.map(|client| (device, client)))
}

fn unknown() -> Error {
    Error::not_found("Unknown, expired or used code")
}

/// A challenge for a device belongs to what the user sees of it.
fn binding(device: &Device) -> Digest {
    opaque::sha256(device.user_code.as_bytes())
}
