//! TLS as this side of a comparison wants it: cheap, and the same for all contenders. Sessions are never resumed. Both sides
//! get the same cipher, because only AES-256-GCM is offered, and the same key exchange: X25519 comes first, and is what both
//! prefer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version};

/// Of this version, `1.2` or `1.3`.
pub fn config(tls: &str, presented: Option<Arc<Presented>>) -> anyhow::Result<ClientConfig> {
    let version = if tls == "1.2" { &version::TLS12 } else { &version::TLS13 };
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
pub struct Presented {
    key: Arc<CertifiedKey>,
    asked: AtomicBool,
}

impl Presented {
    pub fn read(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = ring::sign::any_supported_type(&PrivateKeyDer::from_pem_file(key)?)?;
        Ok(Self { key: Arc::new(CertifiedKey::new(chain, key)), asked: AtomicBool::new(false) })
    }

    pub fn ensure_asked(&self) -> anyhow::Result<()> {
        ensure!(self.asked.load(Ordering::Relaxed), "the server did not ask for a certificate");
        Ok(())
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
