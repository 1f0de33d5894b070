//! The ways to say no, and the one place where each becomes HTTP.
//!
//! An endpoint returns an [`Error`], which says what is wrong in the RFCs' words. [`render`] turns it into an answer, with
//! the RFCs' status numbers or the replaced system's (auth-gateway.md section 1.0): both carry `error_description` and
//! `message` with the same text.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    extract::{Request, State as Extract},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{State, page};
use crate::{config::OAuthCompatibility, store::StoreError};

/// What an endpoint answers instead of what was asked for.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    description: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// What the replaced system said in its place: status and `error`.
    replaced: Option<(StatusCode, &'static str)>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// An error of RFC 6749 and its relatives.
    OAuth(Code),
    /// An error of HTTP, told by the status's own words.
    Http(StatusCode),
    /// What was sent does not have the form it should have. The replaced system's answer had no `error_description`.
    Form,
    /// The same at an endpoint of OAuth: `invalid_request` (RFC 6749 section 5.2).
    OAuthForm,
    /// What was sent could not even be read: the replaced system called that its own error, whatever the status.
    Unreadable(StatusCode),
}

/// An `error` code, and the document that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// RFC 6749 §5.2
    InvalidRequest,
    /// RFC 6749 §5.2
    InvalidClient,
    /// RFC 6749 §5.2. The replaced system's status was 401.
    InvalidGrant,
    /// RFC 6749 §5.2. The replaced system said `unsupported_grant_type`.
    UnauthorizedClient,
    /// RFC 6749 §5.2
    UnsupportedGrantType,
    /// RFC 6749 §5.2
    InvalidScope,
    /// RFC 6749 §4.1.2.1, RFC 8628 §3.5
    AccessDenied,
    /// RFC 8628 §3.5
    AuthorizationPending,
    /// RFC 8628 §3.5
    SlowDown,
    /// RFC 8628 §3.5
    ExpiredToken,
    /// RFC 8707 §2
    InvalidTarget,
    /// RFC 7009 §2.2.1
    UnsupportedTokenType,
    /// RFC 6750 §3.1
    InvalidToken,
    /// RFC 6750 §3.1
    InsufficientScope,
}

impl Code {
    /// The word, and its status.
    #[must_use]
    pub fn parts(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidRequest => ("invalid_request", StatusCode::BAD_REQUEST),
            Self::InvalidClient => ("invalid_client", StatusCode::UNAUTHORIZED),
            Self::InvalidGrant => ("invalid_grant", StatusCode::BAD_REQUEST),
            Self::UnauthorizedClient => ("unauthorized_client", StatusCode::BAD_REQUEST),
            Self::UnsupportedGrantType => ("unsupported_grant_type", StatusCode::BAD_REQUEST),
            Self::InvalidScope => ("invalid_scope", StatusCode::BAD_REQUEST),
            Self::AccessDenied => ("access_denied", StatusCode::BAD_REQUEST),
            Self::AuthorizationPending => ("authorization_pending", StatusCode::BAD_REQUEST),
            Self::SlowDown => ("slow_down", StatusCode::BAD_REQUEST),
            Self::ExpiredToken => ("expired_token", StatusCode::BAD_REQUEST),
            Self::InvalidTarget => ("invalid_target", StatusCode::BAD_REQUEST),
            Self::UnsupportedTokenType => ("unsupported_token_type", StatusCode::BAD_REQUEST),
            Self::InvalidToken => ("invalid_token", StatusCode::UNAUTHORIZED),
            Self::InsufficientScope => ("insufficient_scope", StatusCode::FORBIDDEN),
        }
    }
}

impl Error {
    /// An error of OAuth.
    #[must_use]
    pub fn oauth(code: Code, description: impl Into<Cow<'static, str>>) -> Self {
        let replaced = match code {
            Code::InvalidGrant => Some((StatusCode::UNAUTHORIZED, "invalid_grant")),
            Code::UnauthorizedClient => Some((StatusCode::BAD_REQUEST, "unsupported_grant_type")),
            _ => None,
        };
        Self { kind: Kind::OAuth(code), description: description.into(), retry_after: None, replaced }
    }

