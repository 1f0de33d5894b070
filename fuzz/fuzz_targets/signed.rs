//! Whatever a stranger writes into the headers of a signed request, it is refused, or it is not a signature at all.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use tollgate::{
    authn::signed::{Protocol, Sent, presented},
    config::SignedRequests,
};

const NAMES: [&str; 15] = [
    "x-bittensor-version",
    "x-bittensor-hotkey",
    "x-bittensor-receiver",
    "x-bittensor-nonce",
    "x-bittensor-crypto",
    "x-bittensor-signature",
    "epistula-version",
    "epistula-timestamp",
    "epistula-uuid",
    "epistula-signed-by",
    "epistula-signed-for",
    "epistula-request-signature",
    "x-epistula-timestamp",
    "x-epistula-signature",
    "x-epistula-hotkey",
];

// Lines: the first byte says which header, the rest is its value.
fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some((first, value)) = line.split_first() else { continue };
        let name = HeaderName::from_static(NAMES[usize::from(*first) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let terms = SignedRequests {
        receivers: vec!["5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty".parse().expect("a hotkey")],
        require_receiver: false,
        max_age: std::time::Duration::from_secs(10),
        epistula_max_age: std::time::Duration::from_secs(8),
        max_skew: std::time::Duration::from_secs(2),
        max_body_bytes: 0,
        max_held_bytes: 0,
        replay: None,
    };
    // Nobody has signed this body.
    let sent = Sent { method: &Method::POST, target: b"/", body_sha256: &[7; 32] };
    for protocol in [Protocol::Btauth, Protocol::Epistula, Protocol::EpistulaLite] {
        if let Ok(Some(claim)) = presented(&headers, protocol) {
            for now in [0, 1_767_225_601_623_456_789, i128::from(u64::MAX)] {
                assert!(claim.verify(&sent, &terms, now).is_err(), "a forgery counts");
            }
        }
    }
});
