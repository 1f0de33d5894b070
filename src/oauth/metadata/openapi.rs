//! The description of what no RFC describes (`OpenAPI` 3.1).
//!
//! It is written by hand: our answers are documents made where they are sent, and annotations beside them would be no nearer
//! to the truth than this file is. `tests/all/openapi.rs` compares it with the routes and with real answers.

use axum::{extract::State as Extract, response::Response};
use serde_json::{Value, json};

use super::{State, remembered};
use crate::oauth::Error;

const TEXT: &str = include_str!("openapi.json");

pub async fn serve(Extract(state): Extract<State>) -> Result<Response, Error> {
    let mut document: Value = serde_json::from_str(TEXT).map_err(|error| Error::internal(&error))?;
    if let Some(version) = document.pointer_mut("/info/version") {
        *version = json!(env!("CARGO_PKG_VERSION"));
    }
    if let Some(members) = document.as_object_mut() {
        members.insert("servers".into(), json!([{ "url": state.settings.public_url }]));
    }
    Ok(remembered(document))
}
