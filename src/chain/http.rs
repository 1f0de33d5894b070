//! The one place that builds an HTTP client and reads what it is answered.
//!
//! No redirect is followed, certificates are always verified, every request has a time limit, and no more of an answer
//! is read than the caller is ready to hold. No address appears in an error: a node's URL often contains its key.

use std::{error::Error as _, fmt, marker::PhantomData, time::Duration};

use reqwest::{Client, Response, Url, redirect::Policy};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::fault::{Failed, Fault};

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

/// A server's own words for the log: short, on one line, and without any part of its URL that may be a key.
pub(super) fn harmless(url: &Url, message: &str) -> String {
    let query = url.query_pairs().map(|(_, value)| value.into_owned());
    let path = url.path_segments().into_iter().flatten().map(str::to_owned);
    let password = url.password().map(str::to_owned);
    let secrets = path.chain(query).chain(password).chain([url.username().to_owned()]);
    let message =
        secrets.filter(|part| part.len() >= 6).fold(message.to_owned(), |message, part| message.replace(&part, "***"));
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// A JSON object read as a `T`. Serde alone would also take an array with `T`'s fields in their order.
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Map(PhantomData))
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::chain::fake;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server for `localhost` whose certificate a new authority issued; and the authority's certificate.
    async fn tls_server() -> (Url, Vec<u8>) {
        fake::install_provider();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("https://localhost:{}/", listener.local_addr().unwrap().port())).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        (url, authority.pem().into_bytes())
    }

    async fn get(url: &Url, extra_ca_pem: Option<Vec<u8>>) -> Result<Vec<u8>, Failed> {
        let client = client(url, &Options { timeout: PATIENCE, extra_ca_pem }).unwrap();
        read(client.get(url.clone()).send().await.map_err(failed)?, 100).await
    }

    #[tokio::test]
    async fn only_known_authorities_are_trusted() {
        let (url, authority) = tls_server().await;
        assert_eq!(get(&url, Some(authority.clone())).await, Ok(b"ok".to_vec()));
        let (_, another) = tls_server().await;
        assert_eq!(get(&url, Some(another)).await.unwrap_err().fault, Fault::Transport);
        let mut by_address = url.clone();
        by_address.set_host(Some("127.0.0.1")).unwrap();
        let failed = get(&by_address, Some(authority)).await.unwrap_err();
        assert!(failed.detail.contains("certificate"), "{failed}");
    }

    #[test]
    fn authorities_that_cannot_be_read_are_an_error() {
        fake::install_provider();
        let url = Url::parse("https://localhost/").unwrap();
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".as_slice();
        for pem in [b"".as_slice(), b"not a certificate", broken] {
            let options = Options { timeout: PATIENCE, extra_ca_pem: Some(pem.to_vec()) };
            assert!(client(&url, &options).is_err(), "{}", String::from_utf8_lossy(pem));
        }
    }
}
