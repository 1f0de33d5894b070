//! The key and the certificate by which a neuron is known: Ed25519, self-signed, the hotkey as organisation.
//!
//! The form is that of the replaced system's (nexus.md section 2), byte by byte, except for the serial number, which is
//! random here.

use std::{fmt, time::Duration};

use anyhow::{Context, anyhow, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SerialNumber,
};
use rustls::{
    crypto::ring as provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use time::OffsetDateTime;
use zeroize::{Zeroize as _, Zeroizing};

use crate::model::{clock::Timestamp, hotkey::Hotkey};

/// A neuron's Ed25519 key. Wiped when dropped; its `Debug` says the public half and no more.
pub struct NeuronKey {
    seed: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

/// What stands before the seed in PKCS#8 version 1 (RFC 8410 section 7). In version 2 the seed is at the same place.
const PKCS8_V1: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Clocks of those who look at the certificate may be behind ours by so much.
const BACKDATED: Duration = Duration::from_mins(1);

/// A serial number has 16 bytes: RFC 5280 section 4.1.2.2 allows 20.
const SERIAL_BYTES: usize = 16;

impl NeuronKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> anyhow::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random(&mut *seed)?;
        Self::from_seed(&seed)
    }

    /// The key of a seed (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// Never, as far as one can see: every seed has a key.
    pub fn from_seed(seed: &[u8; 32]) -> anyhow::Result<Self> {
        let mut pair = key_pair(&*pkcs8(seed))?;
        let public = pair.public_key_raw().try_into().context("an Ed25519 key has 32 bytes")?;
        pair.zeroize();
        Ok(Self { seed: Zeroizing::new(*seed), public })
    }

    /// Reads PEM with a PKCS#8 key, version 1 or 2.
    ///
    /// # Errors
    /// When there is none, or it is of another kind than Ed25519. Nothing of the text is quoted.
    pub fn from_pem(pem: &[u8]) -> anyhow::Result<Self> {
        let found = PrivateKeyDer::from_pem_slice(pem).map_err(|_| anyhow!("there is no private key (PEM) in it"))?;
        let PrivateKeyDer::Pkcs8(key) = &found else {
            return Err(anyhow!("its key is not in the form PKCS#8"));
        };
        let der = key.secret_pkcs8_der();
        // Refuses what is not exactly such a structure, and a public half that is not the seed's.
        key_pair(der)?.zeroize();
        let seed = der.get(PKCS8_V1.len()..PKCS8_V1.len() + 32).and_then(|seed| seed.try_into().ok());
        Self::from_seed(seed.context("it is too short for an Ed25519 key")?)
    }

    /// The public half, as it is published.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// PEM with PKCS#8 version 1: what everybody can read.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem("PRIVATE KEY", &*pkcs8(&self.seed)))
    }

    /// A certificate that says this is the key of `hotkey`, as PEM. Valid from a minute before `now` until so many
    /// days after it.
    ///
    /// # Errors
    /// When the end cannot be written as a date, or the system gives no randomness.
    pub fn certificate(&self, hotkey: &Hotkey, now: Timestamp, days: u32) -> anyhow::Result<String> {
        let end = now.plus(Duration::from_secs(u64::from(days).saturating_mul(86_400)));
        let mut serial = [0; SERIAL_BYTES];
        random(&mut serial)?;
        // Positive, and always of one length.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x7f | 0x40;
        }
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        let organisation = DnValue::PrintableString(hotkey.to_string().as_str().try_into()?);
        params.distinguished_name.push(DnType::OrganizationName, organisation);
        let begin = now.0.saturating_sub_unsigned(BACKDATED.as_secs());
        params.not_before = OffsetDateTime::from_unix_timestamp(begin)?;
        params.not_after = OffsetDateTime::from_unix_timestamp(end.0)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let mut pair = key_pair(&*pkcs8(&self.seed))?;
        let certificate = params.self_signed(&pair);
        pair.zeroize();
        Ok(pem("CERTIFICATE", certificate?.der()))
    }
}

impl fmt::Debug for NeuronKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NeuronKey").field("public", &self.public).finish_non_exhaustive()
    }
}

fn pkcs8(seed: &[u8; 32]) -> Zeroizing<[u8; 48]> {
    let mut der = Zeroizing::new([0; 48]);
    for (to, from) in der.iter_mut().zip(PKCS8_V1.iter().chain(seed)) {
        *to = *from;
    }
    der
}

fn key_pair(pkcs8: &[u8]) -> anyhow::Result<KeyPair> {
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519);
    let pair = pair.map_err(|_| anyhow!("it is not an Ed25519 key in PKCS#8"))?;
    ensure!(pair.public_key_raw().len() == 32, "an Ed25519 key has 32 bytes");
    Ok(pair)
}

