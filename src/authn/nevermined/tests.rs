use serde_json::{Value, json};

use super::*;
use crate::{
    authn::{Authorization, genuine::ORDINARY_ENTRY_BYTES},
    jose::vectors::{BASIC, BEARER, DIGITS, LETTERS, NONE, README_1, README_2},
    model::{did::Did, identity::Subject},
};

const NOW: Timestamp = Timestamp(1_800_000_000);
const USER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const OWNER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

fn key(phrase: &str) -> ContentKey {
    ContentKey::from_phrase(phrase).unwrap()
}

fn verifier() -> TokenVerifier {
    TokenVerifier::new(vec![key(DIGITS), key(LETTERS)], None, 100, 8192).unwrap()
}

fn identify_at(verifier: &TokenVerifier, token: &str, now: Timestamp) -> Result<Arc<Identity>, Denial> {
    let value = format!("Bearer {token}");
    let presented = Presented { authorization: Authorization::from_values([value.as_bytes()]).unwrap() };
    verifier.identify(&presented, now).map(|identity| identity.expect("a token was presented"))
}

fn identify(token: &str) -> Result<Arc<Identity>, Denial> {
    identify_at(&verifier(), token, NOW)
}

/// Claims that are fine, for tests to spoil.
fn good() -> Value {
    json!({
        "did": format!("did:nv:{}", "11".repeat(32)),
        "subscriptionDid": "22".repeat(32),
        "userId": USER,
        "ercType": 1155,
        "endpoints": ["http://127.0.0.1:9300/(.*)"],
        "headers": { "authentication": { "type": "bearer", "token": "svc-secret" } },
        "owner": OWNER,
        "iat": 1_700_000_000,
        "exp": 4_102_444_800_i64,
    })
}

fn token(claims: &Value) -> String {
    jose::encrypt_compact(claims.to_string().as_bytes(), &key(DIGITS)).unwrap()
}

/// The good claims with one of them replaced, or left out where the value is `null`.
fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn reason(claims: &Value) -> Option<Reason> {
    match identify(&token(claims)) {
        Ok(_) => None,
        Err(Denial::InvalidCredential(reason)) => Some(reason),
        Err(other) => panic!("{other:?}"),
    }
}

fn authorization(claims: &Value) -> Option<String> {
    let identity = identify(&token(claims)).unwrap();
    let credential = &identity.entitlement.as_ref().unwrap().upstream_credential;
    credential.authorization.as_ref().map(|secret| secret.expose().to_owned())
}

#[test]
fn the_published_tokens_identify_their_holder() {
    for (token, kind, service_token, authorization) in [
        (BEARER, "bearer", "svc-secret", Some("Bearer svc-secret")),
        (BASIC, "basic", "dXNlcjpwYXNzd29yZA==", Some("Basic dXNlcjpwYXNzd29yZA==")),
        (NONE, "none", "", None),
    ] {
        let identity = identify(token).unwrap();
        assert_eq!(identity.subject, Subject::Evm(USER.parse().unwrap()));
        assert_eq!(identity.issued_at, Some(Timestamp(1_700_000_000)));
        assert_eq!(identity.expires_at, Some(Timestamp(4_102_444_800)));
        assert_eq!(identity.not_before, None);
        let entitlement = identity.entitlement.as_ref().unwrap();
        assert_eq!((entitlement.service, entitlement.plan), (Did([0x11; 32]), Did([0x22; 32])));
        assert_eq!((&*entitlement.owner, &*entitlement.user_id, entitlement.erc_type), (OWNER, USER, Some(1155)));
        assert_eq!(entitlement.endpoints[0].as_str(), "http://127.0.0.1:9300/(.*)");
        let credential = &entitlement.upstream_credential;
        assert_eq!((&*credential.kind, credential.service_token.expose()), (kind, service_token));
        assert_eq!(credential.authorization.as_ref().map(Secret::expose), authorization);
    }
}

#[test]
fn no_header_is_no_identity_and_no_error() {
    let presented = Presented { authorization: Authorization::from_values([]).unwrap() };
    assert!(verifier().identify(&presented, NOW).unwrap().is_none());
}

