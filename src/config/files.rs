//! The files that a configuration names.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    InconsistentKeys,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use super::listener::CertificateFiles;
use crate::model::secret::Secret;

/// No certificate, bundle or secret is larger.
const LARGEST: u64 = 4 << 20;

/// A whole, ordinary file. Pipes and devices are refused, because reading one may never end.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |problem: std::io::Error| {
        let hint = if path.is_relative() { " (a path is relative to the working directory)" } else { "" };
        format!("cannot read {}: {problem}{hint}", path.display())
    };
    let about = fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    if about.len() > LARGEST {
        return Err(format!("{} is larger than {} MiB", path.display(), LARGEST >> 20));
    }
    fs::read(path).map(Zeroizing::new).map_err(failed)
}

/// A file that holds a secret and nothing else but, maybe, a final line break.
pub(super) fn secret(path: &Path) -> Result<Secret, String> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{} does not hold text", path.display()))?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(Secret::new(text.into())) }
}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = parsed.map_err(|problem| format!("{} is not a PEM file: {problem}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("there is no certificate in {}", path.display()));
    }
    for certificate in &certificates {
        x509_parser::parse_x509_certificate(certificate)
            .map_err(|problem| format!("a certificate in {} is broken: {problem}", path.display()))?;
    }
    Ok(certificates)
}

/// Which of the two files a mistake is in.
pub(super) enum Half {
    Certificate,
    Key,
}

/// Reads a certificate and its key, and compares the two.
pub(super) fn certified_key(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, (Half, String)> {
    let chain = certificates(&files.cert).map_err(|message| (Half::Certificate, message))?;
    let in_key = |message: String| (Half::Key, message);
    let bytes = read(&files.key).map_err(in_key)?;
    let path = files.key.display();
    // The parser's complaint is not repeated: it may quote the file.
    let key =
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| in_key(format!("there is no private key in {path}")))?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map(Arc::new).map_err(|problem| match problem {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            in_key(format!("{path} is not the key of the certificate in {}", files.cert.display()))
        }
        problem => in_key(format!("{path} cannot be used: {problem}")),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_secret_file_may_end_with_a_line_break() {
        for (text, secret_text) in [
            ("abc", Some("abc")),
            ("abc\n", Some("abc")),
            ("abc\r\n", Some("abc")),
            ("abc\n\n", Some("abc\n")),
            (" abc ", Some(" abc ")),
            ("", None),
            ("\n", None),
        ] {
            let file = file(text);
            assert_eq!(secret(file.path()).ok().as_ref().map(Secret::expose), secret_text, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_file_is_not_read() {
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("not a file"));
        assert!(read(Path::new("/")).unwrap_err().contains("not a file"));
        assert!(read(Path::new("no/such")).unwrap_err().contains("working directory"));
    }

    #[test]
    fn a_key_must_belong_to_its_certificate() {
        let one = rcgen::generate_simple_self_signed(["one.example".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["two.example".to_owned()]).unwrap();
        let (cert, key) = (file(&one.cert.pem()), file(&one.signing_key.serialize_pem()));
        let other = file(&two.signing_key.serialize_pem());
        let nothing = file("hello");
        let files = |cert: &tempfile::NamedTempFile, key: &tempfile::NamedTempFile| {
            let (cert, key) = (cert.path().to_path_buf(), key.path().to_path_buf());
            CertificateFiles { cert, key, names: Vec::new() }
        };
        assert!(certified_key(&files(&cert, &key)).is_ok());
        for (files, in_key, message) in [
            (files(&cert, &other), true, "not the key of the certificate"),
            (files(&cert, &nothing), true, "no private key"),
            (files(&cert, &cert), true, "no private key"),
            (files(&nothing, &key), false, "no certificate"),
            (files(&key, &key), false, "no certificate"),
        ] {
            let (half, said) = certified_key(&files).err().unwrap();
            assert!(said.contains(message), "{said}");
            assert_eq!(matches!(half, Half::Key), in_key, "{said}");
        }
    }
}
