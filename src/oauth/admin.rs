//! The admin API: clients are registered, changed and deactivated (auth-gateway.md section 1.5).
//!
//! The key is looked at before anything else; the replaced system checked forms first, for anybody.

use axum::{
    Json, Router,
    extract::{Path, Request, State as Extract},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use serde_json::{Value, json};

use super::{
    Body, ClientAddress, Error, Limit, RateKey, State,
    registration::{Change, Registration, new_secret},
    secret, statistics,
};
use crate::model::{client::Client, clock};

/// These endpoints, behind the admin key.
pub fn routes(state: &State) -> Router<State> {
    Router::new()
        .route("/v1/admin/clients", get(list).post(create))
        .route("/v1/admin/clients/{id}", patch(change).delete(deactivate))
        .route("/v1/admin/clients/{id}/rotate-secret", post(rotate_secret))
        .merge(statistics::routes())
        .route_layer(middleware::from_fn_with_state(state.clone(), demand_key))
}

const KEY_HEADER: &str = "x-admin-api-key";

/// Wrong keys are counted with wrong client secrets.
async fn demand_key(
    Extract(state): Extract<State>,
    ClientAddress(address): ClientAddress,
    request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(KEY_HEADER).and_then(|value| value.to_str().ok());
    let right = match (&state.settings.admin_key, given) {
        (Some(key), Some(given)) => secret::same(key, given),
        _ => false,
    };
    if right {
        return next.run(request).await;
    }
    match state.rates.take(RateKey::address("secrets", "", address), Limit(state.settings.limits.secrets)).await {
        Ok(_) => Error::unauthorized("Invalid or missing admin API key").into_response(),
        Err(retry_after) => Error::from(retry_after).into_response(),
    }
}

async fn list(Extract(state): Extract<State>) -> Result<Json<Vec<Value>>, Error> {
    Ok(Json(state.store.clients().await?.iter().map(shown).collect()))
}

async fn create(
    Extract(state): Extract<State>,
    Body(registration): Body<Registration>,
) -> Result<(StatusCode, Json<Value>), Error> {
    let (client, secret) = registration.into_client(state.settings.production).await?;
    state.store.insert_client(&client).await?;
    state.clients.forget(&client.id).await;
    let mut document = shown(&client);
    if let Some(members) = document.as_object_mut() {
        members.remove("active");
        members.remove("created_at");
        if let Some(secret) = secret {
            members.insert("client_secret".into(), json!(secret.expose()));
        }
    }
    Ok((StatusCode::CREATED, Json(document)))
}

async fn change(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    Body(change): Body<Change>,
) -> Result<Json<Value>, Error> {
    // Somebody else may change it at the same time; then it is read again.
    for _ in 0..8 {
        let before = state.store.client(&id).await?.filter(|client| client.active).ok_or_else(unknown)?;
        let seen = before.updated_at_micros;
        let after = change.clone().apply(before, state.settings.production)?;
        if state.store.replace_client(&after, seen).await? {
            state.clients.forget(&id).await;
            return Ok(Json(shown(&after)));
        }
    }
    Err(Error::unavailable("Others are changing this client at the same time; try again"))
}

async fn rotate_secret(Extract(state): Extract<State>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    let (secret, hash) = new_secret().await?;
    if !state.store.set_client_secret(&id, &hash).await? {
        return Err(unknown());
    }
    state.clients.forget(&id).await;
    let client = state.store.client(&id).await?.ok_or_else(unknown)?;
    Ok(Json(json!({
        "client_id": client.id,
        "client_secret": secret.expose(),
        "client_name": client.name,
        "message": "The old secret does not work any more. This one is not shown again.",
    })))
}

async fn deactivate(Extract(state): Extract<State>, Path(id): Path<String>) -> Result<Json<Value>, Error> {
    if !state.store.deactivate_client(&id).await? {
        return Err(unknown());
    }
    state.clients.forget(&id).await;
    state.store.revoke_client(&id, clock::now_micros()).await?;
    Ok(Json(json!({ "status": "deactivated", "client_id": id })))
}

fn unknown() -> Error {
    Error::not_found("Client not found")
}

/// A client as it is shown: all but its secret.
#[must_use]
pub fn shown(client: &Client) -> Value {
    json!({
        "client_id": client.id,
        "client_name": client.name,
        "client_type": client.kind(),
        "redirect_uris": client.redirect_uris,
        "grant_types": client.grant_types.iter().map(|grant| grant.as_str()).collect::<Vec<_>>(),
        "allowed_scopes": client.allowed_scopes,
        "allowed_origins": client.allowed_origins,
        "allowed_sign_methods": [client.sign_method.as_str()],
        "rate_limit": client.rate_limit,
        "active": client.active,
        "created_at": moment(client.created_at_micros),
    })
}

/// RFC 3339, UTC, milliseconds.
fn moment(micros: i64) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros).saturating_mul(1000));
    moment.ok().and_then(|moment| moment.format(format).ok()).unwrap_or_default()
}