fn random(bytes: &mut [u8]) -> anyhow::Result<()> {
    provider::default_provider().secure_random.fill(bytes).map_err(|_| anyhow!("the system gives no randomness"))
}

/// RFC 7468: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    // Long enough from the start for what is made here: text that grows leaves copies of a key behind.
    let mut text = String::with_capacity(1024);
    text.extend(["-----BEGIN ", label, "-----\n"]);
    let body = Zeroizing::new(STANDARD.encode(der));
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.extend(["\n-----END ", label, "-----\n"]);
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    /// 2026-11-23T12:00:00Z.
    const NOW: Timestamp = Timestamp(1_795_435_200);

    fn made(days: u32) -> (NeuronKey, Vec<u8>) {
        let key = NeuronKey::from_seed(&[7; 32]).unwrap();
        let pem = key.certificate(&ALICE.parse().unwrap(), NOW, days).unwrap();
        assert!(pem.lines().all(|line| line.len() <= 64) && pem.ends_with("-----END CERTIFICATE-----\n"), "{pem}");
        (key, CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec())
    }

    #[test]
    fn a_certificate_has_the_bytes_of_the_replaced_system() {
        let (key, der) = made(3650);
        // 346 with a serial number of one byte.
        assert_eq!(der.len(), 346 - 1 + SERIAL_BYTES);
        let serial = &der[4 + 4 + 5..][..2 + SERIAL_BYTES];
        assert_eq!((serial[0], serial[1], serial[2] & 0xc0), (2, 16, 0x40));
        let name: &[u8] = &[
            &[0x30, 0x3b, 0x31, 0x39, 0x30, 0x37, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x13, 0x30], // one RDN, O, PrintableString
            ALICE.as_bytes(),
        ]
        .concat();
        let ed25519 = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
        let validity = [b"\x30\x1e\x17\x0d261123115900Z\x17\x0d361120120000Z".as_slice()].concat();
        let to_be_signed = [
            &[0x30, 0x82, 0x01, 0x17, 0xa0, 0x03, 0x02, 0x01, 0x02],
            serial,
            &ed25519,
            name,
            &validity,
            name,
            &[0x30, 0x2a],
            &ed25519,
            &[0x03, 0x21, 0x00],
            key.public(),
            &[0xa3, 0x31, 0x30, 0x2f],
            // keyUsage, critical: digitalSignature
            &[0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x07, 0x80],
            // extKeyUsage: clientAuth, serverAuth
            &[0x30, 0x1d, 0x06, 0x03, 0x55, 0x1d, 0x25, 0x04, 0x16, 0x30, 0x14],
            &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02],
            &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
        ]
        .concat();
        assert_eq!(der[4..4 + to_be_signed.len()], to_be_signed);
        let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
        assert!(rest.is_empty());
        certificate.verify_signature(None).unwrap();
    }

    #[test]
    fn serial_numbers_differ_and_far_ends_are_written() {
        let ((_, one), (_, two)) = (made(1), made(1));
        assert_ne!(one[13..31], two[13..31]);
        let (_, der) = made(36_500);
        assert!(der.windows(15).any(|window| window == b"21261030120000Z"));
    }

    #[test]
    fn a_key_is_written_in_version_1_and_read_in_both() {
        let key = NeuronKey::from_seed(&[7; 32]).unwrap();
        let text = key.to_pem();
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).unwrap();
        assert_eq!(der.secret_pkcs8_der(), [PKCS8_V1.as_slice(), &[7; 32]].concat());
        assert_eq!(NeuronKey::from_pem(text.as_bytes()).unwrap().public(), key.public());
        let mut second = [PKCS8_V1.as_slice(), &[7; 32], &[0x81, 0x21, 0x00], key.public()].concat();
        (second[1], second[4]) = (0x51, 1);
        let read = |der: &[u8]| NeuronKey::from_pem(pem("PRIVATE KEY", der).as_bytes());
        assert_eq!(read(&second).unwrap().public(), key.public());
        *second.last_mut().unwrap() ^= 1;
        assert!(read(&second).is_err(), "a public half of another key");
        assert!(NeuronKey::generate().unwrap().public() != NeuronKey::generate().unwrap().public());
        assert!(!format!("{key:?}").contains("7, 7, 7"));
    }

    #[test]
    fn other_keys_are_refused_and_not_quoted() {
        let p256 = KeyPair::generate().unwrap().serialize_pem();
        let cut = pem("PRIVATE KEY", &PKCS8_V1);
        for text in ["", "nonsense", &p256, &cut, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            let error = format!("{:#}", NeuronKey::from_pem(text.as_bytes()).unwrap_err());
            assert!(!error.contains("AAAA") && !error.contains("MII"), "{error}");
        }
    }
}
