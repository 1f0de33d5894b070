//! Pages: what people see while they sign in.
//!
//! The templates are compiled in and escape every value; scripts get values from attributes. The policy forbids inline script
//! and style and everything from elsewhere. Without script, pages say who asks for what, and a sign-in can be denied.

mod assets;

use askama::Template;
use axum::{
    Router,
    extract::{RawQuery, State as Extract},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use url::Url;

use super::{
    Error, State, demo, redirect,
    scope::{Kind, Scope, SigningHint},
};
use crate::{
    config::Network,
    model::client::{Client, SignMethod},
    store::grant::Session,
};

/// Pages that need nobody's request, and what all of them load. Not limited: nothing here costs anything.
pub fn routes() -> Router<State> {
    Router::new()
        .route("/", get(landing))
        .route("/v1/device/verify", get(device))
        .route(assets::ROUTE, get(assets::serve))
}

/// Something that ends here.
pub struct Failure<'a> {
    /// The status.
    pub status: StatusCode,
    /// What happened.
    pub title: &'a str,
    /// In more words.
    pub text: &'a str,
}

/// What is around every page.
struct Frame {
    /// What is before our paths.
    base: String,
    assets: String,
    host: String,
    testnet: bool,
    banner: Option<String>,
    /// The account of the demonstration's key.
    throwaway: Option<String>,
}

/// A scope, for people.
struct Asked {
    meaning: String,
    text: String,
}

/// A kind of key, and whether a script has yet to find out that it is wanted.
type Keys = Vec<(&'static str, bool)>;

#[derive(Template)]
#[template(path = "authorize.html", config = "src/oauth/page/askama.toml")]
struct Authorize<'a> {
    frame: Frame,
    client_name: &'a str,
    session: &'a str,
    wallet: &'static str,
    wants: &'static str,
    keys: Keys,
    destination: String,
    scopes: Vec<Asked>,
    resources: Vec<&'a str>,
    deny_url: String,
}

#[derive(Template)]
#[template(path = "device.html", config = "src/oauth/page/askama.toml")]
struct Device {
    frame: Frame,
    user_code: String,
    keys: Keys,
}

#[derive(Template)]
#[template(path = "failure.html", config = "src/oauth/page/askama.toml")]
struct Failed<'a> {
    frame: Frame,
    title: &'a str,
    text: &'a str,
    next: &'static str,
}

#[derive(Template)]
#[template(path = "landing.html", config = "src/oauth/page/askama.toml")]
struct Landing<'a> {
    frame: Frame,
    verification_uri: &'a str,
    demo: Option<Demo<'a>>,
    version: &'static str,
}

/// What the demonstration has to know.
struct Demo<'a> {
    issuer: &'a str,
    redirect_uri: String,
    bittensor: &'static str,
    ethereum: &'static str,
    /// Whether Bittensor wallets can sign in: a chain is known.
    chain: bool,
}

impl Frame {
    fn new(state: &State) -> Self {
        let settings = &state.settings;
        let url = Url::parse(&settings.public_url).ok();
        let base = url.as_ref().map_or("", Url::path).trim_end_matches('/').to_owned();
        Self {
            assets: format!("{base}{}", assets::folder()),
            host: url.as_ref().and_then(Url::host_str).unwrap_or_default().to_owned(),
            testnet: settings.network == Network::Testnet,
            banner: settings.wallet_banner_url.clone(),
            throwaway: state.throwaway_key.as_ref().map(|key| key.account().checksummed()),
            base,
        }
    }
}

impl From<&Scope> for Asked {
    fn from(scope: &Scope) -> Self {
        let meaning = match scope.kind() {
            Kind::OpenId => "Your sign-in, as a signed statement".to_owned(),
            _ => scope.description(),
        };
        Self { meaning, text: scope.as_str().to_owned() }
    }
}

/// Who asks for what, and how to answer.
#[must_use]
pub fn authorize(state: &State, client: &Client, session: &Session, scopes: &[Scope], session_id: &str) -> Response {
    let wants = match client.sign_method {
        SignMethod::Evm => "evm",
        SignMethod::Sr25519 => SigningHint::of_all(scopes.iter().map(Scope::as_str)).as_str(),
    };
    let denied = redirect::parameters(state, &[("error", "access_denied")], session.state.as_deref());
    let page = Authorize {
        frame: Frame::new(state),
        client_name: name(client),
        session: session_id,
        wallet: client.sign_method.as_str(),
        wants,
        keys: vec![(wants, false)],
        destination: origin(&session.redirect_uri),
        scopes: scopes.iter().map(Asked::from).collect(),
        resources: session.resource.split_ascii_whitespace().collect(),
        deny_url: redirect::address(&session.redirect_uri, &denied),
    };
    shown(state, StatusCode::OK, &page)
}

