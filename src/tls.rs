//! Certificates: chosen by server name, replaced when their files change, without touching open connections.
//!
//! Knows rustls and files; knows nothing of routes or requests.

pub mod client;
pub mod neuron;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, SignatureScheme,
    crypto::ring as provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, NoClientAuth, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use self::client::ClientCertificates;
use crate::model::clock::Timestamp;

/// A certificate chain and its key, as PEM files, and the names they are for.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
    /// Names to serve it for; empty: the leaf's DNS names.
    pub names: Vec<String>,
}

/// The certificates of one listener.
pub struct Certificates {
    files: Vec<CertificateFiles>,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Answered when no name fits: the first one configured, as NGINX does.
    default: Vec<Arc<CertifiedKey>>,
    /// What was read, to see a change.
    contents: Vec<(Vec<u8>, Vec<u8>)>,
    expiry: Vec<(String, Timestamp)>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or a key does not belong to its certificate: the text names the file.
    pub fn load(files: Vec<CertificateFiles>) -> anyhow::Result<Arc<Self>> {
        let loaded = Loaded::read(&files)?;
        Ok(Arc::new(Self { files, current: ArcSwap::from_pointee(loaded) }))
    }

    /// Reads the files again and, if anything changed, uses them for the handshakes from now on. Returns whether
    /// anything did. On an error the old ones stay.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn reload(&self) -> anyhow::Result<bool> {
        let contents = read_all(&self.files)?;
        if contents == self.current.load().contents {
            return Ok(false);
        }
        self.current.store(Arc::new(Loaded::parse(&self.files, contents)?));
        Ok(true)
    }

    /// When each certificate ends, by its first name: for the metric.
    #[must_use]
    pub fn expiry(&self) -> Vec<(String, Timestamp)> {
        self.current.load().expiry.clone()
    }

    /// The TLS settings of a listener with these certificates: TLS 1.2 and 1.3, HTTP/2 (if wanted) and HTTP/1.1,
    /// sessions resumable by stateless tickets. Without `clients`, no client is asked for a certificate.
    ///
    /// # Errors
    /// When the ticket key cannot be made.
    pub fn server_config(
        self: &Arc<Self>,
        http2: bool,
        clients: Option<Arc<ClientCertificates>>,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        let clients: Arc<dyn ClientCertVerifier> = match clients {
            Some(clients) => clients,
            None => Arc::new(NoClientAuth),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .context("choosing TLS versions")?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols =
            if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        config.ticketer = provider::Ticketer::new().context("making a key for session tickets")?;
        // One ticket is enough for a client that comes back; the default of two costs every handshake one more record.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        let named = hello.server_name().and_then(|name| current.find(&name.to_ascii_lowercase()));
        choose(named.unwrap_or(&current.default), hello.signature_schemes())
    }
}

/// The first certificate whose key can sign in a way the client understands.
fn choose(candidates: &[Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
    let usable = candidates.iter().find(|candidate| candidate.key.choose_scheme(schemes).is_some());
    usable.or_else(|| candidates.first()).cloned()
}

impl Loaded {
    fn read(files: &[CertificateFiles]) -> anyhow::Result<Self> {
        Self::parse(files, read_all(files)?)
    }

    fn parse(files: &[CertificateFiles], contents: Vec<(Vec<u8>, Vec<u8>)>) -> anyhow::Result<Self> {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        let (mut default, mut expiry): (Vec<_>, Vec<_>) = Default::default();
        for (file, (chain, key)) in files.iter().zip(&contents) {
            let certified = certified_key(file, chain, key)?;
            let (own_names, not_after) = describe(file, &certified)?;
            let names = if file.names.is_empty() { own_names } else { file.names.clone() };
            expiry.push((names.first().cloned().unwrap_or_else(|| file.certificate.display().to_string()), not_after));
            if default.is_empty() {
                default.push(Arc::clone(&certified));
            }
            for name in names {
                by_name.entry(name.to_ascii_lowercase()).or_default().push(Arc::clone(&certified));
            }
        }
        ensure!(!default.is_empty(), "a TLS listener needs a certificate");
        Ok(Self { by_name, default, contents, expiry })
    }

    /// The exact name, or the wildcard one label above it (RFC 6125 §6.4.3).
    fn find(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        self.by_name.get(name).or_else(|| self.by_name.get(&format!("*.{}", name.split_once('.')?.1)))
    }
}

fn read_all(files: &[CertificateFiles]) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    files.iter().map(|file| Ok((read(&file.certificate)?, read(&file.key)?))).collect()
}

