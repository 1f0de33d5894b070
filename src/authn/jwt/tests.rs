//! What is a token of ours, for us, now; and all that only looks like one.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};

use super::*;
use crate::{authn::Authorization, chain::cache::Clock, jose::SigningKey, model::decision::Dependency};

const RSA: &str = include_str!("../../../tests/data/oauth/rsa.pem");
const P256: &str = include_str!("../../../tests/data/oauth/p256.pem");
const ED25519: &str = include_str!("../../../tests/data/oauth/ed25519.pem");

const ISSUER: &str = "https://auth.example";
const AUDIENCE: &str = "https://api.example";
const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
const HOLDER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const NOW: Timestamp = Timestamp(1_800_000_000);
const GRANT: Uuid = Uuid::from_u128(9);

fn key(pem: &str) -> SigningKey {
    SigningKey::from_pem(pem.as_bytes()).unwrap()
}

/// Ours are an RSA and an Ed25519 key.
fn verifier() -> AccessTokens {
    let revocations = Revocations::new(Duration::from_mins(1), Clock::manual());
    revocations.publish(HashSet::new(), Timestamp(0), revocations.now());
    let keys = Arc::new(KeySet::new(vec![key(RSA), key(ED25519)]));
    AccessTokens::new(keys, ISSUER.into(), Duration::from_mins(15), Arc::new(revocations))
}

/// What the authorization server says.
fn good() -> Value {
    json!({
        "iss": ISSUER, "sub": HOLDER, "aud": AUDIENCE, "exp": NOW.0 + 900, "iat": NOW.0, "jti": Uuid::from_u128(7),
        "client_id": "app", "scope": "openid tao:holder", "type": "access", "hotkey": null, "coldkey": null,
        "evm_address": HOLDER, "signer_type": "evm", "auth_time": NOW.0 - 60, "grant_id": GRANT,
    })
}

/// The good claims with some replaced, or taken away where the value is `null`.
fn with(changes: &Value) -> Value {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// Claims of which one is there twice.
struct Twice(&'static str, Value);

impl Serialize for Twice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = self.1.as_object().unwrap();
        let first = (self.0, &members[self.0]);
        serializer.collect_map(std::iter::once(first).chain(members.iter().map(|(name, value)| (name.as_str(), value))))
    }
}

fn token(claims: &Value) -> String {
    key(ED25519).sign_compact("at+jwt", claims).unwrap()
}

fn identify_at(verifier: &AccessTokens, token: &str, now: Timestamp) -> Result<Arc<Identity>, Denial> {
    let value = format!("Bearer {token}");
    let presented = Presented { authorization: Authorization::from_values([value.as_bytes()]).unwrap() };
    verifier.identify(&presented, AUDIENCE, now).map(|identity| identity.expect("a token was presented"))
}

/// Asked twice, because the second answer comes from memory.
#[track_caller]
fn reason(verifier: &AccessTokens, token: &str) -> Option<Reason> {
    let [first, second] = [(); 2].map(|()| match identify_at(verifier, token, NOW) {
        Ok(_) => None,
        Err(Denial::InvalidCredential(reason)) => Some(reason),
        Err(other) => panic!("{other:?}"),
    });
    assert_eq!(first, second, "remembered otherwise");
    first
}

#[test]
fn a_token_says_who_calls_and_by_whose_leave() {
    let verifier = verifier();
    for pem in [RSA, ED25519] {
        let identity = identify_at(&verifier, &key(pem).sign_compact("at+jwt", &good()).unwrap(), NOW).unwrap();
        assert_eq!((identity.subject, identity.proof), (Subject::Evm(HOLDER.parse().unwrap()), Proof::AccessToken));
        assert_eq!((identity.issued_at, identity.expires_at), (Some(NOW), Some(Timestamp(NOW.0 + 900))));
        assert!(identity.entitlement.is_none());
        let said = identity.access_token.as_ref().unwrap();
        assert_eq!((&*said.account, said.signer, said.client.as_deref()), (HOLDER, SignerKind::Evm, Some("app")));
        assert_eq!((&*said.scope, said.scopes.len(), said.grant), ("openid tao:holder", 2, Some(GRANT)));
    }
    let alice = ALICE.parse().unwrap();
    for (signer, subject) in [("hotkey", Subject::Hotkey(alice)), ("coldkey", Subject::Coldkey(alice))] {
        let direct =
            with(&json!({ "sub": ALICE, "signer_type": signer, "client_id": null, "grant_id": null, "scope": "" }));
        let identity = identify_at(&verifier, &token(&direct), NOW).unwrap();
        let said = identity.access_token.as_ref().unwrap();
        assert_eq!((identity.subject, &said.client, said.scopes.len()), (subject, &None, 0));
    }
    let presented = Presented { authorization: Authorization::from_values([]).unwrap() };
    assert!(verifier.identify(&presented, AUDIENCE, NOW).unwrap().is_none(), "nothing was presented");
}

