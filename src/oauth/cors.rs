//! Which pages may read answers: those of active clients (auth-gateway.md section 10).

use axum::{
    extract::{Request, State as Extract},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use url::{Host, Url};

use super::State;

/// Answers browsers' questions, and lets pages of clients read the rest. Requests of other pages are served all the same;
/// what they may do is the endpoints' business.
pub async fn answer(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let Some(origin) = request.headers().get(header::ORIGIN).cloned() else { return next.run(request).await };
    let allowed = is_allowed(&state, &origin).await;
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD).is_some();
    let mut response = if allowed && asked && request.method() == Method::OPTIONS {
        preflight(request.headers())
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    response
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,HEAD,POST"));
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        headers.append(header::VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    }
    response
}

/// Nobody's, while it cannot be found out.
async fn is_allowed(state: &State, origin: &HeaderValue) -> bool {
    let Some(origin) = origin.to_str().ok().and_then(normal) else { return false };
    if !state.settings.production && is_local(&origin) {
        return true;
    }
    state.clients.knows_origin(&origin).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the clients' origins are not known");
        false
    })
}

/// An origin as browsers write it. None: it is none, or not of the web.
#[must_use]
pub fn normal(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    let web = matches!(url.scheme(), "http" | "https") && url.has_host();
    (bare && anonymous && web).then(|| url.origin().ascii_serialization())
}

fn is_local(origin: &str) -> bool {
    let url = Url::parse(origin);
    url.is_ok_and(|url| match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.octets() == [127, 0, 0, 1],
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (text, expected) in [
            ("https://app.example", Some("https://app.example")),
            ("https://APP.example:443/", Some("https://app.example")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("https://app.example/x", None),
            ("https://app.example?x", None),
            ("https://app.example#x", None),
            ("https://u@app.example", None),
            ("ftp://app.example", None),
            ("null", None),
            ("app.example", None),
            ("", None),
        ] {
            assert_eq!(normal(text).as_deref(), expected, "{text}");
        }
    }
}
