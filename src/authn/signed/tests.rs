use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

fn terms() -> SignedRequests {
    SignedRequests {
        receivers: vec![BOB.parse().unwrap()],
        require_receiver: true,
        max_age: Duration::from_secs(10),
        epistula_max_age: Duration::from_secs(8),
        max_skew: Duration::from_secs(2),
        max_body_bytes: 1 << 20,
        max_held_bytes: 1 << 20,
        replay: None,
    }
}

fn vectors() -> serde_json::Map<String, Value> {
    let text = include_str!("../../../tests/data/nexus/headers.json");
    let Value::Object(all) = serde_json::from_str(text).unwrap() else { panic!("an object") };
    all
}

fn vector(name: &str) -> Value {
    vectors().remove(name).unwrap_or_else(|| panic!("there is no vector {name}"))
}

fn headers(vector: &Value) -> HeaderMap {
    let fields = vector["headers"].as_object().unwrap().iter();
    fields
        .map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value.as_str().unwrap()).unwrap())
        })
        .collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let mut bytes = vec![0; hex.len() / 2];
    hex_decode(hex, &mut bytes).unwrap();
    bytes
}

fn now(vector: &Value) -> i128 {
    match (&vector["now_ns"], &vector["now_ms"]) {
        (Value::Number(nanos), _) => nanos.as_i64().unwrap().into(),
        (_, Value::Number(millis)) => i128::from(millis.as_i64().unwrap()) * 1_000_000,
        // The dialect's vector has no clock: the second in which it was signed.
        _ => 1_767_225_600_000_000_000,
    }
}

/// What a gateway would say to it as Bob.
fn judge(name: &str, vector: &Value, terms: &SignedRequests) -> Result<Verified, Denial> {
    let protocol = match name {
        name if name.starts_with("btauth") => Protocol::Btauth,
        name if name.starts_with("epistula") => Protocol::Epistula,
        _ => Protocol::EpistulaLite,
    };
    let claim = presented(&headers(vector), protocol)?.expect("headers of the protocol");
    let method = vector["method"].as_str().unwrap_or("POST").parse().unwrap();
    let target = vector["target"].as_str().unwrap_or("/");
    let body_sha256 = Sha256::digest(bytes(vector["body_hex"].as_str().unwrap())).into();
    claim.verify(&Sent { method: &method, target: target.as_bytes(), body_sha256: &body_sha256 }, terms, now(vector))
}

#[test]
fn the_published_vectors_are_judged_as_published() {
    let verdicts = [
        ("btauth_sr25519", Ok(())),
        ("btauth_ed25519", Ok(())),
        ("btauth_get_empty_body", Ok(())),
        ("btauth_unbound", Err("wrong_receiver")),
        ("btauth_other_receiver", Err("wrong_receiver")),
        ("btauth_tampered_body", Err("bad_signature")),
        ("btauth_tampered_target", Err("bad_signature")),
        ("btauth_normalised_target", Err("bad_signature")),
        ("btauth_stale", Err("stale")),
        ("btauth_edge_old", Ok(())),
        ("btauth_future", Err("from_the_future")),
        ("btauth_edge_future", Ok(())),
        ("btauth_scheme_confusion", Err("bad_signature")),
        ("btauth_missing_signature", Err("malformed_signature_headers")),
        ("btauth_version_2", Err("unsupported_version")),
        ("btauth_replay", Ok(())),
        ("epistula_v2", Ok(())),
        ("epistula_v2_no_signed_for", Err("wrong_receiver")),
        ("epistula_v2_bytes_wrapped", Err("bad_signature")),
        ("epistula_v2_tampered_body", Err("bad_signature")),
        ("epistula_v2_stale", Err("stale")),
        ("epistula_v2_future", Err("from_the_future")),
        ("epistula_v2_replayed_uuid", Ok(())),
        ("x_epistula_lite", Ok(())),
    ];
    let judged: BTreeSet<&str> = verdicts.iter().map(|(name, _)| *name).collect();
    for (name, vector) in vectors() {
        // Dendrite's headers are the upstream's to read.
        if vector.is_object() && !name.starts_with("dendrite") {
            assert!(judged.contains(name.as_str()), "{name} is not judged");
        }
    }
    for (name, expected) in verdicts {
        let vector = vector(name);
        let sender = ["X-Bittensor-Hotkey", "Epistula-Signed-By", "X-Epistula-Hotkey"];
        let sender = sender.iter().find_map(|field| vector["headers"][field].as_str()).unwrap();
        let verdict = judge(name, &vector, &terms());
        let verdict = verdict.map(|it| assert_eq!(it.identity.subject, Subject::Hotkey(sender.parse().unwrap())));
        assert_eq!(verdict.map_err(|denial| denial.reason()), expected, "{name}");
    }
}

