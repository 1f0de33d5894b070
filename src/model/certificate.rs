//! What a client's X.509 certificate says (RFC 5280).
//!
//! Nothing in it is believed because a certificate says so: its key is compared with the one that the named hotkey has
//! published, and TLS has proven who holds the key. So there is no chain to build and no authority to trust.

use x509_parser::{
    certificate::X509Certificate,
    extensions::ParsedExtension,
    oid_registry::{
        OID_SIG_ED25519, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME,
    },
    prelude::FromDer,
    x509::X509Version,
};

use super::{clock::Timestamp, hotkey::Hotkey};

mod der;

/// The largest certificate that is read, in bytes of DER. `tollgate generate` makes some 350.
pub const MAX_BYTES: usize = 32 << 10;

/// A client's certificate, as far as one of our rules looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's organisations (O), in the order of the encoding.
    pub organizations: Vec<Organization>,
    /// The subject's public key.
    pub key: CertificateKey,
    /// Not valid before this moment.
    pub not_before: Timestamp,
    /// Not valid after this moment.
    pub not_after: Timestamp,
    /// Whether the subject's key vouches for all this.
    pub self_signature: SelfSignature,
    /// 1, 2 or 3.
    pub version: u8,
    /// Whether it demands to be refused by who does not know one of its extensions, which we do not.
    pub unknown_critical_extension: bool,
    /// Whether its extended key usage, if it has any, is for TLS clients.
    pub is_for_clients: bool,
    /// Whether its key usage, if it has any, is for signatures.
    pub is_for_signatures: bool,
}

/// An organisation in a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// What is written there: any characters, also none.
    pub text: String,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The hotkey whose address the text is; None: it is none. Read with the certificate, because base 58 takes long and
    /// every request on a connection asks for it.
    pub hotkey: Option<Hotkey>,
}

/// ASN.1's kinds of text that a name can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `PrintableString`.
    Printable,
    /// `UTF8String`.
    Utf8,
    /// `IA5String`, which is ASCII.
    Ia5,
    /// `NumericString`.
    Numeric,
    /// `TeletexString`, read as ISO 8859-1.
    Teletex,
    /// `BMPString`, which is UTF-16.
    Bmp,
}

/// A subject's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateKey {
    /// Of Ed25519 (RFC 8410).
    Ed25519([u8; 32]),
    /// Of another algorithm.
    Other,
}

/// Whether a certificate is signed with the key in it. Only Ed25519 is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfSignature {
    /// It is.
    Genuine,
    /// It says that it was issued by its own subject, and the signature is not of its key.
    Wrong,
    /// It says that somebody else issued it.
    ByAnother,
}

/// The bytes are not an X.509 certificate.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an X.509 certificate")]
pub struct MalformedCertificate;

impl ClientCertificate {
    /// Reads a certificate in DER.
    ///
    /// What the replaced system refused is refused (nexus.md section 1.3), and what the version of x509-parser that Pingora
    /// uses cannot read. What only some of our rules refuse is in the result.
    ///
    /// # Errors
    /// When there is more or less than one certificate, or it is larger than [`MAX_BYTES`].
    pub fn parse(der: &[u8]) -> Result<Self, MalformedCertificate> {
        if der.len() > MAX_BYTES {
            return Err(MalformedCertificate);
        }
        let parts = Parts::of(der).ok_or(MalformedCertificate)?;
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| MalformedCertificate)?;
        let version = match certificate.version {
            X509Version::V1 => 1,
            X509Version::V2 => 2,
            X509Version::V3 => 3,
            _ => return Err(MalformedCertificate),
        };
        let [serial_sign, ..] = certificate.raw_serial() else { return Err(MalformedCertificate) };
        let readable = certificate.extensions_map().is_ok()
            && certificate.iter_extensions().all(|extension| extension.parsed_extension().error().is_none());
        if !rest.is_empty() || !readable || *serial_sign >= 0x80 {
            return Err(MalformedCertificate);
        }
        let key = key(&certificate)?;
        let mut extensions = Extensions::default();
        for extension in certificate.iter_extensions() {
            extensions.add(extension)?;
        }
        Ok(Self {
            organizations: parts.organizations,
            key,
            not_before: Timestamp(certificate.validity().not_before.timestamp()),
            not_after: Timestamp(certificate.validity().not_after.timestamp()),
            self_signature: self_signature(&certificate, key),
            version,
            unknown_critical_extension: extensions.unknown_critical,
            is_for_clients: extensions.for_clients.unwrap_or(true),
            is_for_signatures: extensions.for_signatures.unwrap_or(true),
        })
    }
}

