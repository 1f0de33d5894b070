//! Pages: what users see while they sign in. No inline script or style, nothing from elsewhere, nothing remembered.

use axum::{
    Router,
    extract::{Query, State as Extract},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::{State, scope::Scope};
use crate::{
    model::client::{Client, SignMethod},
    store::grant::Session,
};

/// These pages, and what they load.
pub fn routes() -> Router<State> {
    Router::new().route("/v1/device/verify", get(device)).route("/static/sign-in.js", get(script))
}

/// Something that ends here.
pub struct Failure<'a> {
    /// The status.
    pub status: StatusCode,
    /// What happened.
    pub title: &'a str,
    /// What to do.
    pub text: &'a str,
}

/// Who asks for what, and how to answer.
#[must_use]
pub fn authorize(state: &State, client: &Client, session: &Session, scopes: &[Scope], session_id: &str) -> Response {
    let wallet = match client.sign_method {
        SignMethod::Sr25519 => "Bittensor",
        SignMethod::Evm => "Ethereum",
    };
    let asked: String = if scopes.is_empty() {
        "<li>Nothing but which wallet you have</li>".to_owned()
    } else {
        let line = |scope: &Scope| {
            format!("<li>{} <code>{}</code></li>", escaped(&scope.description()), escaped(scope.as_str()))
        };
        scopes.iter().map(line).collect()
    };
    let resources: String = session
        .resource
        .split_ascii_whitespace()
        .map(|uri| format!("<li>For use at <code>{}</code></li>", escaped(uri)))
        .collect();
    let name = escaped(&client.name);
    let body = format!(
        "<main data-flow=\"authorize\" data-session=\"{session_id}\"><h1>Sign in to {name}</h1>\
         <p><strong>{name}</strong> asks you to prove with your {wallet} wallet:</p><ul>{asked}{resources}</ul>\
         <p>The answer goes to <code>{}</code>.</p>{}</main>",
        escaped(&session.redirect_uri),
        form(),
    );
    shown(state, StatusCode::OK, &format!("Sign in to {name}"), &body)
}

/// What went wrong.
#[must_use]
pub fn failure(state: &State, failure: &Failure<'_>) -> Response {
    let title = escaped(failure.title);
    let body = format!(
        "<main><h1>{title}</h1><p>{}</p><p>Go back to the application and try again. If it happens again, its makers have \
         to know.</p></main>",
        escaped(failure.text)
    );
    shown(state, failure.status, &title, &body)
}

#[derive(Deserialize)]
struct Shown {
    user_code: Option<String>,
}

/// Where users enter what a device shows.
async fn device(Extract(state): Extract<State>, Query(shown_code): Query<Shown>) -> Response {
    let code = escaped(&shown_code.user_code.unwrap_or_default().chars().take(9).collect::<String>());
    let body = format!(
        "<main data-flow=\"device\"><h1>Sign in on a device</h1>\
         <p>Go on only if the device is yours and shows this code.</p>\
         <p><label for=\"user-code\">Code</label> <input id=\"user-code\" value=\"{code}\" maxlength=\"9\" \
         autocomplete=\"off\" autocapitalize=\"characters\" spellcheck=\"false\"> \
         <button type=\"button\" id=\"look\">Show what it asks for</button></p>\
         <div id=\"asked\" aria-live=\"polite\"></div>{}</main>",
        form(),
    );
    shown(&state, StatusCode::OK, "Sign in on a device", &body)
}

/// Two steps: get the message, give its signature.
fn form() -> &'static str {
    "<form id=\"sign-in\"><p><label for=\"address\">Address of your wallet</label> \
     <input id=\"address\" autocomplete=\"off\" spellcheck=\"false\" size=\"50\"></p>\
     <p><button type=\"button\" id=\"ask\">Show what to sign</button></p>\
     <p>Sign exactly this text with your wallet:</p><pre id=\"message\" tabindex=\"0\"></pre>\
     <p><label for=\"signature\">Signature</label> <input id=\"signature\" autocomplete=\"off\" spellcheck=\"false\" \
     size=\"50\"></p><p><button type=\"submit\">Sign in</button> <button type=\"button\" id=\"deny\">Deny</button></p>\
     <p id=\"status\" role=\"status\" aria-live=\"polite\"></p></form>"
}

fn shown(state: &State, status: StatusCode, title: &str, body: &str) -> Response {
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <script src=\"/static/sign-in.js\" defer></script></head><body>{body}</body></html>"
    );
    let mut response = (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; \
             form-action 'self'; frame-ancestors 'none'",
        ),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if state.settings.production {
        let value = HeaderValue::from_static("max-age=63072000; includeSubDomains");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}

async fn script() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, include_str!("page/sign-in.js")).into_response()
}

/// Text in HTML, within quotes or not.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
