//! Who is asked, and as much HTTP/1.1 as that takes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::tls::{self, Presented};

/// A connection, with TLS or without.
pub type Connection = Box<dyn Stream>;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub struct Target {
    address: SocketAddr,
    secure: Option<(ServerName<'static>, TlsConnector)>,
    host: String,
    path: String,
    /// Whether connections are used again.
    pub keep: bool,
}

impl Target {
    pub async fn new(url: &Url, tls: &str, keep: bool, presented: Option<Arc<Presented>>) -> anyhow::Result<Self> {
        let host = url.host_str().context("the address has no host")?;
        let port = url.port_or_known_default().context("the address has no port")?;
        let secure = match url.scheme() {
            "http" => None,
            _ => Some((ServerName::try_from(host.to_owned())?, Arc::new(tls::config(tls, presented)?).into())),
        };
        Ok(Self {
            address: tokio::net::lookup_host((host, port)).await?.next().context("the host has no address")?,
            secure,
            host: format!("{host}:{port}"),
            path: url.path().to_owned(),
            keep,
        })
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.secure {
            None => Box::new(stream),
            Some((name, connector)) => Box::new(connector.connect(name.clone(), stream).await?),
        })
    }

    /// A whole request: POST if there is a form. Fields end with a line break each.
    pub fn request(&self, fields: &str, form: Option<&str>) -> String {
        let Self { host, path, .. } = self;
        let close = if self.keep { "" } else { "Connection: close\r\n" };
        match form {
            None => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{close}{fields}\r\n"),
            Some(form) => {
                let length = form.len();
                let kind = "Content-Type: application/x-www-form-urlencoded";
                format!(
                    "POST {path} HTTP/1.1\r\nHost: {host}\r\n{close}{fields}{kind}\r\nContent-Length: {length}\r\n\r\n{form}"
                )
            }
        }
    }
}

/// Sends a request and waits for the answer, whose body is returned.
pub async fn ask<'a>(connection: &mut Connection, request: &str, answer: &'a mut Vec<u8>) -> anyhow::Result<&'a [u8]> {
    connection.write_all(request.as_bytes()).await?;
    connection.flush().await?;
    answer.clear();
    loop {
        if let Some(begin) = body_of(answer)? {
            return Ok(answer.split_at(begin).1);
        }
        if connection.read_buf(answer).await? == 0 {
            bail!("the connection ended after {} bytes of an answer", answer.len());
        }
    }
}

pub async fn close(mut connection: Connection) {
    connection.shutdown().await.ok(); // the server may be gone already
}

/// Where the body begins, if the answer is there to its end. It must be a 200 that states its length.
fn body_of(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = answer.split_at(end + 4);
    let mut lines = std::str::from_utf8(head)?.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200 "), "the answer is {status}: {}", String::from_utf8_lossy(body));
    let (_, length) = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the answer does not state its length")?;
    Ok((body.len() >= length.trim().parse()?).then_some(end + 4))
}
