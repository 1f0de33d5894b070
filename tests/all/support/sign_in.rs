//! Somebody who signs in, step by step.

use serde_json::{Value, json};

use super::{
    Answer, Request,
    oauth::{PUBLIC_URL, Server},
    secret,
    wallet::EthereumWallet,
};

/// RFC 7636 appendix B.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub const REDIRECT: &str = "https://app.example/callback";

/// A registration for Ethereum wallets; `kind` is `public` or `confidential`.
pub fn registration(kind: &str) -> Value {
    json!({
        "client_name": "Weather <App>",
        "client_type": kind,
        "redirect_uris": [REDIRECT, "https://app.example/cb?x=1"],
        "grant_types": super::oauth::GRANTS,
        "allowed_sign_methods": ["evm"],
        "allowed_scopes": ["openid"],
        "rate_limit": 0,
    })
}

/// A registered application and its server.
#[derive(Clone, Copy)]
pub struct App<'s> {
    pub server: &'s Server,
    pub client: &'s Value,
}

/// A page that waits for a signature.
pub struct Page {
    pub session: String,
    pub cookie: String,
    pub text: String,
}

impl<'s> App<'s> {
    pub fn id(&self) -> &'s str {
        self.client["client_id"].as_str().unwrap()
    }

    /// The usual parameters of the authorize page.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let mut all = vec![];
        for (name, value) in [
            ("client_id", self.id()),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "openid"),
            ("state", "xyz &="),
            ("nonce", "n-0S6_WzA2Mj"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ] {
            all.push((name.to_owned(), value.to_owned()));
        }
        all
    }

    /// Opens the page with some parameters changed; an empty value takes one away.
    pub fn authorize(&self, changed: &[(&str, &str)]) -> Answer {
        self.server.send(&Request::get(&link(&self.parameters(), changed)))
    }

    #[track_caller]
    pub fn page(&self, changed: &[(&str, &str)]) -> Page {
        page(&self.authorize(changed))
    }

    pub fn challenge(&self, page: &Page, address: Option<&str>) -> Answer {
        let mut body = json!({ "session_id": page.session });
        if let Some(address) = address {
            body["address"] = json!(address);
        }
        self.ours("/v1/oauth/challenge", &page.cookie, &body)
    }

    pub fn callback(&self, page: &Page, nonce: &str, address: &str, signature: &str) -> Answer {
        let body = json!({ "session_id": page.session, "nonce": nonce, "address": address, "signature": signature });
        self.ours("/v1/oauth/callback", &page.cookie, &body)
    }

    /// A request of our own page's.
    pub fn ours(&self, path: &str, cookie: &str, body: &Value) -> Answer {
        ours(self.server, path, cookie, body)
    }

    /// From the page to the code.
    #[track_caller]
    pub fn code(&self, wallet: &EthereumWallet, changed: &[(&str, &str)]) -> String {
        let page = self.page(changed);
        let challenge = self.challenge(&page, Some(&wallet.address()));
        assert_eq!(challenge.status, 200, "{}", challenge.text());
        let nonce = challenge.json()["nonce"].as_str().unwrap().to_owned();
        let answer = self.callback(&page, &nonce, &wallet.address(), &wallet.sign(&nonce));
        assert_eq!(answer.status, 200, "{}", answer.text());
        secret(answer.json()["code"].as_str().unwrap())
    }

    /// A request to the token endpoint, the client's secret with it if it has one.
    pub fn token_request(&self, fields: &[(&str, &str)]) -> Request {
        let mut all = vec![("client_id", self.id())];
        if let Some(secret) = self.client["client_secret"].as_str() {
            all.push(("client_secret", secret));
        }
        all.extend(fields);
        super::oauth::form("/v1/oauth/token", &all)
    }

    pub fn token(&self, fields: &[(&str, &str)]) -> Answer {
        self.server.send(&self.token_request(fields))
    }

    pub fn redeem(&self, code: &str) -> Answer {
        self.token(&redemption(code))
    }

    pub fn refresh(&self, token: &str) -> Answer {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token)])
    }

    /// All the way: the answer of the token endpoint.
    #[track_caller]
    pub fn tokens(&self, wallet: &EthereumWallet) -> Value {
        let answer = self.redeem(&self.code(wallet, &[]));
        assert_eq!(answer.status, 200, "{}", answer.text());
        remembered(&answer)
    }
}

/// The message to sign that an answer hands out.
#[track_caller]
pub fn nonce(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["nonce"].as_str().unwrap().to_owned()
}

/// What an exchange of a code says.
pub fn redemption(code: &str) -> [(&str, &str); 4] {
    [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT), ("code_verifier", VERIFIER)]
}

/// Tokens in an answer must never be logged.
#[track_caller]
pub fn remembered(answer: &Answer) -> Value {
    let tokens = answer.json();
    for name in ["access_token", "refresh_token", "id_token"] {
        if let Some(token) = tokens[name].as_str() {
            secret(token);
        }
    }
    tokens
}

pub fn link(parameters: &[(String, String)], changed: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        let value = changed.iter().find(|(changed, _)| changed == name).map_or(value.as_str(), |(_, value)| value);
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    for (name, value) in changed.iter().filter(|(name, _)| parameters.iter().all(|(known, _)| known != name)) {
        query.append_pair(name, value);
    }
    format!("/v1/oauth/authorize?{}", query.finish())
}

#[track_caller]
pub fn page(answer: &Answer) -> Page {
    let text = answer.text();
    assert_eq!(answer.status, 200, "{}\n{text}", answer.head);
    let session = text.split_once("data-session=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let cookie = answer.header("set-cookie").unwrap_or_default().split(';').next().unwrap().to_owned();
    secret(session.clone());
    if let Some((_, browser)) = cookie.split_once('=') {
        secret(browser);
    }
    Page { session, cookie, text }
}

/// Sends a request of one of our own pages.
pub fn ours(server: &Server, path: &str, cookie: &str, body: &Value) -> Answer {
    server.send(&of_our_page(path, cookie, body))
}

/// A request of one of our own pages.
pub fn of_our_page(path: &str, cookie: &str, body: &Value) -> Request {
    let request = super::oauth::json_request(path, Some(body)).header("Origin", PUBLIC_URL);
    if cookie.is_empty() { request } else { request.header("Cookie", cookie) }
}

/// The claims of a token, unverified.
#[track_caller]
pub fn claims(token: &Value) -> Value {
    part(token, 1)
}

#[track_caller]
pub fn part(token: &Value, number: usize) -> Value {
    use base64::Engine as _;
    let part = token.as_str().unwrap().split('.').nth(number).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