#[test]
fn an_unbound_request_is_taken_where_the_operator_says_so() {
    let lenient = SignedRequests { require_receiver: false, ..terms() };
    for name in ["btauth_unbound", "epistula_v2_no_signed_for"] {
        assert!(judge(name, &vector(name), &lenient).is_ok(), "{name}");
    }
    let other = judge("btauth_other_receiver", &vector("btauth_other_receiver"), &lenient);
    assert_eq!(other.unwrap_err().reason(), "wrong_receiver", "somebody else's stays somebody else's");
}

#[test]
fn a_request_has_one_name_and_another_request_another() {
    let nonce = |name: &str| judge(name, &vector(name), &terms()).unwrap().nonce;
    assert_eq!(nonce("btauth_sr25519").id, nonce("btauth_replay").id);
    assert_eq!(nonce("epistula_v2").id, nonce("epistula_v2_replayed_uuid").id);
    let different: BTreeSet<_> =
        ["btauth_sr25519", "btauth_ed25519", "epistula_v2", "x_epistula_lite"].map(|name| nonce(name).id).into();
    assert_eq!(different.len(), 4);
    let nonce = nonce("btauth_sr25519");
    assert_eq!(nonce.signed_at_micros, 1_767_225_600_123_456);
    let longest = now(&vector("btauth_sr25519")) + 12_000_000_000;
    assert!(i128::from(nonce.until_micros) * 1000 >= longest, "remembered for age and skew");
}

#[test]
fn every_header_is_there_once_and_says_something() {
    for name in ["btauth_sr25519", "btauth_ed25519", "epistula_v2", "x_epistula_lite"] {
        let good = vector(name);
        let fields: Vec<String> = good["headers"].as_object().unwrap().keys().cloned().collect();
        for field in fields.iter().filter(|field| !field.starts_with("Epistula-Secret")) {
            let lower: HeaderName = field.parse().unwrap();
            let mut twice = headers(&good);
            twice.append(&lower, twice[&lower].clone());
            let mut gone = headers(&good);
            gone.remove(&lower);
            let mut empty = headers(&good);
            empty.insert(&lower, HeaderValue::from_static(""));
            let mut long = headers(&good);
            long.insert(&lower, HeaderValue::from_str(&"1".repeat(10_000)).unwrap());
            for (what, headers) in [("twice", twice), ("gone", gone), ("empty", empty), ("long", long)] {
                let protocol = [Protocol::Btauth, Protocol::Epistula, Protocol::EpistulaLite];
                let protocol = *protocol.iter().find(|protocol| protocol.is_in(&headers)).unwrap();
                let read = presented(&headers, protocol).and_then(|claim| claim.unwrap().check(&terms(), now(&good)));
                // Two headers may be left out: the receiver, which is refused later, and the scheme.
                let may_be_missing = what == "gone" && field == "X-Bittensor-Crypto";
                assert_eq!(read.is_ok(), may_be_missing, "{name} {field} {what}: {read:?}");
            }
        }
    }
}

#[test]
fn without_any_of_the_headers_nothing_is_presented() {
    let mut headers = HeaderMap::new();
    headers.insert("x-bittensor-timestamp", HeaderValue::from_static("1"));
    headers.insert("epistula-secret-signature-0", HeaderValue::from_static("1"));
    for protocol in [Protocol::Btauth, Protocol::Epistula, Protocol::EpistulaLite] {
        assert!(presented(&headers, protocol).unwrap().is_none());
    }
}

