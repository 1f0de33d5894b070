//! A device without a browser, and somebody who signs for it.

use serde_json::json;

use super::{
    Answer, secret,
    sign_in::{App, nonce, ours},
    wallet::EthereumWallet,
};

pub const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Who signs.
pub fn wallet() -> EthereumWallet {
    EthereumWallet::new(13)
}

/// The device's code and the user's.
#[track_caller]
pub fn begun(app: App<'_>) -> (String, String) {
    let answer = app.server.post_json("/v1/device/code", &json!({ "client_id": app.id(), "scopes": ["openid"] }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    (secret(document["device_code"].as_str().unwrap()), document["user_code"].as_str().unwrap().to_owned())
}

pub fn poll(app: App<'_>, code: &str) -> Answer {
    app.token(&[("grant_type", GRANT), ("device_code", code)])
}

pub fn approve(app: App<'_>, user_code: &str) -> Answer {
    ours(app.server, "/v1/device/approve", "", &json!({ "user_code": user_code, "address": wallet().address() }))
}

pub fn confirm(app: App<'_>, user_code: &str, nonce: &str, signature: &str) -> Answer {
    let body = json!({ "user_code": user_code, "address": wallet().address(), "nonce": nonce, "signature": signature });
    ours(app.server, "/v1/device/confirm", "", &body)
}

#[track_caller]
pub fn signed_for(app: App<'_>, user_code: &str) {
    let nonce = nonce(&approve(app, user_code));
    let answer = confirm(app, user_code, &nonce, &wallet().sign(&nonce));
    assert_eq!((answer.status, answer.json()), (200, json!({ "status": "approved" })), "{}", answer.text());
}
