//! The demonstration: its clients (auth-gateway.md section 11), those of the landing page and one for a device; and, where
//! this is no production, a key for those who have no wallet.

use axum::{
    Router,
    extract::State as Extract,
    http::{HeaderMap, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;

use super::{Body, Error, Settings, State, direct::private, origin, rates};
use crate::{
    model::{
        client::{Client, ClientAuthentication, GrantType, SignMethod},
        clock,
    },
    store::StoreError,
};

/// A script for a command line; and where there is a throw-away key, pages may have it sign.
pub fn routes(state: &State) -> Router<State> {
    let mut routes = Router::new();
    if state.settings.demo {
        routes = routes.route("/v1/device/demo.sh", get(script));
    }
    if state.throwaway_key.is_some() {
        routes = routes.route("/v1/demo/sign", post(sign));
    }
    if routes.has_routes() {
        return routes.route_layer(middleware::from_fn_with_state(state.clone(), rates::limit_challenges));
    }
    routes
}

/// The device flow with `curl`, for the demonstration's client.
async fn script(Extract(state): Extract<State>) -> Result<Response, Error> {
    if !prepare(&state).await {
        return Err(Error::not_found("There is no demonstration"));
    }
    // Between single quotes a shell takes everything for what it is, but them.
    let server = state.settings.public_url.replace('\'', "'\\''");
    let text = include_str!("page/templates/demo.sh");
    let text = text.replace("'SERVER'", &format!("'{server}'")).replace("CLIENT", DEVICE);
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "inline; filename=\"demo.sh\""),
    ];
    Ok((headers, text).into_response())
}

#[derive(Deserialize)]
struct Sign {
    message: String,
}

async fn sign(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Body(request): Body<Sign>,
) -> Result<Response, Error> {
    origin::of_ours(&headers, &state.settings)?;
    let key = state.throwaway_key.as_ref().ok_or_else(|| Error::not_found("There is no demonstration"))?;
    Ok(private(json!({ "signature": key.sign(request.message.as_bytes()) })))
}

/// Signs in with a Bittensor wallet on the landing page.
pub const BITTENSOR: &str = "demo-web";
/// Signs in with an Ethereum wallet on the landing page.
pub const ETHEREUM: &str = "demo-evm-web";
/// A device without a browser.
pub const DEVICE: &str = "demo-cli";

/// Where codes of the landing page's clients go: the landing page.
#[must_use]
pub fn redirect_uri(settings: &Settings) -> String {
    format!("{}/", settings.public_url)
}

/// Makes what is missing, and corrects what belongs to another public URL. Says whether all of it can be used. What an
/// administrator has deactivated stays so.
pub async fn prepare(state: &State) -> bool {
    for wanted in [BITTENSOR, ETHEREUM, DEVICE].map(|id| client(id, &state.settings)) {
        match prepared(state, wanted).await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                tracing::warn!(%error, "the demonstration's clients cannot be made");
                return false;
            }
        }
    }
    true
}

async fn prepared(state: &State, wanted: Client) -> Result<bool, StoreError> {
    let fits =
        |found: &Client| found.redirect_uris == wanted.redirect_uris && found.allowed_origins == wanted.allowed_origins;
    if state.clients.active(&wanted.id).await?.is_some_and(|found| fits(&found)) {
        return Ok(true);
    }
    match state.store.client(&wanted.id).await? {
        None => state.store.insert_client(&wanted).await?,
        Some(found) if found.active => {
            let seen = found.updated_at_micros;
            state.store.replace_client(&wanted, seen).await?;
        }
        Some(_) => return Ok(false),
    }
    state.clients.forget(&wanted.id).await;
    Ok(state.clients.active(&wanted.id).await?.is_some_and(|found| fits(&found)))
}

fn client(id: &str, settings: &Settings) -> Client {
    let device = id == DEVICE;
    let ethereum = id == ETHEREUM;
    let name = match id {
        DEVICE => "Demo CLI",
        ETHEREUM => "Demo EVM Web App",
        _ => "Demo Web App",
    };
    let now = clock::now_micros();
    Client {
        id: id.to_owned(),
        name: name.to_owned(),
        authentication: ClientAuthentication::None,
        redirect_uris: if device { Vec::new() } else { vec![redirect_uri(settings)] },
        grant_types: vec![if device { GrantType::DeviceCode } else { GrantType::AuthorizationCode }],
        allowed_scopes: if ethereum { vec!["openid".to_owned()] } else { Vec::new() },
        allowed_origins: if device { Vec::new() } else { origin::of(&settings.public_url).into_iter().collect() },
        sign_method: if ethereum { SignMethod::Evm } else { SignMethod::Sr25519 },
        rate_limit: 60,
        active: true,
        created_at_micros: now,
        updated_at_micros: now,
    }
}
