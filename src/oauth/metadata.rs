//! What the server says about itself: metadata, keys, scopes, health (auth-gateway.md section 1.6, RFC 8414, OpenID Connect
//! Discovery).

mod openapi;
mod scopes;

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State as Extract,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Map, Value, json};

use super::State;
use crate::{
    chain::subtensor::owners::Owners,
    config::{Network, OAuthCompatibility},
    model::client::GrantType,
};

/// These endpoints.
pub fn routes() -> Router<State> {
    Router::new()
        .route("/.well-known/openid-configuration", get(configuration))
        .route("/.well-known/oauth-authorization-server", get(configuration))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/v1/discovery/scope-config", get(scope_config))
        .route("/v1/openapi.json", get(openapi::serve))
        .route("/health", get(health))
}

/// How long answers may be remembered, and so how long a signing key is published before it signs.
pub const REMEMBERED: Duration = Duration::from_hours(1);

fn remembered(document: Value) -> Response {
    let mut response = Json(document).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={}", REMEMBERED.as_secs())) {
        response.headers_mut().insert(header::CACHE_CONTROL, value);
    }
    response
}

/// One document for both, since OpenID Connect's is a superset of OAuth's.
async fn configuration(Extract(state): Extract<State>) -> Response {
    remembered(document(&state))
}

/// What there is. Whoever adds an endpoint or a method adds it here.
fn document(state: &State) -> Value {
    let settings = &state.settings;
    let at = |path: &str| json!(format!("{}{path}", settings.public_url));
    let standard = settings.compatibility == OAuthCompatibility::Standard;
    let mut document = Map::new();
    for (name, value) in [
        ("issuer", json!(settings.issuer)),
        ("authorization_endpoint", at("/v1/oauth/authorize")),
        ("token_endpoint", at("/v1/oauth/token")),
        ("device_authorization_endpoint", at("/v1/device/code")),
        ("userinfo_endpoint", at("/v1/oauth/userinfo")),
        ("introspection_endpoint", at("/v1/oauth/introspect")),
        ("revocation_endpoint", at("/v1/oauth/revoke")),
        ("response_types_supported", json!(["code"])),
        ("response_modes_supported", json!(["query"])),
        ("grant_types_supported", json!(GrantType::ALL.map(GrantType::as_str))),
        ("token_endpoint_auth_methods_supported", json!(["client_secret_basic", "client_secret_post", "none"])),
        ("introspection_endpoint_auth_methods_supported", json!(["client_secret_basic", "client_secret_post"])),
        ("revocation_endpoint_auth_methods_supported", json!(["client_secret_basic", "client_secret_post", "none"])),
        ("code_challenge_methods_supported", json!(["S256"])),
        ("authorization_response_iss_parameter_supported", json!(standard)),
        ("claims_supported", json!(CLAIMS)),
        ("prompt_values_supported", json!(["login", "consent"])),
        // Whoever says nothing supports it (OpenID Connect Discovery section 3).
        ("request_uri_parameter_supported", json!(false)),
        ("jwks_uri", at("/.well-known/jwks.json")),
        // For people; it leads to the description for programs.
        ("service_documentation", at("/")),
        ("scopes_supported", json!(scopes::supported(settings.network))),
        ("id_token_signing_alg_values_supported", json!(state.keys.algorithms())),
        ("subject_types_supported", json!(["public"])),
        ("sign_methods_supported", json!(["sr25519", "evm"])),
    ] {
        document.insert(name.into(), value);
    }
    Value::Object(document)
}

const CLAIMS: [&str; 14] = [
    "sub",
    "iss",
    "aud",
    "exp",
    "iat",
    "auth_time",
    "nonce",
    "at_hash",
    "scope",
    "hotkey",
    "coldkey",
    "evm_address",
    "client_id",
    "signer_type",
];

async fn jwks(Extract(state): Extract<State>) -> Response {
    remembered(state.keys.jwks())
}

async fn scope_config() -> Response {
    remembered(scopes::configuration())
}

/// Whether sign-ins can succeed. Never limited, and never remembered: each answer is found out, the chain's by
/// [`Owners`](crate::chain::subtensor::owners::Owners), which keeps asking.
///
/// Without the chain Ethereum wallets can still sign in, so the status stays 200; the replaced system's did not.
async fn health(Extract(state): Extract<State>) -> Response {
    let database = state.store.health().await.is_ok();
    let chain = state.facts.owners.as_ref().map(Owners::is_connected);
    let well = database && chain != Some(false);
    let serving = match state.settings.compatibility {
        OAuthCompatibility::Standard => database,
        OAuthCompatibility::AuthGateway => well,
    };
    let network = match state.settings.network {
        Network::Mainnet => "mainnet",
        Network::Testnet => "testnet",
    };
    let document = json!({
        "status": if well { "ok" } else { "degraded" },
        "network": network,
        "subtensor": chain == Some(true),
        "database": database,
        "uptime": state.started.elapsed().as_secs_f64(),
    });
    let status = if serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}