/// What x509-parser does not tell, or reads too generously: it takes what it can of a name, and a date in any form.
struct Parts {
    organizations: Vec<Organization>,
}

impl Parts {
    fn of(encoded: &[u8]) -> Option<Self> {
        let outer = der::only(encoded)?;
        if !outer.is_well_formed() {
            return None;
        }
        let [signed, algorithm, _signature] = outer.elements(der::SEQUENCE)?.try_into().ok()?;
        let mut fields = signed.elements(der::SEQUENCE)?;
        if fields.first()?.tag == der::VERSION {
            fields.remove(0);
        }
        let [_serial, signed_algorithm, issuer, validity, subject, ..] = fields.as_slice() else { return None };
        if *signed_algorithm != algorithm {
            return None;
        }
        let dates = validity.elements(der::SEQUENCE)?;
        if dates.len() != 2 || !dates.iter().all(der::Element::is_date) {
            return None;
        }
        attributes(issuer)?;
        let organizations = attributes(subject)?;
        Some(Self { organizations })
    }
}

/// The organisations in a name, all of whose attributes must be text.
fn attributes(name: &der::Element<'_>) -> Option<Vec<Organization>> {
    /// 2.5.4.10, organizationName.
    const ORGANIZATION: [u8; 3] = [0x55, 0x04, 0x0a];

    let mut organizations = Vec::new();
    for relative_name in name.elements(der::SEQUENCE)? {
        for attribute in relative_name.elements(der::SET)? {
            let [kind, value] = attribute.elements(der::SEQUENCE)?.try_into().ok()?;
            let (text, encoding) = value.text()?;
            if kind.tag == der::OBJECT_IDENTIFIER && kind.content == ORGANIZATION {
                let hotkey = text.parse().ok();
                organizations.push(Organization { text, encoding, hotkey });
            }
        }
    }
    Some(organizations)
}

fn key(certificate: &X509Certificate<'_>) -> Result<CertificateKey, MalformedCertificate> {
    let info = certificate.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return Ok(CertificateKey::Other);
    }
    let whole = info.algorithm.parameters.is_none() && info.subject_public_key.unused_bits == 0;
    let bytes = info.subject_public_key.data.as_ref().try_into().map_err(|_| MalformedCertificate)?;
    if whole { Ok(CertificateKey::Ed25519(bytes)) } else { Err(MalformedCertificate) }
}

fn self_signature(certificate: &X509Certificate<'_>, key: CertificateKey) -> SelfSignature {
    let ed25519 = certificate.signature_algorithm.algorithm == OID_SIG_ED25519 && key != CertificateKey::Other;
    if ed25519 && certificate.verify_signature(None).is_ok() {
        SelfSignature::Genuine
    } else if certificate.issuer().as_raw() == certificate.subject().as_raw() {
        SelfSignature::Wrong
    } else {
        SelfSignature::ByAnother
    }
}

/// What the extensions say that matters here.
#[derive(Default)]
struct Extensions {
    for_clients: Option<bool>,
    for_signatures: Option<bool>,
    unknown_critical: bool,
}

impl Extensions {
    fn add(&mut self, extension: &x509_parser::extensions::X509Extension<'_>) -> Result<(), MalformedCertificate> {
        let known = [
            OID_X509_EXT_KEY_USAGE,
            OID_X509_EXT_EXTENDED_KEY_USAGE,
            OID_X509_EXT_BASIC_CONSTRAINTS,
            OID_X509_EXT_SUBJECT_ALT_NAME,
        ];
        if !known.contains(&extension.oid) {
            self.unknown_critical |= extension.critical;
            return Ok(());
        }
        if !der::only(extension.value).is_some_and(|value| value.is_well_formed()) {
            return Err(MalformedCertificate);
        }
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => self.for_signatures = Some(usage.digital_signature()),
            ParsedExtension::ExtendedKeyUsage(usage) => self.for_clients = Some(usage.client_auth || usage.any),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
