//! Tokens verify with the key that signed them, as the type that they are, and no other way.

use serde_json::json;

use super::*;
use crate::jose::{Algorithm, KeyError};

const RSA: &str = include_str!("../../../tests/data/oauth/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../../tests/data/oauth/rsa.pub.pem");
const P256: &str = include_str!("../../../tests/data/oauth/p256.pem");
const ED25519: &str = include_str!("../../../tests/data/oauth/ed25519.pem");
const SHORT: &str = include_str!("../../../tests/data/oauth/rsa1024.pem");

fn keys() -> [SigningKey; 3] {
    [RSA, P256, ED25519].map(|pem| SigningKey::from_pem(pem.as_bytes()).unwrap())
}

fn verify(token: &str, types: &[&str], keys: &[SigningKey]) -> Result<Value, JwsError> {
    verify_compact(token, types, keys).map(|verified| verified.claims)
}

fn forged(header: &Value, of: &str) -> String {
    let (_, rest) = of.split_once('.').unwrap();
    format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

#[test]
fn a_token_is_verified_by_the_key_that_signed_it() {
    let keys = keys();
    let claims = json!({ "sub": "5F\u{e9}", "n": 1 });
    for (key, algorithm) in keys.iter().zip(Algorithm::ALL) {
        assert_eq!(key.algorithm(), algorithm);
        let token = key.sign_compact("at+jwt", &claims).unwrap();
        let verified: Verified<Value> = verify_compact(&token, &["at+jwt"], &keys).unwrap();
        assert_eq!((&verified.claims, verified.typ.as_str(), verified.kid.as_str()), (&claims, "at+jwt", key.kid()));
        let others: Vec<&SigningKey> = keys.iter().filter(|other| other.kid() != key.kid()).collect();
        let unknown = verify_compact::<Value>(&token, &["at+jwt"], others);
        assert_eq!(unknown.unwrap_err(), JwsError::UnknownKey);
    }
}

#[test]
fn a_token_of_one_type_is_not_one_of_another() {
    let keys = keys();
    let token = keys[0].sign_compact("at+jwt", &json!({})).unwrap();
    assert_eq!(verify(&token, &["JWT"], &keys).unwrap_err(), JwsError::Type);
    assert_eq!(verify(&token, &[], &keys).unwrap_err(), JwsError::Type);
    assert!(verify(&token, &["JWT", "AT+JWT"], &keys).is_ok());
    let long = keys[0].sign_compact("application/at+jwt", &json!({})).unwrap();
    assert!(verify(&long, &["at+jwt"], &keys).is_ok());
}

#[test]
fn what_was_changed_or_made_up_is_refused() {
    let keys = keys();
    for key in &keys {
        let token = key.sign_compact("JWT", &json!({ "sub": "a" })).unwrap();
        let alg = key.algorithm().as_str();
        let header = |more: Value| {
            let mut header = json!({ "alg": alg, "typ": "JWT", "kid": key.kid() });
            header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            forged(&header, &token)
        };
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other_claims =
            format!("{}.{}.{signature}", message.split_once('.').unwrap().0, URL_SAFE_NO_PAD.encode("{}"));
        for (forged, error) in [
            (header(json!({ "alg": "none" })), JwsError::UnknownKey),
            (header(json!({ "alg": "HS256" })), JwsError::UnknownKey),
            (header(json!({ "kid": "x" })), JwsError::UnknownKey),
            (header(json!({ "crit": ["exp"] })), JwsError::Critical),
            (header(json!({ "x": 1 })), JwsError::Signature),
            (other_claims, JwsError::Signature),
            (format!("{message}."), JwsError::Signature),
            (format!("{message}.AAAA"), JwsError::Signature),
            (format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 64])), JwsError::Signature),
            (format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 256])), JwsError::Signature),
            (message.to_owned(), JwsError::Malformed),
            (format!("{token}."), JwsError::Malformed),
            (format!("{token}.x"), JwsError::Malformed),
            (format!("{message}.!"), JwsError::Malformed),
            (String::new(), JwsError::Malformed),
            ("..".to_owned(), JwsError::Malformed),
            ("x".repeat(20_000), JwsError::TooLong),
        ] {
            assert_eq!(
                verify(&forged, &["JWT"], &keys).unwrap_err(),
                error,
                "{alg} {}",
                &forged[..forged.len().min(80)]
            );
        }
    }
}

#[test]
fn claims_that_cannot_be_read_are_an_error() {
    let keys = keys();
    let token = keys[2].sign_compact("JWT", &json!("text")).unwrap();
    let read = verify_compact::<std::collections::HashMap<String, Value>>(&token, &["JWT"], &keys);
    assert_eq!(read.unwrap_err(), JwsError::Claims);
}

#[test]
fn a_key_is_named_by_its_thumbprint_and_published_without_its_secret() {
    let key = SigningKey::from_pem(RSA.as_bytes()).unwrap();
    let jwk = key.jwk();
    let canonical = format!("{{\"e\":{},\"kty\":\"RSA\",\"n\":{}}}", jwk["e"], jwk["n"]);
    assert_eq!(key.kid(), URL_SAFE_NO_PAD.encode(openssl::sha::sha256(canonical.as_bytes())));
    for key in keys() {
        let text = key.jwk().to_string();
        assert!(!text.contains("\"d\"") && key.jwk()["use"] == "sig" && key.jwk()["kid"] == key.kid(), "{text}");
    }
}

#[test]
fn keys_that_are_not_good_enough_are_refused() {
    let read = |pem: &str| SigningKey::from_pem(pem.as_bytes()).map(|key| key.algorithm());
    assert_eq!(read(SHORT), Err(KeyError::TooShort));
    for bad in ["", "x", RSA_PUBLIC, &RSA[..400], &RSA.replace("PRIVATE", "ENCRYPTED PRIVATE")] {
        assert_eq!(read(bad), Err(KeyError::NotAKey));
    }
    let pair = |private: &str, public: &str| SigningKey::from_pair(private.as_bytes(), public.as_bytes()).map(|_| ());
    assert_eq!(pair(RSA, RSA_PUBLIC), Ok(()));
    assert_eq!(pair(P256, RSA_PUBLIC), Err(KeyError::NotItsPublicKey));
    assert_eq!(pair(RSA, RSA), Err(KeyError::NotItsPublicKey));
    for algorithm in Algorithm::ALL {
        let pem = algorithm.generate().unwrap();
        assert_eq!(SigningKey::from_pem(&pem).unwrap().algorithm(), algorithm);
    }
}