fn certified_key(file: &CertificateFiles, chain: &[u8], key: &[u8]) -> anyhow::Result<Arc<CertifiedKey>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not a PEM certificate chain", file.certificate.display()))?;
    ensure!(!chain.is_empty(), "{} contains no certificate", file.certificate.display());
    let key = PrivateKeyDer::from_pem_slice(key)
        .with_context(|| format!("{} contains no PEM private key", file.key.display()))?;
    let certified = CertifiedKey::from_der(chain, key, &provider::default_provider())
        .with_context(|| format!("{} is not the key of {}", file.key.display(), file.certificate.display()))?;
    Ok(Arc::new(certified))
}

fn describe(file: &CertificateFiles, certified: &CertifiedKey) -> anyhow::Result<(Vec<String>, Timestamp)> {
    let leaf = certified.cert.first().context("empty chain")?;
    let (_, leaf) =
        X509Certificate::from_der(leaf).with_context(|| format!("{} is not X.509", file.certificate.display()))?;
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Ok((names.collect(), Timestamp(leaf.validity().not_after.timestamp())))
}

/// How often certificate files are looked at. Kubernetes and ACME clients replace files, and send no signal.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn write(
        directory: &Path,
        name: &str,
        dns: &str,
        algorithm: &'static rcgen::SignatureAlgorithm,
    ) -> CertificateFiles {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new([dns.to_owned()]).unwrap().self_signed(&key).unwrap();
        let files = CertificateFiles {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
            names: Vec::new(),
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_certificate_is_found_by_name_by_wildcard_or_by_default() {
        let directory = tempfile::tempdir().unwrap();
        let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
        let files = [("first", "one.example"), ("second", "*.two.example")];
        let files = files.map(|(name, dns)| write(directory.path(), name, dns, p256));
        let certificates = Certificates::load(files.to_vec()).unwrap();
        let current = certificates.current.load();
        assert!(current.find("one.example").is_some());
        assert!(current.find("a.two.example").is_some());
        for name in ["two.example", "a.b.two.example", "three.example", ""] {
            assert!(current.find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_key_type_follows_what_the_client_can_verify() {
        let directory = tempfile::tempdir().unwrap();
        let p256 = write(directory.path(), "p256", "x.example", &rcgen::PKCS_ECDSA_P256_SHA256);
        let ed25519 = write(directory.path(), "ed25519", "x.example", &rcgen::PKCS_ED25519);
        let certificates = Certificates::load(vec![p256, ed25519]).unwrap();
        let current = certificates.current.load();
        let both = current.find("x.example").unwrap();
        let chosen = choose(both, &[SignatureScheme::ED25519]).unwrap();
        assert!(Arc::ptr_eq(&chosen, both.last().unwrap()));
        let chosen = choose(both, &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]).unwrap();
        assert!(Arc::ptr_eq(&chosen, both.first().unwrap()));
    }

    #[test]
    fn changed_files_are_used_and_broken_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let files = write(directory.path(), "a", "old.example", &rcgen::PKCS_ECDSA_P256_SHA256);
        let certificates = Certificates::load(vec![files.clone()]).unwrap();
        assert!(!certificates.reload().unwrap());
        write(directory.path(), "a", "new.example", &rcgen::PKCS_ECDSA_P256_SHA256);
        assert!(certificates.reload().unwrap());
        assert!(certificates.current.load().find("new.example").is_some());
        std::fs::write(&files.certificate, "half a file").unwrap();
        assert!(certificates.reload().is_err());
        assert!(certificates.current.load().find("new.example").is_some(), "the old one stays");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = write(directory.path(), "a", "a.example", &rcgen::PKCS_ECDSA_P256_SHA256);
        files.key = write(directory.path(), "b", "b.example", &rcgen::PKCS_ECDSA_P256_SHA256).key;
        let error = format!("{:#}", Certificates::load(vec![files]).unwrap_err());
        assert!(error.contains("b.key") && error.contains("a.crt"), "{error}");
    }
}
