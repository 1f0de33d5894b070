//! The one place that builds an HTTP client and reads what it is answered.
//!
//! No redirect is followed, certificates are always verified, every request has a time limit, and no more of an answer
//! is read than the caller is ready to hold. No address appears in an error: a node's URL often contains its key.

use std::{error::Error as _, time::Duration};

use reqwest::{Client, Response, Url, redirect::Policy};

use super::{Failed, Fault};

/// How a client reaches its server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest a request may take, from its first byte to the last one of the answer.
    pub timeout: Duration,
    /// Certificates (PEM) of authorities to trust besides the system's, or None.
    pub extra_ca_pem: Option<Vec<u8>>,
}

/// The client could not be built: the certificates are not PEM, or the system has none.
#[derive(Debug, thiserror::Error)]
#[error("cannot build the HTTP client: {0}")]
pub struct ClientError(String);

/// Builds the client for a server.
///
/// For a server without TLS no certificates are loaded, so that it can be reached from a machine that has none.
/// The caller must have installed rustls' provider.
///
/// # Errors
/// When the certificates cannot be loaded.
#[expect(clippy::disallowed_methods, reason = "this is the one place that builds HTTP clients")]
pub fn client(server: &Url, options: &Options) -> Result<Client, ClientError> {
    let refused = |error: reqwest::Error| ClientError(describe(error));
    let extra = match &options.extra_ca_pem {
        Some(pem) => reqwest::Certificate::from_pem_bundle(pem).map_err(refused)?,
        None => Vec::new(),
    };
    if options.extra_ca_pem.is_some() && extra.is_empty() {
        return Err(ClientError("there is no certificate in the file of extra authorities".to_owned()));
    }
    let builder = Client::builder();
    let builder =
        if server.scheme() == "https" { builder.tls_certs_merge(extra) } else { builder.tls_certs_only(extra) };
    builder
        .timeout(options.timeout)
        .connect_timeout(options.timeout)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(refused)
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// When it is longer, or breaks off.
pub async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, Failed> {
    let too_large = || Failed::new(Fault::TooLarge, format!("the answer is longer than {limit} bytes"));
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).map_or(true, |announced| announced > limit) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len().saturating_add(chunk.len()) > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a client's error means to us.
#[must_use]
pub fn failed(error: reqwest::Error) -> Failed {
    let fault = if error.is_timeout() { Fault::Timeout } else { Fault::Transport };
    Failed::new(fault, describe(error))
}

/// The error and its causes on one line, without the address.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