/// A client may have no name, and must be called something.
fn name(client: &Client) -> &str {
    if client.name.trim().is_empty() { &client.id } else { &client.name }
}

/// Where an answer goes, as far as people compare it: never a part that only looks like a host.
fn origin(redirect_uri: &str) -> String {
    let url = Url::parse(redirect_uri);
    url.map_or_else(
        |_| redirect_uri.to_owned(),
        |url| match url.origin() {
            url::Origin::Tuple(..) => url.origin().ascii_serialization(),
            url::Origin::Opaque(_) => redirect_uri.to_owned(),
        },
    )
}

/// What went wrong, and what to do next.
#[must_use]
pub fn failure(state: &State, failure: &Failure<'_>) -> Response {
    let frame = Frame::new(state);
    let page = Failed { frame, title: failure.title, text: failure.text, next: next(failure.status) };
    shown(state, failure.status, &page)
}

fn next(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => "Wait a minute, then load this page again.",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            "Check the address. If a link or an application brought you here, tell whoever made it."
        }
        status if status.is_server_error() => {
            "Wait a minute, then load this page again. If it does not help, go back to the application and start again \
             later."
        }
        _ => {
            "Go back to the application and start the sign-in again. If you get here again, the application has to be \
             corrected: tell its makers what this page says."
        }
    }
}

/// An error for whoever opened an address with a browser, and not with a program: a page.
#[must_use]
pub fn instead_of(error: &Error, state: &State) -> Response {
    let status = error.status(state.settings.compatibility);
    let title = match status {
        StatusCode::TOO_MANY_REQUESTS => "Too Many Requests",
        StatusCode::NOT_FOUND => "Nothing Here",
        status if status.is_server_error() => "Try Again Later",
        _ => "This Does Not Work",
    };
    failure(state, &Failure { status, title, text: error.description() })
}

/// Whether a person waits for the answer: browsers say that they would like a page.
#[must_use]
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html"))
}

/// Where users enter what a device shows (RFC 8628 §3.3).
async fn device(Extract(state): Extract<State>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let code = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "user_code");
    let code = code.map(|(_, code)| code).unwrap_or_default();
    let page = Device {
        frame: Frame::new(&state),
        user_code: code.chars().filter(char::is_ascii_graphic).take(16).collect(),
        keys: ["hotkey", "coldkey", "any", "evm"].map(|key| (key, true)).into(),
    };
    shown(&state, StatusCode::OK, &page)
}

/// What this is, and in the demonstration how it feels.
async fn landing(Extract(state): Extract<State>) -> Response {
    let settings = &state.settings;
    // Without its clients there is no demonstration, but still a page.
    let ready = settings.demo && demo::prepare(&state).await;
    let demo = ready.then(|| Demo {
        issuer: &settings.issuer,
        redirect_uri: demo::redirect_uri(settings),
        bittensor: demo::BITTENSOR,
        ethereum: demo::ETHEREUM,
        chain: state.facts.owners.is_some(),
    });
    let page = Landing {
        frame: Frame::new(&state),
        verification_uri: &settings.verification_uri,
        demo,
        version: env!("CARGO_PKG_VERSION"),
    };
    shown(&state, StatusCode::OK, &page)
}

/// What pages may load and do. Where forms go is checked again at each redirect, and scripts send ours.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

fn shown(state: &State, status: StatusCode, page: &impl Template) -> Response {
    let text = match page.render() {
        Ok(text) => text,
        Err(error) => return Error::internal(&error).into_response(),
    };
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if state.settings.production {
        let value = HeaderValue::from_static("max-age=63072000; includeSubDomains");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_the_origin_and_not_to_what_looks_like_one() {
        for (uri, expected) in [
            ("https://app.example/callback?x=https://evil.example", "https://app.example"),
            ("https://app.example:8443/", "https://app.example:8443"),
            ("http://localhost:3000/", "http://localhost:3000"),
            ("https://good.example@evil.example/", "https://evil.example"),
            ("com.example.app:/callback", "com.example.app:/callback"),
        ] {
            assert_eq!(origin(uri), expected);
        }
    }

    #[test]
    fn a_browser_is_who_asks_for_a_page() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json, text/html;q=0.1", true),
            ("*/*", false),
            ("application/json", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