#[test]
fn a_header_that_is_wrong_is_an_error() {
    for (value, reason) in [
        ("Bearer", "malformed_authorization"),
        ("", "malformed_authorization"),
        ("Bearer abc", "malformed_token"),
        ("Basic dXNlcjpwYXNzd29yZA==", "malformed_token"),
        ("a.b.c", "malformed_token"),
    ] {
        let presented = Presented { authorization: Authorization::from_values([value.as_bytes()]).unwrap() };
        assert_eq!(verifier().identify(&presented, NOW).err(), Some(Denial::InvalidCredential(reason)), "{value:?}");
    }
}

#[test]
fn tokens_of_the_older_schema_are_refused() {
    for token in [README_1, README_2] {
        assert_eq!(
            identify_at(&verifier(), token, Timestamp(1_676_566_171)).err(),
            Some(Denial::InvalidCredential("malformed_claims"))
        );
    }
}

#[test]
fn a_token_of_another_key_is_refused() {
    let stranger = TokenVerifier::new(vec![key(LETTERS)], None, 100, 8192).unwrap();
    assert_eq!(identify_at(&stranger, BEARER, NOW).err(), Some(Denial::InvalidCredential("wrong_key")));
}

#[test]
fn a_token_that_is_too_long_is_refused_unread() {
    let narrow = |bytes| TokenVerifier::new(vec![key(DIGITS)], None, 100, bytes).unwrap();
    assert!(identify_at(&narrow(BEARER.len()), BEARER, NOW).is_ok());
    let refused = identify_at(&narrow(BEARER.len() - 1), BEARER, NOW).err();
    assert_eq!(refused, Some(Denial::InvalidCredential("token_too_long")));
}

#[test]
fn time_is_asked_again_on_every_request() {
    let mut claims = good();
    claims["nbf"] = json!(NOW.0);
    claims["exp"] = json!(NOW.0 + 10);
    let token = token(&claims);
    let verifier = verifier();
    for (seconds, refused) in [
        (0, None),
        (9, None),
        (10, Some("expired")), // no tolerance
        (11, Some("expired")),
        (-1, Some("not_yet_valid")),
        (5, None),
    ] {
        let answer = identify_at(&verifier, &token, Timestamp(NOW.0 + seconds));
        assert_eq!(answer.err(), refused.map(Denial::InvalidCredential), "{seconds}");
    }
    assert_eq!(verifier.genuine.len(), 1);
}

#[test]
fn times_are_numbers() {
    for (name, value, refused) in [
        ("exp", Value::Null, None), // a token without it never expires
        ("exp", json!(NOW.0 + 1), None),
        ("exp", json!(NOW.0), Some("expired")),
        ("exp", json!(1_800_000_000.5), Some("expired")),
        ("exp", json!(1_800_000_001.5), None),
        ("exp", json!(1e300), None),
        ("exp", json!(-1e300), Some("expired")),
        ("exp", json!(u64::MAX), None),
        ("exp", json!(0), Some("expired")),
        ("exp", json!((NOW.0 + 1).to_string()), Some("malformed_claims")),
        ("exp", json!(true), Some("malformed_claims")),
        ("exp", json!([1]), Some("malformed_claims")),
        ("nbf", json!(NOW.0), None),
        ("nbf", json!(NOW.0 + 1), Some("not_yet_valid")),
        ("nbf", json!("0"), Some("malformed_claims")),
        ("iat", Value::Null, None),
        ("iat", json!(NOW.0 + 1), None),
        ("iat", json!("0"), Some("malformed_claims")),
    ] {
        assert_eq!(reason(&with(name, value.clone())), refused, "{name} {value}");
    }
    for name in ["exp", "nbf", "iat"] {
        let mut claims = good();
        claims[name] = Value::Null;
        assert_eq!(reason(&claims), Some("malformed_claims"), "{name}: null is not missing");
    }
}

