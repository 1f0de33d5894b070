use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// Every certificate of the vectors, by its name.
fn vectors() -> Vec<(String, Vec<u8>)> {
    let document: Value = serde_json::from_str(include_str!("../../../tests/data/nexus/vectors.json")).unwrap();
    let vectors = document["vectors"].as_array().unwrap().iter();
    let vectors = vectors.filter_map(|vector| {
        // The others are vectors of what a header may hold instead.
        let base64 = vector["cert_pem"].as_str()?.strip_prefix("-----BEGIN CERTIFICATE-----")?;
        let base64 = base64.split_once('-').unwrap().0.replace('\n', "");
        Some((vector["name"].as_str().unwrap().to_owned(), BASE64_STANDARD.decode(base64).unwrap()))
    });
    vectors.collect()
}

static VECTORS: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(vectors);

fn vector(name: &str) -> Vec<u8> {
    VECTORS.iter().find(|(other, _)| other == name).unwrap().1.clone()
}

fn organization(text: &str, encoding: Encoding) -> Organization {
    Organization { text: text.to_owned(), encoding, hotkey: text.parse().ok() }
}

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

#[test]
fn a_certificate_as_nexus_auth_makes_them_is_read() {
    let certificate = ClientCertificate::parse(&vector("valid")).unwrap();
    assert_eq!(certificate.organizations, [organization(ALICE, Encoding::Printable)]);
    let CertificateKey::Ed25519(key) = certificate.key else { panic!("another key") };
    assert_eq!(key[..4], [0xd7, 0xf9, 0xd3, 0x43]);
    assert_eq!(certificate.not_before, Timestamp(1_735_689_600));
    assert_eq!(certificate.self_signature, SelfSignature::Genuine);
    assert_eq!(certificate.version, 3);
    assert!(certificate.is_for_clients && certificate.is_for_signatures && !certificate.unknown_critical_extension);
}

#[test]
fn organisations_are_told_in_order_and_with_their_encoding() {
    let organizations = |name| ClientCertificate::parse(&vector(name)).unwrap().organizations;
    let alice = organization(ALICE, Encoding::Printable);
    let bob = organization(BOB, Encoding::Printable);
    assert_eq!(organizations("two_orgs"), [alice.clone(), bob.clone()]);
    assert_eq!(organizations("two_orgs_reversed"), [bob.clone(), alice.clone()]);
    assert_eq!(organizations("two_orgs_one_rdn"), [bob, alice]);
    assert_eq!(organizations("valid_utf8string"), [organization(ALICE, Encoding::Utf8)]);
    assert_eq!(organizations("org_bmpstring"), [organization(ALICE, Encoding::Bmp)]);
    assert_eq!(organizations("empty_org"), [organization("", Encoding::Utf8)]);
    assert_eq!(organizations("empty_subject"), []);
}

#[test]
fn what_only_some_rules_refuse_is_told() {
    let parse = |name| ClientCertificate::parse(&vector(name)).unwrap();
    assert_eq!(parse("x509_v1").version, 1);
    assert!(parse("unknown_critical_extension").unknown_critical_extension);
    assert!(!parse("eku_server_only").is_for_clients);
    assert!(parse("valid_no_extensions").is_for_clients);
    assert_eq!(parse("tampered_signature").self_signature, SelfSignature::Wrong);
    assert_eq!(parse("tampered_org").self_signature, SelfSignature::Wrong);
    assert_eq!(parse("ca_signed").self_signature, SelfSignature::ByAnother);
    for name in ["p256", "p384", "rsa2048", "ed448_oid_with_alice_bytes", "x25519_oid_with_alice_bytes"] {
        assert_eq!(parse(name).key, CertificateKey::Other, "{name}");
    }
}

#[test]
fn what_the_replaced_system_refused_to_parse_is_refused() {
    let refused = |name| ClientCertificate::parse(&vector(name)) == Err(MalformedCertificate);
    for name in ["malformed_date", "negative_serial", "trailing_der", "truncated_der", "ed25519_short_key"] {
        assert!(refused(name), "{name}");
    }
}

/// Replaces the first occurrence of some bytes by as many others.
fn edited(mut certificate: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = certificate.windows(from.len()).position(|window| window == from).expect("is in the certificate");
    certificate.splice(at..at + from.len(), to.iter().copied());
    certificate
}

#[test]
fn what_has_two_readings_is_refused() {
    let valid = vector("valid");
    let malformed = |certificate: &[u8]| ClientCertificate::parse(certificate) == Err(MalformedCertificate);
    for (from, to) in [
        (b"250101000000Z".as_slice(), b"2501010000+00".as_slice()), // a date with an offset
        (b"250101000000Z", b"251301000000Z"),                       // a month of that number
        (b"250101000000Z", b"250230000000Z"),                       // a day of that number
        (&[0x02, 0x01, 0x02], &[0x02, 0x01, 0x03]),                 // version 4
        (&[0x02, 0x01, 0x01], &[0x02, 0x01, 0x81]),                 // a negative serial number
        (&[0x01, 0x01, 0xff], &[0x01, 0x01, 0x01]),                 // a boolean that is neither
        (&[0x13, 0x30], &[0x04, 0x30]),                             // an organisation that is no text
        (&[0x13, 0x30, b'5'], &[0x13, 0x30, 0x07]),                 // a character that this kind of text has not
        (&[0x55, 0x1d, 0x25], &[0x55, 0x1d, 0x0f]),                 // the same extension twice
        (&[0x03, 0x02, 0x07, 0x80], &[0x03, 0x01, 0x07, 0x80]),     // a length that leaves a byte over
    ] {
        assert!(malformed(&edited(valid.clone(), from, to)), "{from:02x?} -> {to:02x?}");
    }
    // The whole, with its length in a longer form than need be.
    let mut long = vec![0x30, 0x83, 0x00];
    long.extend(&valid[2..]);
    assert!(malformed(&long));
    assert!(malformed(&vec![0x30; MAX_BYTES + 1]));
    assert!(malformed(&[0x30, 0x80].repeat(MAX_BYTES / 2)));
    assert!(malformed(&[]));
}

#[test]
fn no_byte_of_a_certificate_makes_the_parser_panic() {
    let valid = vector("valid");
    let mut refused = 0_u32;
    for at in 0..valid.len() {
        // Each bit, and some bytes that mean something in DER.
        for byte in (0..8).map(|bit| valid[at] ^ (1 << bit)).chain([0x00, 0x30, 0x7f, 0x80, 0x81, 0x82, 0xff]) {
            let mut mutant = valid.clone();
            mutant[at] = byte;
            refused += u32::from(ClientCertificate::parse(&mutant).is_err());
        }
    }
    assert!(refused > 1_000, "only {refused} were refused");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_mutant_makes_the_parser_panic(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..12),
    ) {
        let mut certificate = which.get(&VECTORS).1.clone();
        for (at, byte, kind) in edits {
            let at = at.index(certificate.len());
            match kind {
                0 => certificate[at] = byte,
                1 => certificate.insert(at, byte),
                _ if certificate.len() > 1 => { certificate.remove(at); }
                _ => {}
            }
        }
        let _ = ClientCertificate::parse(&certificate);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = ClientCertificate::parse(&bytes);
    }
}