#[test]
fn every_claim_is_looked_at() {
    let verifier = verifier();
    for (changes, expected) in [
        (json!({}), None),
        (json!({ "aud": [AUDIENCE, "other"] }), None),
        (json!({ "aud": "other" }), Some("wrong_audience")),
        (json!({ "aud": ["other", "https://api.example/"] }), Some("wrong_audience")),
        (json!({ "aud": [] }), Some("wrong_audience")),
        (json!({ "aud": null }), Some("malformed_claims")),
        (json!({ "aud": { "0": AUDIENCE } }), Some("malformed_claims")),
        (json!({ "iss": "https://auth.example/" }), Some("wrong_issuer")),
        (json!({ "iss": null }), Some("malformed_claims")),
        (json!({ "type": "refresh" }), Some("token_type")),
        (json!({ "type": "id" }), Some("token_type")),
        (json!({ "type": null }), Some("malformed_claims")),
        (json!({ "exp": NOW.0 + 1 }), None),
        (json!({ "exp": NOW.0 }), Some("expired")),
        (json!({ "exp": 0 }), Some("expired")),
        (json!({ "exp": i64::MIN }), Some("expired")),
        (json!({ "exp": null }), Some("malformed_claims")),
        (json!({ "exp": "1900000000" }), Some("malformed_claims")),
        (json!({ "exp": 1.9e9 }), Some("malformed_claims")),
        (json!({ "exp": u64::MAX }), Some("malformed_claims")),
        (json!({ "iat": NOW.0 + 5 }), None),
        (json!({ "iat": NOW.0 + 6 }), Some("not_yet_valid")),
        (json!({ "iat": i64::MAX }), Some("not_yet_valid")),
        (json!({ "iat": null }), Some("malformed_claims")),
        (json!({ "nbf": NOW.0 + 5 }), None),
        (json!({ "nbf": NOW.0 + 6 }), Some("not_yet_valid")),
        (json!({ "nbf": "now" }), Some("malformed_claims")),
        // Longer than any token lives: what was taken back in the meantime is not known.
        (json!({ "iat": NOW.0 - 900, "exp": NOW.0 + 900 }), Some("expired")),
        (json!({ "iat": i64::MIN, "exp": i64::MAX }), Some("expired")),
        (json!({ "iat": NOW.0 - 899, "exp": NOW.0 + 900 }), None),
        (json!({ "sub": null }), Some("malformed_claims")),
        (json!({ "sub": HOLDER.to_lowercase() }), Some("malformed_claims")),
        (json!({ "sub": ALICE }), Some("malformed_claims")),
        (json!({ "sub": "x\r\nX-Hotkey: y" }), Some("malformed_claims")),
        (json!({ "signer_type": "hotkey" }), Some("malformed_claims")),
        (json!({ "signer_type": "owner" }), Some("malformed_claims")),
        (json!({ "signer_type": null }), Some("malformed_claims")),
        (json!({ "scope": null }), Some("malformed_claims")),
        (json!({ "scope": ["openid"] }), Some("malformed_claims")),
        (json!({ "scope": "openid\u{7f}" }), Some("malformed_claims")),
        (json!({ "scope": "a\r\nX-Hotkey: y" }), Some("malformed_claims")),
        (json!({ "client_id": "" }), Some("malformed_claims")),
        (json!({ "client_id": "\u{e9}" }), Some("malformed_claims")),
        (json!({ "client_id": 7 }), Some("malformed_claims")),
        (json!({ "grant_id": "x" }), Some("malformed_claims")),
    ] {
        assert_eq!(reason(&verifier, &token(&with(&changes))), expected, "{changes}");
    }
    let twice = key(RSA).sign_compact("at+jwt", &Twice("exp", good())).unwrap();
    assert_eq!(reason(&verifier, &twice), Some("malformed_claims"), "a claim that is there twice");
    for claims in [json!(null), json!([]), json!("text"), json!({})] {
        assert_eq!(reason(&verifier, &token(&claims)), Some("malformed_claims"));
    }
}

