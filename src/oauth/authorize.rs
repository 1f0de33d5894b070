//! The authorization endpoint (RFC 6749 section 3.1): checks the request, remembers it, and shows the page that asks the
//! user.
//!
//! Until client and redirect URI are known good, what is wrong is shown here and nowhere else: to send a browser to an
//! address that nobody vouched for would make this an open redirector (RFC 6749 section 4.1.2.1). From then on it is told
//! to the client. The replaced server always showed it here.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    extract::{RawQuery, State as Extract},
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::get,
};

use super::{
    Body, Error, State, asked, browser,
    events::Happened,
    opaque::{self, Kind},
    page, pkce, redirect,
    resource::Resources,
    scope::Scope,
    sign_in::after,
};
use crate::{
    config::OAuthCompatibility,
    model::{
        client::{Client, GrantType},
        clock,
    },
    store::grant::Session,
};

/// This endpoint. A form may be posted to it as well (OpenID Connect Core section 3.1.2.1).
pub fn routes() -> Router<State> {
    Router::new().route("/v1/oauth/authorize", get(asked_by_link).post(asked_by_form))
}

/// The parameters that we know.
#[derive(Clone, Default, serde::Deserialize)]
struct Parameters {
    client_id: Option<String>,
    redirect_uri: Option<String>,
    response_type: Option<String>,
    scope: Option<String>,
    state: Option<String>,
    nonce: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    prompt: Option<String>,
    response_mode: Option<String>,
    request: Option<String>,
    request_uri: Option<String>,
    registration: Option<String>,
    #[serde(default)]
    resource: Resources,
}

/// What is wrong, in all the ways it may be told.
struct Wrong {
    /// The error code for the client.
    word: &'static str,
    status: StatusCode,
    title: &'static str,
    text: Cow<'static, str>,
}

async fn asked_by_link(state: Extract<State>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let request = super::body::form(query.unwrap_or_default().as_bytes());
    answer(state.0, headers, serde_json::from_value(request).ok()).await
}

async fn asked_by_form(state: Extract<State>, headers: HeaderMap, body: Result<Body<Parameters>, Error>) -> Response {
    answer(state.0, headers, body.ok().map(|Body(request)| request)).await
}

async fn answer(state: State, headers: HeaderMap, request: Option<Parameters>) -> Response {
    let Some(request) = request else {
        return page::failure(
            &state,
            &wrong("invalid_request", "Bad Request", "A parameter is there more than once").shown(),
        );
    };
    let client = match trusted(&state, &request).await {
        Ok(client) => client,
        Err(wrong) => {
            counted(&state, &wrong);
            return page::failure(&state, &wrong.shown());
        }
    };
    let refused = match begin(&state, &headers, &request, &client).await {
        Ok(response) => return response,
        Err(refused) => refused,
    };
    counted(&state, &refused);
    if refused.word == "invalid_scope" {
        let scope = request.scope.as_deref().unwrap_or_default();
        let happened = Happened { scope: short(scope), wallet: Some(client.sign_method), ..Happened::default() };
        state.events.record(&client.id, "scope_rejected", "rejected", happened);
    }
    match (state.settings.compatibility, &request.redirect_uri) {
        (OAuthCompatibility::Standard, Some(uri)) => {
            let error = [("error", refused.word), ("error_description", &*refused.text)];
            redirect::to(uri, &redirect::parameters(&state, &error, request.state.as_deref()))
        }
        _ => page::failure(&state, &refused.shown()),
    }
}

fn counted(state: &State, wrong: &Wrong) {
    state.events.count("authorize", "failure", Happened { reason: Some(wrong.word), ..Happened::default() });
}

/// Who asks, if it is a client and the answer goes to an address of its own, letter by letter.
async fn trusted(state: &State, request: &Parameters) -> Result<Arc<Client>, Wrong> {
    let (Some(id), Some(uri)) = (filled(request.client_id.as_ref()), filled(request.redirect_uri.as_ref())) else {
        return Err(wrong("invalid_request", "Bad Request", "client_id and redirect_uri are required"));
    };
    let client = state.clients.active(id).await.map_err(|error| {
        tracing::warn!(%error, "a client cannot be looked up");
        Wrong {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..wrong("temporarily_unavailable", "Try Again", "The database cannot be reached; try again in a minute")
        }
    })?;
    let client =
        client.ok_or_else(|| wrong("invalid_client", "Unknown Application", "This application is not registered"))?;
    if client.redirect_uris.iter().any(|registered| registered == uri) {
        return Ok(client);
    }
    Err(wrong("invalid_request", "Invalid Redirect", "This redirect_uri is not registered for the application"))
}

