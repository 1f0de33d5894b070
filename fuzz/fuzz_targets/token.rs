//! A token opens with the key that made it and no other way, and nothing a stranger sends is worse than refused.
#![no_main]

use std::{str, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use tollgate::{
    jose::{decrypt_compact, encrypt_compact},
    model::key::ContentKey,
};

/// The first key opens the tokens of the corpus.
static KEYS: LazyLock<[ContentKey; 2]> = LazyLock::new(|| {
    ["12345678901234567890123456789012", "31415926535897932384626433832795"]
        .map(|phrase| ContentKey::from_phrase(phrase).expect("a phrase of 32 characters"))
});

fuzz_target!(|input: &[u8]| {
    if let Ok(token) = str::from_utf8(input) {
        let _ = decrypt_compact(token, &*KEYS);
    }

    // The same bytes as the content of a token: what goes in comes out.
    let [first, second] = &*KEYS;
    let token = encrypt_compact(input, second).expect("encryption does not fail");
    if token.len() <= tollgate::jose::MAX_TOKEN_BYTES {
        assert_eq!(decrypt_compact(&token, &*KEYS).expect("our own token").as_slice(), input);
    }
    assert!(decrypt_compact(&token, std::slice::from_ref(first)).is_err(), "opened with the wrong key");
});