#[test]
fn nothing_but_an_access_token_of_ours_is_one() {
    let verifier = verifier();
    let (rsa, ours) = (key(RSA), token(&good()));
    let (message, signature) = ours.rsplit_once('.').unwrap();
    let claims = message.split_once('.').unwrap().1;
    // With everything that a key could be smuggled in by.
    let forged = |header: &Value, key: &SigningKey| {
        let token = key.sign_compact("at+jwt", &good()).unwrap();
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        format!("{header}.{claims}.{}", token.rsplit_once('.').unwrap().1)
    };
    let foreign = key(P256);
    let jwk = foreign.jwk();
    let header = |more: &Value| {
        let mut header = json!({ "alg": "RS256", "typ": "at+jwt", "kid": rsa.kid() });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        header
    };
    // HMAC with the public key as it is published, the classic confusion.
    let confused = {
        let header = URL_SAFE_NO_PAD.encode(header(&json!({ "alg": "HS256" })).to_string());
        let public = rsa.jwk().to_string();
        let key = openssl::pkey::PKey::hmac(public.as_bytes()).unwrap();
        let mut signer = openssl::sign::Signer::new(openssl::hash::MessageDigest::sha256(), &key).unwrap();
        let text = format!("{header}.{claims}");
        signer.update(text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signer.sign_to_vec().unwrap()))
    };
    for (what, token, expected) in [
        ("ours", ours.clone(), None),
        ("an ID token", rsa.sign_compact("JWT", &with(&json!({ "type": "id" }))).unwrap(), Some("token_type")),
        ("an old access token", rsa.sign_compact("JWT", &good()).unwrap(), Some("token_type")),
        ("one without a type", rsa.sign_compact("", &good()).unwrap(), Some("token_type")),
        ("a logout token", rsa.sign_compact("logout+jwt", &good()).unwrap(), Some("token_type")),
        ("the long type", rsa.sign_compact("application/at+jwt", &good()).unwrap(), None),
        ("a stranger's", foreign.sign_compact("at+jwt", &good()).unwrap(), Some("unknown_key")),
        ("none", forged(&header(&json!({ "alg": "none" })), &rsa), Some("unknown_key")),
        ("HS256", confused, Some("unknown_key")),
        ("another algorithm", forged(&header(&json!({ "alg": "ES256" })), &rsa), Some("unknown_key")),
        ("another key's", forged(&header(&json!({ "kid": key(ED25519).kid() })), &rsa), Some("unknown_key")),
        ("a key in it", forged(&header(&json!({ "kid": jwk["kid"], "jwk": jwk })), &foreign), Some("unknown_key")),
        ("our name, a key in it", forged(&header(&json!({ "jwk": jwk })), &foreign), Some("wrong_signature")),
        ("a key elsewhere", forged(&header(&json!({ "jku": "https://x.example" })), &foreign), Some("wrong_signature")),
        (
            "a certificate",
            forged(&header(&json!({ "x5u": "https://x.example", "x5c": [] })), &foreign),
            Some("wrong_signature"),
        ),
        ("no key's name", forged(&header(&json!({ "kid": null })), &rsa), Some("unknown_key")),
        ("crit", forged(&header(&json!({ "crit": ["exp"] })), &rsa), Some("token_critical_header")),
        ("an empty crit", forged(&header(&json!({ "crit": [] })), &rsa), Some("token_critical_header")),
        ("b64", forged(&header(&json!({ "b64": false, "crit": ["b64"] })), &rsa), Some("token_critical_header")),
        ("no signature", format!("{message}."), Some("wrong_signature")),
        ("a padded one", format!("{message}.{signature}="), Some("malformed_token")),
        ("a refresh token", format!("tgr_{}", "A".repeat(49)), Some("malformed_token")),
        ("an encrypted one", format!("{message}.{claims}.{signature}"), Some("malformed_token")),
        ("too long", format!("{ours}{}", "A".repeat(20_000)), Some("token_too_long")),
    ] {
        assert_eq!(reason(&verifier, &token), expected, "{what}");
    }
}