#[test]
fn each_claim_is_needed_in_its_form() {
    let did = format!("did:nv:{}", "ab".repeat(32));
    let mistyped = USER.replacen("0x3C", "0x3c", 1);
    for (name, value) in [
        ("did", Value::Null),
        ("did", json!(1)),
        ("did", json!("ab".repeat(32))),
        ("did", json!(format!("{did}0"))),
        ("did", json!(did.replace("nv", "op"))),
        ("did", json!(format!("{did}\r\n"))),
        ("subscriptionDid", Value::Null),
        ("subscriptionDid", json!(22)),
        ("subscriptionDid", json!(did)),
        ("subscriptionDid", json!("22".repeat(31))),
        ("subscriptionDid", json!("zz".repeat(32))),
        ("userId", Value::Null),
        ("userId", json!(1)),
        ("userId", json!("")),
        ("userId", json!(mistyped)),
        ("userId", json!(&USER[2..])),
        ("userId", json!(format!("{USER}\n"))),
        ("owner", json!(1)),
        ("owner", json!(["x"])),
        ("owner", json!("x\r\nNVM-Scope: y")),
        ("owner", json!("\u{7f}")),
        ("owner", json!("é")),
        ("owner", json!(" x")),
        ("owner", json!("x".repeat(257))),
        ("ercType", json!("1155")),
        ("ercType", json!(-1)),
        ("ercType", json!(1.5)),
        ("endpoints", Value::Null),
        ("endpoints", json!([])),
        ("endpoints", json!("http://h/")),
        ("endpoints", json!({"POST": "http://h/"})),
        ("endpoints", json!(["http://h/", 1])),
        ("endpoints", json!(["http://h/", null])),
        ("headers", Value::Null),
        ("headers", json!([])),
        ("headers", json!([{"authorization": "Bearer x"}])),
        ("headers", json!([{"type": "bearer", "token": "x"}])),
        ("headers", json!({})),
        ("headers", json!({"authentication": null})),
        ("headers", json!({"authentication": "bearer"})),
        ("headers", json!({"authentication": ["bearer", "x"]})),
        ("headers", json!({"authentication": {}})),
        ("headers", json!({"authentication": {"type": 1}})),
        ("headers", json!({"authentication": {"type": "x\ny"}})),
        ("headers", json!({"authentication": {"type": "bearer", "token": 1}})),
        ("headers", json!({"authentication": {"type": "basic", "username": 1, "password": "x"}})),
        ("headers", json!({"authentication": {"type": "basic", "username": "x", "password": ["x"]}})),
    ] {
        assert_eq!(reason(&with(name, value.clone())), Some("malformed_claims"), "{name} {value}");
    }
    let many = vec!["http://h/"; MAX_ENDPOINTS + 1];
    assert_eq!(reason(&with("endpoints", json!(many))), Some("too_many_endpoints"));
}

#[test]
fn the_payload_is_an_object() {
    let good = good();
    let values: Vec<&Value> = good.as_object().unwrap().values().collect();
    for payload in [
        "",
        "null",
        "1",
        "\"x\"",
        "[]",
        "{",
        "{}x",
        &json!([good]).to_string(),
        &json!(values).to_string(),
        "\u{feff}{}",
    ] {
        let token = jose::encrypt_compact(payload.as_bytes(), &key(DIGITS)).unwrap();
        assert_eq!(identify(&token).err(), Some(Denial::InvalidCredential("malformed_claims")), "{payload}");
    }
    let deep = jose::encrypt_compact("[".repeat(4000).as_bytes(), &key(DIGITS)).unwrap();
    assert!(identify(&deep).is_err());
    let latin = jose::encrypt_compact(b"{\"did\":\"\xe9\"}", &key(DIGITS)).unwrap();
    assert!(identify(&latin).is_err());
}

#[test]
fn claims_may_be_written_in_these_ways_too() {
    for (name, value) in [
        ("subscriptionDid", json!(format!("0x{}", "22".repeat(32)))),
        ("subscriptionDid", json!("AB".repeat(32))),
        ("userId", json!(USER.to_lowercase())),
        ("owner", Value::Null),
        ("ercType", Value::Null),
        ("ercType", json!(721)),
        ("unknown", json!({"x": 1})),
        ("endpoints", json!(vec!["http://h/"; MAX_ENDPOINTS])),
    ] {
        assert_eq!(reason(&with(name, value.clone())), None, "{name} {value}");
    }
}

#[test]
fn a_bad_endpoint_does_not_void_the_token() {
    let endpoints = |list: &[&str]| -> Vec<String> {
        let identity = identify(&token(&with("endpoints", json!(list)))).unwrap();
        identity.entitlement.as_ref().unwrap().endpoints.iter().map(|endpoint| endpoint.as_str().to_owned()).collect()
    };
    assert_eq!(endpoints(&["http://h/*", "http://h/a", "ftp://h/", "http://h/b"]), ["http://h/a", "http://h/b"]);
    // Genuine, and good for nothing: `authz` answers `no_usable_endpoint`.
    assert_eq!(endpoints(&["http://h/*"]), [""; 0]);
}

