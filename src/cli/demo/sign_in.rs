//! Somebody signs in to the demo: the clients of `examples/`, and a sign-in as a browser does it, page by page.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::{
    service::{Answer, Request},
    walk::{expect, say},
};
use crate::oauth::{demo, opaque};

/// The clients of `examples/`, registered as its README says: name, id, and the rest.
const EXAMPLES: [[&str; 3]; 3] = [
    ["Example web app", "example-web", "--redirect-uri http://localhost:8405/ --origin http://localhost:8405"],
    [
        "Example with oidc-client-ts",
        "example-oidc-client-ts",
        "--redirect-uri http://localhost:8406/ --origin http://localhost:8406",
    ],
    ["Example CLI", "example-cli", "--grant urn:ietf:params:oauth:grant-type:device_code --grant refresh_token"],
];

/// What registers them.
pub fn registrations() -> [Vec<&'static str>; 3] {
    EXAMPLES.map(|[name, id, rest]| {
        let mut words = vec!["client", "create", name, "--id", id, "--public", "--wallet", "evm", "--scope", "openid"];
        words.extend(rest.split(' '));
        words
    })
}

/// The API among them.
pub const EXAMPLE_API: &str = "http://localhost:8407/";

/// A browser that looks at the gateway under its name for people.
struct Browser {
    gateway: SocketAddr,
    host: String,
    origin: String,
}

impl Browser {
    async fn get(&self, target: &str) -> anyhow::Result<Answer> {
        Request::get(target, &self.host).send(self.gateway).await
    }

    /// As a script of our pages asks.
    async fn ask(&self, target: &str, cookie: &str, document: &Value) -> anyhow::Result<Answer> {
        let request = Request::post(target, &self.host, "application/json", document.to_string());
        request.field("Origin", &self.origin).field("Cookie", cookie).send(self.gateway).await
    }

    async fn exchange(&self, fields: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post("/v1/oauth/token", &self.host, "application/x-www-form-urlencoded", form);
        request.field("Origin", &self.origin).send(self.gateway).await
    }
}

/// Signs in to the landing page with the throw-away key, and uses the tokens.
///
/// # Errors
/// At the first step that goes differently than it should.
pub async fn check(gateway: SocketAddr) -> anyhow::Result<()> {
    let host = format!("localhost:{}", gateway.port());
    let browser = Browser { gateway, origin: format!("http://{host}"), host };
    let landing = browser.get("/").await?;
    expect(&landing, 200, "people can sign in on the same port, by another name")?;
    ensure!(landing.body.contains("throw-away development key"), "it says so of its key: {}", landing.body);

    let redirect = format!("{}/", browser.origin);
    let [state, nonce, verifier] = [random()?, random()?, random()?];
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", demo::ETHEREUM),
            ("redirect_uri", &redirect),
            ("scope", "openid"),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &opaque::base64(&opaque::sha256(verifier.as_bytes()))),
            ("code_challenge_method", "S256"),
        ])
        .finish();
    let page = browser.get(&format!("/v1/oauth/authorize?{query}")).await?;
    expect(&page, 200, "a page says who asks for what")?;
    let cookie =
        page.field("set-cookie").and_then(|cookie| cookie.split(';').next()).context("the page has no cookie")?;
    let session = attribute(&page, "data-session")?;
    let account = attribute(&page, "data-throwaway")?;

    let asked = json!({ "session_id": session, "address": account });
    let challenge = browser.ask("/v1/oauth/challenge", cookie, &asked).await?;
    expect(&challenge, 200, "it gets a message to sign")?;
    let message = member(&challenge, "nonce")?;
    let signed = browser.ask("/v1/demo/sign", cookie, &json!({ "message": message })).await?;
    expect(&signed, 200, "the throw-away key signs it")?;
    let answer = json!({
        "session_id": session, "nonce": message, "address": account, "signature": member(&signed, "signature")?,
    });
    let answered = browser.ask("/v1/oauth/callback", cookie, &answer).await?;
    expect(&answered, 200, "the signature is good for a code")?;
    let back = member(&answered, "redirect_to")?;
    ensure!(back.starts_with(&redirect), "the code goes to the application: {back}");
    let back = Url::parse(&back)?;
    let told = |name: &str| back.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned());
    ensure!(told("state").as_ref() == Some(&state), "the state comes back: {back}");
    ensure!(told("iss").as_ref() == Some(&browser.origin), "the issuer says who it is: {back}");

    let code = told("code").context("there is a code")?;
    let exchange = [
        ("grant_type", "authorization_code"),
        ("client_id", demo::ETHEREUM),
        ("code", &code),
        ("redirect_uri", &redirect),
        ("code_verifier", &verifier),
    ];
    let tokens = browser.exchange(&exchange).await?;
    expect(&tokens, 200, "the code is good for tokens")?;
    let (access, id) = (member(&tokens, "access_token")?, claims(&member(&tokens, "id_token")?)?);
    ensure!(id.get("nonce") == Some(&json!(nonce)) && id.get("sub") == Some(&json!(account)), "who it was: {id}");

    let user_info = async || {
        let request = Request::get("/v1/oauth/userinfo", &browser.host).token(&access);
        request.send(gateway).await
    };
    let user = user_info().await?;
    expect(&user, 200, "the access token says who signed in")?;
    ensure!(member(&user, "sub")? == account, "it is the key that signed: {}", user.body);
    expect(&browser.exchange(&exchange).await?, 400, "the code is of no use a second time")?;
    expect(&user_info().await?, 401, "and whoever tried has ended the sign-in")?;
    say(&format!("{account} was signed in with a key that nobody keeps"))
}

fn random() -> anyhow::Result<String> {
    Ok(opaque::base64(&crate::oauth::secret::random::<32>()?))
}

/// A value in a page.
fn attribute(page: &Answer, name: &str) -> anyhow::Result<String> {
    let rest = page.body.split_once(&format!("{name}=\"")).map(|(_, rest)| rest);
    let value = rest.and_then(|rest| rest.split('"').next());
    Ok(value.with_context(|| format!("{name} is not in the page"))?.to_owned())
}

/// A text in a document.
fn member(answer: &Answer, name: &str) -> anyhow::Result<String> {
    let document: Value = serde_json::from_str(&answer.body)?;
    let text = document.get(name).and_then(Value::as_str);
    Ok(text.with_context(|| format!("{name} is not in the answer"))?.to_owned())
}

/// What a token says. It came from the token endpoint, so its signature is not looked at.
fn claims(token: &str) -> anyhow::Result<Value> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = token.split('.').nth(1).context("the token has no claims")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
}