#[test]
fn what_is_remembered_is_never_whether_it_is_valid_now() {
    let verifier = verifier();
    let token = token(&good());
    assert_eq!(reason(&verifier, &token), None);
    let later = |seconds: i64| identify_at(&verifier, &token, Timestamp(NOW.0 + seconds)).err();
    assert_eq!((later(899), later(900)), (None, Some(Denial::InvalidCredential("expired"))));
    assert_eq!(later(-6), Some(Denial::InvalidCredential("not_yet_valid")));
    let value = format!("Bearer {token}");
    let presented = Presented { authorization: Authorization::from_values([value.as_bytes()]).unwrap() };
    let elsewhere = verifier.identify(&presented, "https://other.example", NOW).err();
    assert_eq!(elsewhere, Some(Denial::InvalidCredential("wrong_audience")));

    verifier.revocations.publish(HashSet::from([GRANT]), Timestamp(0), verifier.revocations.now());
    assert_eq!(reason(&verifier, &token), Some("revoked"));
    verifier.revocations.publish(HashSet::new(), Timestamp(0), verifier.revocations.now());
    assert_eq!(reason(&verifier, &token), None);

    verifier.keys.replace(vec![key(RSA)]);
    assert_eq!(reason(&verifier, &token), Some("unknown_key"), "a key that was taken away");
    verifier.keys.replace(vec![key(P256), key(ED25519)]);
    assert_eq!(reason(&verifier, &token), None, "a key that is retired and still published");
}

#[test]
fn where_nothing_is_known_of_grants_only_tokens_without_one_pass() {
    let clock = Clock::manual();
    let keys = Arc::new(KeySet::new(vec![key(ED25519)]));
    let revocations = Revocations::new(Duration::from_mins(1), clock.clone());
    let verifier = AccessTokens::new(keys, ISSUER.into(), Duration::from_mins(15), Arc::new(revocations));
    let (granted, direct) = (token(&good()), token(&with(&json!({ "grant_id": null, "client_id": null }))));
    let unknown = Some(Denial::Unavailable(Dependency::Revocations));
    let ask = |token: &str| identify_at(&verifier, token, NOW).err();
    assert_eq!((ask(&granted), ask(&direct)), (unknown.clone(), None));
    verifier.revocations.publish(HashSet::new(), Timestamp(0), clock.now());
    assert_eq!(ask(&granted), None);
    // Tokens live longer since a moment ago, and what was taken back has not been read that far.
    verifier.revocations.publish(HashSet::new(), Timestamp(NOW.0 + 1), clock.now());
    assert_eq!((ask(&granted), ask(&direct)), (unknown.clone(), None));
    verifier.revocations.publish(HashSet::new(), Timestamp(0), clock.now());
    assert_eq!(ask(&granted), None);
    clock.advance(Duration::from_secs(61));
    assert_eq!((ask(&granted), ask(&direct)), (unknown, None));
    assert!(verifier.memory() > Duration::from_mins(15), "more than the longest life of a token");
}

proptest! {
    #[test]
    fn nobody_makes_one_up(token in "[ -~]{0,200}") {
        let value = format!("Bearer {token}");
        let presented = Presented { authorization: Authorization::from_values([value.as_bytes()]).unwrap() };
        prop_assert!(verifier().identify(&presented, AUDIENCE, NOW).is_err());
    }

    /// One letter more, less or other, anywhere: the signature covers all of it, and is itself of one spelling.
    #[test]
    fn nobody_changes_one(at in any::<prop::sample::Index>(), letter in "[A-Za-z0-9_.-]", kind in 0..3) {
        let (verifier, token) = (verifier(), token(&good()));
        let at = at.index(token.len());
        let mut changed = token.clone();
        match kind {
            0 => changed.replace_range(at..=at, &letter),
            1 => changed.insert_str(at, &letter),
            _ => drop(changed.remove(at)),
        }
        prop_assume!(changed != token);
        let denied = identify_at(&verifier, &changed, NOW).err();
        prop_assert!(matches!(denied, Some(Denial::InvalidCredential(_))), "{denied:?}");
    }

    #[test]
    fn claims_of_any_form_are_read_or_refused(claims in any_json()) {
        let mut spoilt = good();
        if let (Value::Object(spoilt), Value::Object(claims)) = (&mut spoilt, &claims) {
            spoilt.extend(claims.clone());
        }
        let now = Timestamp(NOW.0);
        if let Ok(identity) = identify_at(&verifier(), &token(&spoilt), now) {
            prop_assert!(identity.expires_at.unwrap() > now);
            let said = identity.access_token.as_ref().unwrap();
            prop_assert!(is_visible(&said.scope) && is_visible(&said.account));
        }
    }
}

/// Claims with our names and any values.
fn any_json() -> impl Strategy<Value = Value> {
    let names = "iss|sub|aud|exp|iat|nbf|client_id|scope|type|signer_type|grant_id";
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        proptest::collection::vec(".{0,8}", 0..3).prop_map(Value::from),
    ];
    proptest::collection::btree_map(names, value, 0..3).prop_map(|map| Value::Object(map.into_iter().collect()))
}
