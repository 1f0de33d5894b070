//! Loads a TLS server for `benches/side-by-side` as wrk cannot: with a client certificate, or with a new connection for
//! each request. Says what it measured as one line of JSON, times in microseconds.
//!
//! It must cost less than what it measures, so it runs on one thread, believes any server, and reads no more of HTTP/1.1 than
//! a status and a length. An answer that is not 200, a connection that ends early and a certificate that nobody asked for
//! end the run with an error. Sessions are never resumed. Both sides of a comparison get the same cipher, because only
//! AES-256-GCM is offered, and the same key exchange: X25519 comes first, and is what both prefer.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion, version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

/// How long a connection or an answer may take: a run that hangs must end.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Arguments {
    /// What to ask for: <https://127.0.0.1:8443/path>
    url: Url,
    /// Connections at a time
    #[arg(long, default_value_t = 16)]
    clients: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// A new connection, with a full handshake, for each request
    #[arg(long)]
    new: bool,
    #[arg(long, default_value = "1.3", value_parser = ["1.2", "1.3"])]
    tls: String,
    /// PEM file of the certificate to present
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file of its key
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // `cargo bench` adds a word of its own.
    let arguments = Arguments::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    let presented = arguments.certificate.as_ref().zip(arguments.key.as_ref());
    let presented = presented.map(|(certificate, key)| Presented::read(certificate, key)).transpose()?.map(Arc::new);
    let target = Arc::new(Target::new(&arguments, presented.clone()).await?);

    let begin = Instant::now();
    let end = begin + Duration::try_from_secs_f64(arguments.seconds)?;
    let mut clients = JoinSet::new();
    for _ in 0..arguments.clients {
        clients.spawn(client(Arc::clone(&target), end));
    }
    let mut times = Vec::new();
    while let Some(ended) = clients.join_next().await {
        times.append(&mut ended??);
    }
    let elapsed = begin.elapsed().as_secs_f64();
    if let Some(presented) = presented {
        ensure!(presented.asked.load(Ordering::Relaxed), "the server did not ask for a certificate");
    }

    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    let requests = u32::try_from(times.len())?;
    let figures = serde_json::json!({
        "requests": requests,
        "rate": f64::from(requests) / elapsed,
        "p50": percentile(50),
        "p99": percentile(99),
    });
    writeln!(std::io::stdout(), "{figures}").context("nobody reads the figures")
}

/// One client, that asks again as soon as it has its answer. How long each took.
async fn client(target: Arc<Target>, end: Instant) -> anyhow::Result<Vec<u64>> {
    let (mut times, mut answer, mut kept) = (Vec::new(), Vec::with_capacity(32 << 10), None);
    while Instant::now() < end {
        let begin = Instant::now();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => timeout(PATIENCE, target.connect()).await.context("no connection in time")??,
        };
        timeout(PATIENCE, target.ask(&mut connection, &mut answer)).await.context("no answer in time")??;
        times.push(u64::try_from(begin.elapsed().as_micros())?);
        if target.keep {
            kept = Some(connection);
        } else {
            connection.shutdown().await.ok(); // the server may be gone already
        }
    }
    Ok(times)
}

struct Target {
    address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
    request: String,
    keep: bool,
}

impl Target {
    async fn new(arguments: &Arguments, presented: Option<Arc<Presented>>) -> anyhow::Result<Self> {
        let url = &arguments.url;
        let host = url.host_str().context("the address has no host")?;
        let port = url.port_or_known_default().context("the address has no port")?;
        let close = if arguments.new { "Connection: close\r\n" } else { "" };
        let version = if arguments.tls == "1.2" { &version::TLS12 } else { &version::TLS13 };
        Ok(Self {
            address: tokio::net::lookup_host((host, port)).await?.next().context("the host has no address")?,
            name: ServerName::try_from(host.to_owned())?,
            connector: Arc::new(tls(version, presented)?).into(),
            request: format!("GET {} HTTP/1.1\r\nHost: {host}:{port}\r\n{close}\r\n", url.path()),
            keep: !arguments.new,
        })
    }

    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }

    async fn ask(&self, connection: &mut TlsStream<TcpStream>, answer: &mut Vec<u8>) -> anyhow::Result<()> {
        connection.write_all(self.request.as_bytes()).await?;
        connection.flush().await?;
        answer.clear();
        while !is_whole(answer)? {
            if connection.read_buf(answer).await? == 0 {
                bail!("the connection ended after {} bytes of an answer", answer.len());
            }
        }
        Ok(())
    }
}

/// Whether the answer is there to its end. It must be a 200 that states its length.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let (head, body) = answer.split_at(end + 4);
    let mut lines = std::str::from_utf8(head)?.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 200 "), "the answer is {status}");
    let (_, length) = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the answer does not state its length")?;
    Ok(body.len() >= length.trim().parse()?)
}

fn tls(version: &'static SupportedProtocolVersion, presented: Option<Arc<Presented>>) -> anyhow::Result<ClientConfig> {
    let mut provider = ring::default_provider();
    // TLS 1.2 takes the second also as the word that a P-256 certificate is welcome.
    provider.kx_groups = vec![ring::kx_group::X25519, ring::kx_group::SECP256R1];
    provider.cipher_suites.retain(|suite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384 | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        )
    });
    let provider = Arc::new(provider);
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match presented {
        Some(presented) => config.with_client_cert_resolver(presented),
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The client's certificate, and whether a server has asked for it.
#[derive(Debug)]
struct Presented {
    key: Arc<CertifiedKey>,
    asked: AtomicBool,
}

impl Presented {
    fn read(certificate: &PathBuf, key: &PathBuf) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = ring::sign::any_supported_type(&PrivateKeyDer::from_pem_file(key)?)?;
        Ok(Self { key: Arc::new(CertifiedKey::new(chain, key)), asked: AtomicBool::new(false) })
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.key.key.choose_scheme(schemes).map(|_| Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Believes every server: to look closer would cost this side as much as the handshake costs the other.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
