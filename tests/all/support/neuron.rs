//! Clients with certificates of neurons: the vectors of `tests/data/nexus`, and any others.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde_json::Value;

/// The well-known development account that most vectors name.
pub const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

/// What was recorded about a certificate.
#[derive(Debug)]
pub struct Vector {
    pub name: String,
    /// Whether a hardened gateway admits it, and the word why.
    pub accepted: bool,
    pub reason: String,
    /// Whether the replaced system admitted it.
    pub accepted_before: bool,
}

/// A file of the vectors.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nexus").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()
}

/// The vectors that a client can present.
pub fn vectors() -> Vec<Vector> {
    let all = json("vectors.json");
    let of = |vector: &Value| {
        let name = vector["name"].as_str().unwrap().to_owned();
        let presentable = vector["tls_presentable"] == true && file(&format!("{name}.key")).exists();
        let recommended = &vector["recommended"];
        presentable.then(|| Vector {
            accepted: recommended["accept"].as_bool().unwrap(),
            reason: recommended["reason"].as_str().unwrap().split(' ').next().unwrap().to_owned(),
            accepted_before: vector["nexus_auth"]["status"] == 200,
            name,
        })
    };
    all["vectors"].as_array().unwrap().iter().filter_map(of).collect()
}

/// The certificate of a vector, in PEM.
pub fn certificate_pem(name: &str) -> String {
    std::fs::read_to_string(file(&format!("{name}.crt"))).unwrap()
}

/// The certificate of a vector, in DER.
pub fn certificate(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_file(file(&format!("{name}.crt"))).unwrap().to_vec()
}

/// The certificate and key of a vector.
pub fn vector(name: &str) -> Arc<CertifiedKey> {
    with_key_of(name, certificate(name))
}

/// Some bytes as a certificate, with the key of a vector, whether or not the one belongs to the other.
pub fn with_key_of(name: &str, certificate: Vec<u8>) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
    let key = any_supported_type(&key).unwrap();
    Arc::new(CertifiedKey::new(vec![certificate.into()], key))
}

/// The raw Ed25519 key of a certificate.
pub fn raw_key(certificate: &[u8]) -> Vec<u8> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).unwrap();
    certificate.public_key().subject_public_key.data.to_vec()
}

/// The public key of a vector's private key.
pub fn public_key(name: &str) -> [u8; 32] {
    let pair = rcgen::KeyPair::from_pem(&std::fs::read_to_string(file(&format!("{name}.key"))).unwrap()).unwrap();
    rcgen::PublicKeyData::der_bytes(&pair).try_into().unwrap()
}

/// A client's certificate, presented to whoever asks.
#[derive(Debug)]
pub struct Presented {
    certified: Option<Arc<CertifiedKey>>,
    hints: AtomicUsize,
    asked: AtomicUsize,
}

impl Presented {
    pub fn new(certified: Arc<CertifiedKey>) -> Arc<Self> {
        Arc::new(Self { certified: Some(certified), hints: AtomicUsize::new(0), asked: AtomicUsize::new(0) })
    }

    /// A client that has none.
    pub fn nothing() -> Arc<Self> {
        Arc::new(Self { certified: None, hints: AtomicUsize::new(0), asked: AtomicUsize::new(0) })
    }

    /// How often it was asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How many names of authorities the servers gave, over all handshakes.
    pub fn hints(&self) -> usize {
        self.hints.load(Ordering::SeqCst)
    }
}

impl ResolvesClientCert for Presented {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.hints.fetch_add(hints.len(), Ordering::SeqCst);
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        self.certified.is_some()
    }
}