#[test]
fn the_upstream_sees_what_its_provider_wants() {
    for (authentication, expected) in [
        (json!({"type": "bearer", "token": "x"}), Some("Bearer x")),
        (json!({"type": "oauth", "token": "x"}), Some("Bearer x")),
        (json!({"type": "bearer"}), Some("Bearer ")),
        (json!({"type": "bearer", "token": null}), Some("Bearer ")),
        (json!({"type": "basic", "username": "user", "password": "password"}), Some("Basic dXNlcjpwYXNzd29yZA==")),
        (json!({"type": "basic", "user": "user", "password": "p"}), Some("Basic dW5kZWZpbmVkOnA=")),
        (json!({"type": "basic"}), Some("Basic dW5kZWZpbmVkOnVuZGVmaW5lZA==")),
        (json!({"type": "basic", "username": "é", "password": "\n"}), Some("Basic w6k6Cg==")),
        (json!({"type": "none"}), None),
        (json!({"type": "none", "token": "x"}), None),
        (json!({"type": "Bearer", "token": "x"}), None),
        (json!({"type": "", "token": "x"}), None),
    ] {
        let claims = with("headers", json!({"authentication": authentication, "headers": [{"X-Key": "ignored"}]}));
        assert_eq!(authorization(&claims).as_deref(), expected, "{authentication}");
    }
}

#[test]
fn a_credential_that_would_write_headers_is_never_sent() {
    for secret in ["x\r\nX-Admin: 1", "x\n", "\rx", "\0", "x\ty", "x\u{7f}", "x\u{85}", "é", "\u{2028}"] {
        for kind in ["bearer", "oauth"] {
            let claims = with("headers", json!({"authentication": {"type": kind, "token": secret}}));
            assert_eq!(reason(&claims), Some("unsendable_credential"), "{secret:?}");
        }
    }
}

#[test]
fn the_back_end_gets_its_own_credential() {
    let origin: Origin = "https://one-backend.example".parse().unwrap();
    let backend = Some((origin, Secret::new("backend-secret".to_owned())));
    let verifier = TokenVerifier::new(vec![key(DIGITS), key(LETTERS)], backend, 100, 8192).unwrap();
    for (token, endpoint, authorization, service_token) in [
        (BEARER, "https://one-backend.example/api/(.*)", Some("Bearer backend-secret"), "backend-secret"),
        (BEARER, "https://one-backend.example:443/", Some("Bearer backend-secret"), "backend-secret"),
        (NONE, "https://one-backend.example/", Some("Bearer backend-secret"), "backend-secret"),
        (BEARER, "http://one-backend.example/", Some("Bearer svc-secret"), "svc-secret"),
        (BEARER, "https://one-backend.example:8443/", Some("Bearer svc-secret"), "svc-secret"),
        (BEARER, "https://one-backend.example.evil/", Some("Bearer svc-secret"), "svc-secret"),
        (NONE, "https://other.example/", None, ""),
    ] {
        let identity = identify_at(&verifier, token, NOW).unwrap();
        let endpoint = Endpoint::parse(endpoint).unwrap();
        let sent = verifier.authorization_for(&identity, &endpoint).map(Secret::expose);
        assert_eq!(sent, authorization, "{endpoint:?}");
        let answered = verifier.service_token_for(&identity, &endpoint).map(Secret::expose);
        assert_eq!(answered, Some(service_token), "{endpoint:?}");
    }
}

#[test]
fn a_back_end_token_that_cannot_be_sent_is_an_error_at_start() {
    for secret in ["x\r\ny", "x\0", "é"] {
        let backend = Some(("http://h".parse().unwrap(), Secret::new(secret.to_owned())));
        assert_eq!(TokenVerifier::new(Vec::new(), backend, 1, 1).err(), Some(UnsendableToken), "{secret:?}");
    }
}

#[test]
fn a_genuine_token_is_verified_once() {
    let verifier = verifier();
    let first = identify_at(&verifier, BEARER, NOW).unwrap();
    let again = identify_at(&verifier, BEARER, NOW).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let other = identify_at(&verifier, BASIC, NOW).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert_eq!(verifier.genuine.len(), 2);
}

