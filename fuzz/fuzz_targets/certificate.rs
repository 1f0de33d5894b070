//! No bytes make the parser panic, and what it reads has what every rule counts on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::{
    authn::certificate::{Rules, forwarded},
    model::certificate::{CertificateKey, ClientCertificate, MAX_BYTES, SelfSignature},
};

fuzz_target!(|der: &[u8]| {
    for rules in [Rules::Strict, Rules::NexusAuth] {
        let _ = forwarded::read(der, rules);
    }
    let Ok(certificate) = ClientCertificate::parse(der) else { return };
    assert!(der.len() <= MAX_BYTES);
    assert!((1..=3).contains(&certificate.version));
    // Only Ed25519 is verified.
    assert!(certificate.key != CertificateKey::Other || certificate.self_signature != SelfSignature::Genuine);
    // What follows a certificate is not part of it.
    assert!(ClientCertificate::parse(&[der, &[0]].concat()).is_err());
});
