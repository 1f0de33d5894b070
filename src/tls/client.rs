//! Client certificates: asked for, parsed once, and proven to be the peer's own. Who a certificate names, and whether that
//! one may call, is decided for each request (`authn::certificate`, `authz`).
//!
//! Any chain is taken and none is followed: the anchor is what a neuron has published (nexus.md section 0). The handshake
//! shows that the peer holds the key that the certificate has, and nothing else.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, ring as provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use crate::model::certificate::{CertificateKey, ClientCertificate};

/// Asks for client certificates, and knows what the ones of late say.
pub struct ClientCertificates {
    required: bool,
    algorithms: WebPkiSupportedAlgorithms,
    /// By the leaf. It is parsed in the handshake and wanted once more right after it, and a client that comes often
    /// brings the same one.
    parsed: Cache<Box<[u8]>, Arc<ClientCertificate>, Length>,
}

/// What is remembered, in certificates and in their bytes: more than the neurons of a few subnets have.
const REMEMBERED: usize = 1_024;
const REMEMBERED_BYTES: u64 = 1 << 20;

/// The length of a certificate.
#[derive(Clone)]
struct Length;

impl Weighter<Box<[u8]>, Arc<ClientCertificate>> for Length {
    fn weight(&self, leaf: &Box<[u8]>, _: &Arc<ClientCertificate>) -> u64 {
        u64::try_from(leaf.len()).unwrap_or(u64::MAX)
    }
}

/// The largest chain that is taken, in bytes. A session ticket carries the chain, and a connection keeps two copies of it;
/// a neuron's is one certificate of some 350 bytes.
const MAX_CHAIN_BYTES: usize = 32 << 10;

/// What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410 §4).
const ED25519_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl ClientCertificates {
    /// Asks every client. If one is `required`, a handshake without is refused.
    #[must_use]
    pub fn new(required: bool) -> Arc<Self> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        Arc::new(Self { required, algorithms, parsed: Cache::with_weighter(REMEMBERED, REMEMBERED_BYTES, Length) })
    }

    /// What a certificate says. None: it cannot be read.
    #[must_use]
    pub fn parse(&self, leaf: &[u8]) -> Option<Arc<ClientCertificate>> {
        if let Some(known) = self.parsed.get(leaf) {
            return Some(known);
        }
        let certificate = Arc::new(ClientCertificate::parse(leaf).ok()?);
        self.parsed.insert(leaf.into(), Arc::clone(&certificate));
        Some(certificate)
    }
}

impl std::fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCertificates").field("required", &self.required).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: with names here, Go clients whose issuer is not among them send no certificate (nexus.md section 3.3).
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Refuses what cannot be read: the rest of the program, Pingora included, reads every certificate that passes here.
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let length = intermediates.iter().fold(leaf.len(), |sum, certificate| sum.saturating_add(certificate.len()));
        if length > MAX_CHAIN_BYTES {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        let certificate = self.parse(leaf).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        // The handshake proves the key that rustls reads; what is compared later is the key that our parser reads.
        let proven = ParsedCertificate::try_from(leaf)?.subject_public_key_info();
        if let CertificateKey::Ed25519(key) = certificate.key
            && proven.as_ref().strip_prefix(&ED25519_INFO) != Some(key.as_slice())
        {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
