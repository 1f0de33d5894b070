//! The paid service of the demo, and a client for it: as small as HTTP gets.

use std::net::SocketAddr;

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the service wants to see in `Authorization`: the provider's secret.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// A new one.
    pub fn make() -> anyhow::Result<Self> {
        Ok(Self(random_base64()?))
    }

    /// As it stands in a token.
    pub fn token(&self) -> &str {
        &self.0
    }
}

/// 32 random bytes.
pub fn random_base64() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes).context("reading /dev/urandom")?;
    Ok(STANDARD.encode(bytes))
}

/// Starts the service, which answers only to who knows the secret.
pub async fn start(address: SocketAddr, secret: &Secret) -> anyhow::Result<SocketAddr> {
    let router = Router::new()
        .route("/v1/hello", get(hello))
        .route("/v1/expensive", get(expensive))
        .route("/admin", get(async || "nobody should see this\n"))
        .with_state(secret.clone());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn hello(State(secret): State<Secret>, headers: HeaderMap) -> Response {
    paid(&secret, &headers, "1")
}

async fn expensive(State(secret): State<Secret>, headers: HeaderMap) -> Response {
    paid(&secret, &headers, "3")
}

fn paid(secret: &Secret, headers: &HeaderMap, credits: &'static str) -> Response {
    let expected = format!("Bearer {}", secret.0);
    let presented = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if presented != Some(&*expected) {
        return (StatusCode::UNAUTHORIZED, "this is not the provider's secret\n").into_response();
    }
    let caller = headers.get("nvm-user-id").and_then(|value| value.to_str().ok()).unwrap_or("nobody");
    ([("NVMCreditsConsumed", credits)], format!("hello {caller}\n")).into_response()
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header, as received.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// A field of the header.
    pub fn field(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| line.split_once(": ").is_some_and(|(field, _)| field.eq_ignore_ascii_case(name));
        self.head.lines().find(|text| line(text)).and_then(|text| text.split_once(": ")).map(|(_, value)| value)
    }
}

/// A request.
pub struct Request<'r> {
    method: &'static str,
    target: &'r str,
    host: &'r str,
    fields: String,
    body: String,
}

impl<'r> Request<'r> {
    /// A GET of a target, at a host of this name.
    pub fn get(target: &'r str, host: &'r str) -> Self {
        Self { method: "GET", target, host, fields: String::new(), body: String::new() }
    }

    /// A POST of a body of this kind.
    pub fn post(target: &'r str, host: &'r str, kind: &str, body: String) -> Self {
        let get = Self { method: "POST", body, ..Self::get(target, host) };
        let length = get.body.len().to_string();
        get.field("Content-Type", kind).field("Content-Length", &length)
    }

    /// The same with one more field in its header.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        for part in [name, ": ", value, "\r\n"] {
            self.fields.push_str(part);
        }
        self
    }

    /// The same with a token.
    pub fn token(self, token: &str) -> Self {
        self.field("Authorization", &format!("Bearer {token}"))
    }

    /// Sends it.
    pub async fn send(self, address: SocketAddr) -> anyhow::Result<Answer> {
        let Self { method, target, host, fields, body } = self;
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n{body}");
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of its header")?;
        let status =
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("the answer has no status")?;
        Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }
}