    /// An error of HTTP: its `error` is the status's own words, as `Bad Request`.
    #[must_use]
    pub fn http(status: StatusCode, description: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Http(status), description: description.into(), retry_after: None, replaced: None }
    }

    /// 400 `Bad Request`.
    #[must_use]
    pub fn bad_request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::http(StatusCode::BAD_REQUEST, description)
    }

    /// 401 `Unauthorized`.
    #[must_use]
    pub fn unauthorized(description: impl Into<Cow<'static, str>>) -> Self {
        Self::http(StatusCode::UNAUTHORIZED, description)
    }

    /// 403 `Forbidden`.
    #[must_use]
    pub fn forbidden(description: impl Into<Cow<'static, str>>) -> Self {
        Self::http(StatusCode::FORBIDDEN, description)
    }

    /// 404 `Not Found`.
    #[must_use]
    pub fn not_found(description: impl Into<Cow<'static, str>>) -> Self {
        Self::http(StatusCode::NOT_FOUND, description)
    }

    /// 401 `invalid_client`, the same whatever is wrong with the client.
    #[must_use]
    pub fn invalid_client(description: impl Into<Cow<'static, str>>) -> Self {
        Self::oauth(Code::InvalidClient, description)
    }

    /// 400: a field is missing or of the wrong kind.
    #[must_use]
    pub fn form(description: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Form, description: description.into(), retry_after: None, replaced: None }
    }

    /// The same error, at an endpoint of OAuth.
    #[must_use]
    pub fn in_oauth(self) -> Self {
        let kind = if matches!(self.kind, Kind::Form) { Kind::OAuthForm } else { self.kind };
        Self { kind, ..self }
    }

    /// What was sent cannot be read at all.
    #[must_use]
    pub fn unreadable(status: StatusCode, description: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: Kind::Unreadable(status), description: description.into(), retry_after: None, replaced: None }
    }

    /// 429 with `Retry-After`.
    #[must_use]
    pub fn too_many_requests(retry_after: Duration) -> Self {
        let text = "Rate limit exceeded, retry in 1 minute";
        Self { retry_after: Some(retry_after), ..Self::http(StatusCode::TOO_MANY_REQUESTS, text) }
    }

    /// 503 with `Retry-After`: it could not be found out, which is neither yes nor no.
    #[must_use]
    pub fn unavailable(description: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = Some(Duration::from_secs(1));
        Self { retry_after, ..Self::http(StatusCode::SERVICE_UNAVAILABLE, description) }
    }

    /// 500: our fault, logged here once. The client is told nothing of it.
    #[must_use]
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "the authorization server failed");
        Self::http(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side; try again later")
    }

    /// What the replaced system answered in its place.
    #[must_use]
    pub fn or_as_replaced(self, status: StatusCode, error: &'static str) -> Self {
        Self { replaced: Some((status, error)), ..self }
    }

    /// The status that it is told with.
    #[must_use]
    pub fn status(&self, compatibility: OAuthCompatibility) -> StatusCode {
        self.told(compatibility).0
    }

    /// Whether this is an error of OAuth with this code.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        matches!(self.kind, Kind::OAuth(own) if own == code)
    }

    /// What is wrong, for people.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The `error` word with the RFCs' meaning: for counters and the event log.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.told(OAuthCompatibility::Standard).1
    }

    fn told(&self, compatibility: OAuthCompatibility) -> (StatusCode, &'static str) {
        let phrase = |status: StatusCode| (status, status.canonical_reason().unwrap_or("Error"));
        let replaced = compatibility == OAuthCompatibility::AuthGateway;
        match (self.kind, self.replaced) {
            (_, Some(told)) if replaced => told,
            (Kind::Unreadable(status), _) if replaced => (status, "Internal Server Error"),
            (Kind::OAuth(code), _) => {
                let (word, status) = code.parts();
                (status, word)
            }
            (Kind::Http(status) | Kind::Unreadable(status), _) => phrase(status),
            (Kind::OAuthForm, _) if !replaced => (StatusCode::BAD_REQUEST, "invalid_request"),
            (Kind::Form | Kind::OAuthForm, _) => phrase(StatusCode::BAD_REQUEST),
        }
    }

    fn answer(&self, compatibility: OAuthCompatibility) -> Response {
        let (status, error) = self.told(compatibility);
        let mut document = json!({ "error": error, "statusCode": status.as_u16(), "message": self.description });
        let undescribed = matches!(self.kind, Kind::Form | Kind::OAuthForm | Kind::Unreadable(_));
        if let Some(members) = document.as_object_mut()
            && !(undescribed && compatibility == OAuthCompatibility::AuthGateway)
            && status != StatusCode::TOO_MANY_REQUESTS
        {
            members.insert("error_description".into(), json!(self.description));
        }
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(retry_after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
        }
        // RFC 6749 §5.2 wants a challenge; the replaced system sent none.
        if self.is(Code::InvalidClient) && compatibility == OAuthCompatibility::Standard {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"tollgate\""));
        }
        response
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        if error.is_retryable() {
            tracing::warn!(%error, "the authorization server's database is away");
            return Self::unavailable("The database cannot be reached; try again");
        }
        Self::internal(&error)
    }
}

impl IntoResponse for Error {
    /// Told as the RFCs want it; [`render`] tells it again if the settings want it otherwise.
    fn into_response(self) -> Response {
        let mut response = self.answer(OAuthCompatibility::Standard);
        response.extensions_mut().insert(self);
        response
    }
}

/// Tells errors as the settings want them, and people by a page. Headers that an endpoint or a layer has added stay.
pub async fn render(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let page = page::is_wanted(request.headers());
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<Error>() else { return response };
    let compatibility = state.settings.compatibility;
    let mut told = match compatibility {
        _ if page => page::instead_of(&error, &state),
        OAuthCompatibility::Standard => return response,
        OAuthCompatibility::AuthGateway => error.answer(compatibility),
    };
    for (name, value) in response.headers() {
        let known = told.headers().contains_key(name);
        // The challenge that the replaced server did not send; UserInfo, which it did not have, must send its own.
        let unwanted = name == header::WWW_AUTHENTICATE && error.is(Code::InvalidClient);
        if !known && !unwanted && name != header::CONTENT_LENGTH {
            told.headers_mut().append(name, value.clone());
        }
    }
    told
}

/// There is nothing here.
pub async fn not_found(Extract(state): Extract<State>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    nothing(&state, &method, &uri, &headers)
}

fn nothing(state: &State, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    if page::is_wanted(headers) {
        return page::instead_of(&Error::not_found("There is no page at this address."), state);
    }
    let message = format!("Route {method}:{} not found", uri.path());
    let document = json!({ "message": message, "error": "Not Found", "statusCode": 404 });
    (StatusCode::NOT_FOUND, Json(document)).into_response()
}

/// There is something here, for other methods. The replaced system did not say so.
pub async fn method_not_allowed(
    Extract(state): Extract<State>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    match state.settings.compatibility {
        OAuthCompatibility::AuthGateway => nothing(&state, &method, &uri, &headers),
        OAuthCompatibility::Standard => {
            Error::http(StatusCode::METHOD_NOT_ALLOWED, "This is not how it is asked for").into_response()
        }
    }
}