#[test]
fn numbers_and_senders_have_one_spelling() {
    for (name, field, value) in [
        ("btauth_sr25519", "X-Bittensor-Nonce", "+1767225600123456789"),
        ("btauth_sr25519", "X-Bittensor-Nonce", "1767225600123456789.0"),
        ("btauth_sr25519", "X-Bittensor-Nonce", "1_767_225_600_123_456"),
        ("btauth_sr25519", "X-Bittensor-Nonce", "001767225600123456789"),
        ("btauth_sr25519", "X-Bittensor-Nonce", "-1"),
        ("btauth_sr25519", "X-Bittensor-Nonce", "0x18"),
        ("btauth_sr25519", "X-Bittensor-Version", "01"),
        ("btauth_sr25519", "X-Bittensor-Hotkey", "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5"),
        ("btauth_sr25519", "X-Bittensor-Crypto", "SR25519"),
        ("btauth_sr25519", "X-Bittensor-Crypto", "ecdsa"),
        ("epistula_v2", "Epistula-Timestamp", "1767225600.123"),
        ("epistula_v2", "Epistula-Uuid", "3f0f3d0a7c5e4a7b9b431f3f0f2c9a10"),
        ("epistula_v2", "Epistula-Uuid", "3f0f3d0a-7c5e-4a7b-9b43-1f3f0f2c9a1."),
        ("epistula_v2", "Epistula-Version", "1"),
    ] {
        let mut vector = vector(name);
        vector["headers"][field] = value.into();
        let refused = judge(name, &vector, &terms()).map(|_| ()).unwrap_err().reason();
        assert!(
            matches!(refused, "malformed_signature_headers" | "unsupported_version"),
            "{field}: {value}: {refused}"
        );
    }
}

#[test]
fn a_time_is_read_in_the_unit_of_its_protocol() {
    // Twenty digits of nanoseconds are in the year 5138; sums with them must not overflow.
    let mut far = vector("epistula_v2");
    far["headers"]["Epistula-Timestamp"] = "99999999999999999999".into();
    assert_eq!(judge("epistula_v2", &far, &terms()).unwrap_err().reason(), "from_the_future");
    let lite = |stamp: &str| {
        let mut vector = vector("x_epistula_lite");
        vector["headers"]["X-Epistula-Timestamp"] = stamp.into();
        judge("x_epistula_lite", &vector, &terms()).map(|_| ()).unwrap_err().reason()
    };
    // In nanoseconds it is of now, and then the signature is over something else.
    assert_eq!(lite("1767225600000000000"), "bad_signature");
    assert_eq!(lite("1767225601"), "bad_signature");
    assert_eq!(lite("1767225600000"), "stale", "milliseconds are read as nanoseconds");
    assert_eq!(lite("1767225603"), "from_the_future");
}

proptest! {
    #[test]
    fn nothing_a_stranger_writes_is_worse_than_refused(
        values in proptest::collection::vec((0..15_usize, "[ -~]{0,60}"), 0..12),
        seconds in 0..4_000_000_000_i64,
    ) {
        let names: Vec<&str> =
            btauth::NAMES.iter().chain(&epistula::NAMES).chain(&epistula::LITE_NAMES).copied().collect();
        let mut headers = HeaderMap::new();
        for (name, value) in &values {
            headers.append(names[*name], HeaderValue::from_str(value).unwrap());
        }
        let sent = Sent { method: &Method::GET, target: b"/", body_sha256: &[0; 32] };
        for protocol in [Protocol::Btauth, Protocol::Epistula, Protocol::EpistulaLite] {
            if let Ok(Some(claim)) = presented(&headers, protocol) {
                let verdict = claim.verify(&sent, &terms(), i128::from(seconds) * 1_000_000_000);
                prop_assert!(verdict.is_err());
            }
        }
    }
}
