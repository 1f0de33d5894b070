//! The decision that the proxy makes, for somebody else's: `POST /introspect`, as the replaced system's introspection
//! server answered it (nevermined.md section 4).
//!
//! Inputs are headers: `nvm-requested-url`, the absolute URL of the client's request, and the client's
//! `authorization`. Whatever is refused is a 401 without a body, as it was: the proxy asking understands nothing else.
//! Nothing is held or charged here, because nobody tells us when the answer ends.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwapOption;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use url::Url;

use crate::{
    authn::{Authorization, Presented, nevermined::TokenVerifier},
    authz::{Asked, DecisionPoint, Permit},
    config::Route,
    metrics::Metrics,
    model::{clock::Timestamp, decision::Denial, did::Did, path::RequestTarget, secret::Secret},
};

/// Where the client wanted to go.
const REQUESTED_URL: &str = "nvm-requested-url";

/// What decides. Replaced as a whole by a reload.
pub struct Decider {
    /// The route that is spoken for: the first whose upstream the token names.
    pub route: Route,
    /// Reads access tokens.
    pub tokens: Arc<TokenVerifier>,
    /// Decides, as it does for the proxy.
    pub decisions: Arc<DecisionPoint>,
}

#[derive(Clone)]
struct App {
    decider: Arc<ArcSwapOption<Decider>>,
    metrics: Arc<Metrics>,
}

/// The endpoint, and the text by which the replaced server said that it is alive.
pub fn router(decider: Arc<ArcSwapOption<Decider>>, metrics: Arc<Metrics>) -> Router {
    let app = App { decider, metrics };
    Router::new().route("/introspect", post(introspect)).route("/", get(async || "Oauth server")).with_state(app)
}

async fn introspect(State(app): State<App>, headers: HeaderMap) -> Response {
    let decided = match app.decider.load_full() {
        Some(decider) => decider.decide(&headers).await,
        None => Err(Denial::NoRoute),
    };
    match decided {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], answer).into_response(),
        Err(denial) => {
            app.metrics.denials.with_label_values(&["introspection", denial.reason()]).inc();
            tracing::debug!(reason = denial.reason(), "introspection refused");
            StatusCode::UNAUTHORIZED.into_response()
        }
    }
}

impl Decider {
    async fn decide(&self, headers: &HeaderMap) -> Result<String, Denial> {
        let unusable = Denial::BadRequest("requested_url");
        let url = headers.get(REQUESTED_URL).and_then(|url| url.to_str().ok()).ok_or_else(|| unusable.clone())?;
        let (host, target) = split(url).ok_or(unusable)?;
        let target = RequestTarget::parse(target.as_bytes()).map_err(|error| Denial::BadRequest(error.reason()))?;

        let authorization = headers.get_all(header::AUTHORIZATION).iter().map(header::HeaderValue::as_bytes);
        let presented = Presented { authorization: Authorization::from_values(authorization)? };
        let identity = self.tokens.identify(&presented, Timestamp::now())?;
        let unverified_service = host.split_once('.').and_then(|(label, _)| Did::from_label(label));
        let asked = Asked { path: &target.path, forward_origin: None, unverified_service, now: Instant::now() };
        let permit = self.decisions.introspect(&self.route, identity, &asked).await?;
        answer(&self.tokens, &permit).ok_or(Denial::NotEntitled("no_endpoint"))
    }
}

/// The host in lower case, and path and query exactly as they were written: a URL library would resolve the dot segments
/// that must be seen.
fn split(url: &str) -> Option<(String, &str)> {
    let host = Url::parse(url).ok()?.host_str()?.to_ascii_lowercase();
    let (scheme, rest) = url.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let path = rest.find(['/', '?', '\\']).and_then(|at| rest.get(at..)).filter(|path| path.starts_with('/'));
    known.then(|| (host, path.unwrap_or("/")))
}

/// The answer, its members in the order in which the replaced server sent them. Claims the token lacks are left out.
#[derive(Serialize)]
struct Introspected<'a> {
    active: bool,
    user_id: &'a str,
    owner: &'a str,
    auth_type: &'a str,
    /// With the port, which the replaced server lost for open endpoints (nevermined.md section 6).
    upstream_host: &'a str,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<Moment>,
    #[serde(rename = "ercType", skip_serializing_if = "Option::is_none")]
    erc_type: Option<u64>,
    service_token: &'a str,
    auth_header: &'a str,
}

/// A claim of a token, or the empty text that stands for it on an open endpoint.
#[derive(Serialize)]
#[serde(untagged)]
enum Moment {
    At(i64),
    Empty(&'static str),
}

fn answer(tokens: &TokenVerifier, permit: &Permit) -> Option<String> {
    let endpoint = permit.endpoint()?;
    let upstream_host = endpoint.origin().authority();
    let answer = match (permit.identity(), permit.open_service()) {
        (Some(identity), _) => {
            let entitlement = identity.entitlement.as_ref()?;
            let moment = |at: Option<Timestamp>| at.map(|at| Moment::At(at.0));
            Introspected {
                active: true,
                user_id: &entitlement.user_id,
                owner: &entitlement.owner,
                auth_type: &entitlement.upstream_credential.kind,
                upstream_host,
                scope: entitlement.service.to_string(),
                exp: moment(identity.expires_at),
                iat: moment(identity.issued_at),
                erc_type: entitlement.erc_type,
                service_token: tokens.service_token_for(identity, endpoint).map_or("", Secret::expose),
                auth_header: tokens.authorization_for(identity, endpoint).map_or("", Secret::expose),
            }
        }
        (None, Some(service)) => Introspected {
            active: true,
            user_id: "",
            owner: &service.owner,
            auth_type: "none",
            upstream_host,
            scope: service.service.to_string(),
            exp: Some(Moment::Empty("")),
            iat: Some(Moment::Empty("")),
            erc_type: None,
            service_token: "",
            auth_header: "",
        },
        (None, None) => return None,
    };
    serde_json::to_string(&answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requested_path_is_read_as_it_was_written() {
        for (url, host, path) in [
            ("http://h.example/a/../b?c", "h.example", "/a/../b?c"),
            ("https://H.example:444", "h.example", "/"),
            ("HTTP://h.example/%2e%2e/", "h.example", "/%2e%2e/"),
            ("http://u:p@h.example/x", "h.example", "/x"),
        ] {
            assert_eq!(split(url), Some((host.to_owned(), path)), "{url}");
        }
        for url in ["", "/relative", "h.example/a", "ftp://h/x", "http://", "https,http://h/"] {
            assert_eq!(split(url), None, "{url}");
        }
    }
}