#[test]
fn a_remembered_token_opens_for_nobody_else() {
    let verifier = verifier();
    identify_at(&verifier, BEARER, NOW).unwrap();
    for at in 0..BEARER.len() {
        let mut other = BEARER.to_owned();
        other.replace_range(at..=at, if BEARER.as_bytes()[at] == b'A' { "B" } else { "A" });
        assert!(identify_at(&verifier, &other, NOW).is_err(), "byte {at}");
    }
    assert!(identify_at(&verifier, &BEARER[..BEARER.len() - 1], NOW).is_err());
}

#[test]
fn a_remembered_token_is_asked_for_in_good_form() {
    let verifier = verifier();
    identify_at(&verifier, BEARER, NOW).unwrap();
    for scheme in ["", "B\tr", "B\0r", "B\u{e9}r", "\u{7f}"] {
        let value = format!("{scheme} {BEARER}");
        let authorization = Authorization::from_values([value.as_bytes()]).unwrap();
        let identity = verifier.identify(&Presented { authorization }, NOW);
        assert_eq!(identity.unwrap_err(), Denial::InvalidCredential("malformed_authorization"), "{scheme:?}");
    }
}

#[test]
fn only_genuine_tokens_are_remembered() {
    let verifier = verifier();
    let mistaken = token(&with("userId", json!("x")));
    for token in ["a.b.c.d.e", README_1, &mistaken, &BEARER.replace("..A", "..B")] {
        assert!(identify_at(&verifier, token, NOW).is_err());
    }
    assert_eq!(verifier.genuine.len(), 0);
}

#[test]
fn the_memory_for_tokens_is_bounded() {
    let small = TokenVerifier::new(vec![key(DIGITS)], None, 4, 65_536).unwrap();
    let large = json!((0..MAX_ENDPOINTS).map(|n| format!("http://h/:a/{n}")).collect::<Vec<_>>());
    for _ in 0..20 {
        for claims in [good(), with("endpoints", large.clone())] {
            assert!(identify_at(&small, &token(&claims), NOW).is_ok());
            assert!(small.genuine.weight() <= 4 * ORDINARY_ENTRY_BYTES);
        }
    }
    assert!(small.genuine.len() >= 2, "ordinary tokens still fit");
    let none = TokenVerifier::new(vec![key(DIGITS)], None, 0, 65_536).unwrap();
    assert!(identify_at(&none, BEARER, NOW).is_ok());
}

#[test]
fn secrets_do_not_show() {
    for token in [BEARER, BASIC] {
        let shown = format!("{:?}", identify(token).unwrap());
        for secret in ["svc-secret", "dXNlcjpw", "password"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn what_is_issued_here_is_accepted_here() {
    let claims = |authentication| Claims {
        service: Did([1; 32]),
        plan: Did([2; 32]),
        user: USER.parse().unwrap(),
        owner: OWNER.parse().unwrap(),
        erc_type: 1155,
        endpoints: vec!["http://h/(.*)".to_owned()],
        authentication,
        issued_at: Some(NOW),
        not_before: Some(NOW),
        expires_at: Some(NOW.plus(std::time::Duration::from_secs(1))),
    };
    for (authentication, sent) in [
        (Authentication::None, None),
        (Authentication::Bearer(Secret::new("x".to_owned())), Some("Bearer x")),
        (
            Authentication::Basic { username: "user".to_owned(), password: Secret::new("password".to_owned()) },
            Some("Basic dXNlcjpwYXNzd29yZA=="),
        ),
    ] {
        let token = issue(&claims(authentication), &key(DIGITS)).unwrap();
        let identity = identify(&token).unwrap();
        let entitlement = identity.entitlement.as_ref().unwrap();
        assert_eq!((entitlement.service, entitlement.plan), (Did([1; 32]), Did([2; 32])));
        assert_eq!((&*entitlement.user_id, &*entitlement.owner), (USER, OWNER));
        assert_eq!(entitlement.upstream_credential.authorization.as_ref().map(Secret::expose), sent);
        assert_eq!(identity.not_before, Some(NOW));
        assert_eq!(
            identify_at(&verifier(), &token, Timestamp(NOW.0 + 1)).err(),
            Some(Denial::InvalidCredential("expired"))
        );
    }
    let forever = Claims { expires_at: None, not_before: None, issued_at: None, ..claims(Authentication::None) };
    let identity = identify(&issue(&forever, &key(DIGITS)).unwrap()).unwrap();
    assert_eq!((identity.issued_at, identity.not_before, identity.expires_at), (None, None, None));
}