/// Checks the rest, and begins.
async fn begin(state: &State, headers: &HeaderMap, request: &Parameters, client: &Client) -> Result<Response, Wrong> {
    let standard = state.settings.compatibility == OAuthCompatibility::Standard;
    if standard {
        check_supported(request)?;
    }
    match filled(request.response_type.as_ref()) {
        Some("code") => {}
        None => return Err(wrong("invalid_request", "Bad Request", "response_type is required")),
        Some(_) => return Err(wrong("unsupported_response_type", "Bad Request", "response_type must be code")),
    }
    if standard && !client.grant_types.contains(&GrantType::AuthorizationCode) {
        return Err(wrong("unauthorized_client", "Bad Request", "The application may not use this flow"));
    }
    check_pkce(request, client)?;
    check_texts(request)?;
    let scopes = scopes(state, request, client)?;
    let resource = request.resource.among(&state.settings.resources).map_err(|_| {
        wrong("invalid_target", "Bad Request", "resource is not one that this server issues tokens for")
    })?;
    // Every sign-in asks the wallet, so it cannot be done unseen (OpenID Connect Core section 3.1.2.6).
    if standard && request.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|word| word == "none")) {
        return Err(wrong("login_required", "Bad Request", "A wallet has to sign, which nobody can do unseen"));
    }
    let failed = |_| Wrong {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        ..wrong("server_error", "Internal Server Error", "Something went wrong on our side; try again later")
    };
    let browser = browser::known_or_new(headers, &state.settings).map_err(failed)?;
    let (id, digest) = opaque::issue(Kind::Session).map_err(failed)?;
    let session = Session {
        browser: browser.digest,
        client_id: client.id.clone(),
        redirect_uri: request.redirect_uri.clone().unwrap_or_default(),
        scope: asked::joined(&scopes),
        resource,
        state: request.state.clone(),
        nonce: request.nonce.clone(),
        code_challenge: request.code_challenge.clone().filter(|text| !text.is_empty()),
        expires_at_micros: after(clock::now_micros(), state.settings.lifetimes.authorize_session),
    };
    state.store.insert_session(&digest, &session).await.map_err(|error| {
        tracing::warn!(%error, "an authorize session cannot be kept");
        Wrong {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..wrong("temporarily_unavailable", "Try Again", "The database cannot be reached; try again in a minute")
        }
    })?;
    let happened = Happened {
        scope: &session.scope,
        wallet: Some(client.sign_method),
        detail: Some(("response_type", "code")),
        ..Happened::default()
    };
    state.events.record(&client.id, "authorize", "success", happened);
    let mut response = page::authorize(state, client, &session, &scopes, id.expose());
    browser.remember(&mut response);
    Ok(response)
}

/// What nobody may pass over who does not know it: the answer would come another way than was asked for, or be about
/// something else (OpenID Connect Core sections 3.1.2.6 and 6). The replaced server did not look.
fn check_supported(request: &Parameters) -> Result<(), Wrong> {
    for (parameter, word, text) in [
        (&request.request, "request_not_supported", "request is not supported"),
        (&request.request_uri, "request_uri_not_supported", "request_uri is not supported"),
        (&request.registration, "registration_not_supported", "registration is not supported"),
    ] {
        if filled(parameter.as_ref()).is_some() {
            return Err(wrong(word, "Bad Request", text));
        }
    }
    match filled(request.response_mode.as_ref()) {
        None | Some("query") => Ok(()),
        Some(_) => Err(wrong("invalid_request", "Bad Request", "response_mode must be query")),
    }
}

/// S256 or nothing; nothing only for clients that have a secret (RFC 7636, RFC 9700 section 2.1.1).
fn check_pkce(request: &Parameters, client: &Client) -> Result<(), Wrong> {
    let method = filled(request.code_challenge_method.as_ref());
    let Some(challenge) = filled(request.code_challenge.as_ref()) else {
        if client.is_public() {
            return Err(wrong("invalid_request", "PKCE Required", "code_challenge with method S256 is required"));
        }
        return match method {
            None => Ok(()),
            Some(_) => Err(wrong("invalid_request", "Bad Request", "code_challenge_method without code_challenge")),
        };
    };
    if method != Some("S256") {
        let (title, text) = if client.is_public() {
            ("PKCE Required", "PKCE needs an explicit code_challenge_method=S256")
        } else {
            ("Bad Request", "PKCE needs an explicit code_challenge_method=S256")
        };
        return Err(wrong("invalid_request", title, text));
    }
    if pkce::is_challenge(challenge) {
        return Ok(());
    }
    Err(wrong("invalid_request", "Bad Request", "code_challenge must be 43 letters of base64url"))
}

/// `state` and `nonce` come back as they are, and so they must be something that can be kept and sent (RFC 6749
/// appendix A.5).
fn check_texts(request: &Parameters) -> Result<(), Wrong> {
    let fine = |text: &Option<String>| {
        text.as_ref().is_none_or(|text| text.len() <= 4096 && !text.chars().any(char::is_control))
    };
    if fine(&request.state) && fine(&request.nonce) {
        return Ok(());
    }
    Err(wrong("invalid_request", "Bad Request", "state and nonce must be text of at most 4096 bytes"))
}

fn scopes(state: &State, request: &Parameters, client: &Client) -> Result<Vec<Scope>, Wrong> {
    let texts: Vec<&str> = match filled(request.scope.as_ref()) {
        None => Vec::new(),
        Some(scope) => scope.split(' ').collect(),
    };
    let refused = |refused: asked::Refused| Wrong {
        status: refused.status(),
        title: if refused.status() == StatusCode::FORBIDDEN { "Forbidden" } else { "Invalid Scopes" },
        text: refused.text(),
        word: "invalid_scope",
    };
    let scopes = asked::scopes(&texts, state.settings.network).map_err(refused)?;
    asked::allowed(&scopes, client).map_err(refused)?;
    // The replaced server found this out after the page had been shown.
    if state.settings.compatibility == OAuthCompatibility::Standard {
        asked::suit(&scopes, client.sign_method).map_err(refused)?;
    }
    Ok(scopes)
}

fn filled(field: Option<&String>) -> Option<&str> {
    field.map(String::as_str).filter(|text| !text.is_empty())
}

fn short(text: &str) -> &str {
    text.get(..200).unwrap_or(if text.len() > 200 { "" } else { text })
}

fn wrong(word: &'static str, title: &'static str, text: &'static str) -> Wrong {
    Wrong { word, status: StatusCode::BAD_REQUEST, title, text: text.into() }
}

impl Wrong {
    fn shown(&self) -> page::Failure<'_> {
        page::Failure { status: self.status, title: self.title, text: &self.text }
    }
}
