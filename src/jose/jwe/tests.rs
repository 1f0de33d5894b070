//! Tokens open with the key that made them, and no other way.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::vectors::*, *};

fn key(phrase: &str) -> ContentKey {
    ContentKey::from_phrase(phrase).unwrap()
}

fn open(token: &str, phrases: &[&str]) -> Result<Value, JweError> {
    let keys: Vec<ContentKey> = phrases.iter().map(|phrase| key(phrase)).collect();
    decrypt_compact(token, &keys).map(|payload| serde_json::from_slice(&payload).unwrap())
}

fn with_header(token: &str, header: &str) -> String {
    format!("{}{}", URL_SAFE_NO_PAD.encode(header), token.strip_prefix(HEADER).unwrap())
}

#[test]
fn the_published_tokens_open() {
    let bearer = json!({"authentication": {"type": "bearer", "token": "svc-secret"}});
    let basic = json!({"authentication": {"type": "basic", "username": "user", "password": "password"}});
    let none = json!({"authentication": {"type": "none"}});
    let legacy = json!([{"authorization": "Bearer new_authorization_token"}]);
    for (token, phrase, headers, exp) in [
        (README_1, DIGITS, &legacy, 1_677_170_970),
        (README_2, LETTERS, &legacy, 1_677_087_002),
        (BEARER, DIGITS, &bearer, 4_102_444_800_i64),
        (BASIC, DIGITS, &basic, 4_102_444_800),
        (NONE, LETTERS, &none, 4_102_444_800),
    ] {
        let claims = open(token, &[phrase]).unwrap();
        assert_eq!((&claims["headers"], &claims["exp"]), (headers, &json!(exp)));
    }
    let claims = open(README_1, &[DIGITS]).unwrap();
    assert_eq!(claims["endpoints"], json!(["http://127.0.0.1:3000"]));
    assert_eq!(claims["iat"], json!(1_676_566_170));
}

#[test]
fn any_of_several_keys_opens() {
    assert!(open(BEARER, &[LETTERS, DIGITS]).is_ok());
    assert!(open(NONE, &[DIGITS, LETTERS]).is_ok());
    assert_eq!(open(NONE, &[DIGITS]), Err(JweError::WrongKey));
    assert_eq!(open(BEARER, &[LETTERS, &DIGITS.replace('9', "8")]), Err(JweError::WrongKey));
    assert_eq!(open(BEARER, &[]), Err(JweError::WrongKey));
}

#[test]
fn what_is_made_here_opens_and_never_looks_alike() {
    let key = key(DIGITS);
    for length in [0, 1, 15, 16, 17, 1000] {
        let plaintext = vec![7; length];
        let (one, other) = (encrypt_compact(&plaintext, &key).unwrap(), encrypt_compact(&plaintext, &key).unwrap());
        assert!(one.starts_with(HEADER));
        assert_ne!(one, other);
        assert_eq!(*decrypt_compact(&one, std::slice::from_ref(&key)).unwrap(), plaintext);
    }
}

#[test]
fn a_header_in_other_words_is_the_same_header() {
    // The header is authenticated as it is written, so these are made from scratch.
    for header in
        [r#"{"enc":"A128CBC-HS256","alg":"dir"}"#, r#" { "alg" : "dir", "enc" : "A128CBC-HS256", "typ" : "JWT" } "#]
    {
        let header = URL_SAFE_NO_PAD.encode(header);
        let key = key(DIGITS);
        let (ciphertext, tag) =
            A128CBC_HS256.encrypt(key.as_bytes(), Some(&[1; 16]), b"{}", header.as_bytes()).unwrap();
        let [iv, ciphertext, tag] = [vec![1; 16], ciphertext, tag.unwrap()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let token = format!("{header}..{iv}.{ciphertext}.{tag}");
        assert_eq!(decrypt_compact(&token, &[key]).unwrap().as_slice(), b"{}");
    }
}

#[test]
fn a_header_that_says_something_else_is_refused_before_any_cryptography() {
    for (header, error) in [
        (r#"{"alg":"A256KW","enc":"A128CBC-HS256"}"#, JweError::Algorithm),
        (r#"{"alg":"none","enc":"A128CBC-HS256"}"#, JweError::Algorithm),
        (r#"{"alg":"DIR","enc":"A128CBC-HS256"}"#, JweError::Algorithm),
        (r#"{"alg":"dir","enc":"A256GCM"}"#, JweError::Encryption),
        (r#"{"alg":"dir","enc":"A256CBC-HS512"}"#, JweError::Encryption),
        (r#"{"alg":"dir","enc":"A128GCM"}"#, JweError::Encryption),
        (r#"{"alg":"dir","enc":"A128CBC-HS256","zip":"DEF"}"#, JweError::Compressed),
        (r#"{"alg":"dir","enc":"A128CBC-HS256","zip":null}"#, JweError::Compressed),
        (r#"{"alg":"dir","enc":"A128CBC-HS256","crit":["x"],"x":1}"#, JweError::Critical),
        (r#"{"alg":"dir","enc":"A256GCM","enc":"A128CBC-HS256"}"#, JweError::Header),
        (r#"{"alg":"dir"}"#, JweError::Header),
        (r#"{"enc":"A128CBC-HS256"}"#, JweError::Header),
        (r#"{"alg":1,"enc":"A128CBC-HS256"}"#, JweError::Header),
        (r#"["dir","A128CBC-HS256"]"#, JweError::Header),
        ("{}", JweError::Header),
        ("", JweError::Header),
        ("dir", JweError::Header),
    ] {
        assert_eq!(open(&with_header(BEARER, header), &[DIGITS]), Err(error), "{header}");
    }
    assert_eq!(open(&BEARER.replacen('e', "=", 1), &[DIGITS]), Err(JweError::Header));
}

#[test]
fn a_token_in_another_algorithm_is_refused_although_the_key_fits() {
    use josekit::jwe::{Dir, JweHeader, serialize_compact};
    let key = key(DIGITS);
    let encrypter = Dir.encrypter_from_bytes(key.as_bytes()).unwrap();
    let make = |encryption: &str, zip: Option<&str>| {
        let mut header = JweHeader::new();
        header.set_content_encryption(encryption);
        if let Some(zip) = zip {
            header.set_compression(zip);
        }
        serialize_compact(br#"{"a":1}"#, &header, &encrypter).unwrap()
    };
    let keys = std::slice::from_ref(&key);
    assert!(decrypt_compact(&make("A128CBC-HS256", None), keys).is_ok());
    assert_eq!(decrypt_compact(&make("A256GCM", None), keys).unwrap_err(), JweError::Encryption);
    assert_eq!(decrypt_compact(&make("A128CBC-HS256", Some("DEF")), keys).unwrap_err(), JweError::Compressed);
}

#[test]
fn a_token_of_another_shape_is_refused() {
    let parts: Vec<&str> = BEARER.split('.').collect();
    let [header, _, iv, ciphertext, tag] = parts[..] else { panic!("five parts") };
    let short_iv = URL_SAFE_NO_PAD.encode([0; 12]);
    let long_tag = URL_SAFE_NO_PAD.encode([0; 32]);
    let odd = URL_SAFE_NO_PAD.encode([0; 17]);
    for (token, error) in [
        (String::new(), JweError::NotCompact),
        ("....".to_owned(), JweError::Header),
        (format!("{header}...."), JweError::NotCompact),
        (format!("{header}..{iv}.{ciphertext}"), JweError::NotCompact),
        (format!("{BEARER}."), JweError::NotCompact),
        (format!("{BEARER}.x"), JweError::NotCompact),
        (format!("{header}.AAAA.{iv}.{ciphertext}.{tag}"), JweError::EncryptedKey),
        (format!("{header}...{ciphertext}.{tag}"), JweError::NotCompact), // this one makes josekit panic
        (format!("{header}..{short_iv}.{ciphertext}.{tag}"), JweError::NotCompact),
        (format!("{header}..{iv}..{tag}"), JweError::NotCompact),
        (format!("{header}..{iv}.{odd}.{tag}"), JweError::NotCompact),
        (format!("{header}..{iv}.{ciphertext}."), JweError::NotCompact),
        (format!("{header}..{iv}.{ciphertext}.{long_tag}"), JweError::NotCompact),
        (format!("{header}..{iv}.{ciphertext}.{}", &tag[..10]), JweError::NotCompact),
        (format!("{header}..{iv}.{ciphertext}.{tag}=="), JweError::NotCompact),
        (format!("{header}..{iv}.{ciphertext}.{}h", &tag[..21]), JweError::NotCompact), // unused bits
        (format!("{header}..{iv}.+{}.{tag}", &ciphertext[1..]), JweError::NotCompact),
        (format!("{header}..{tag}.{ciphertext}.{iv}"), JweError::WrongKey),
        (format!("{iv}..{header}.{ciphertext}.{tag}"), JweError::Header),
        (format!("{header}..{iv}.{}.{tag}", &ciphertext[..ciphertext.len() - 64]), JweError::WrongKey),
        (format!(" {BEARER}"), JweError::Header),
        (BEARER.to_uppercase(), JweError::Header),
    ] {
        assert_eq!(open(&token, &[DIGITS]), Err(error), "{token}");
    }
    assert_eq!(open(&"a".repeat(MAX_TOKEN_BYTES + 1), &[DIGITS]), Err(JweError::TooLong));
}

#[test]
fn every_prefix_of_a_token_is_refused() {
    for length in 0..BEARER.len() {
        assert!(open(&BEARER[..length], &[DIGITS]).is_err(), "{length}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let flipped = |at: usize, bit: u32| {
        let mut bytes = BEARER.as_bytes().to_vec();
        bytes[at] ^= 1 << bit;
        String::from_utf8(bytes).ok()
    };
    for at in 0..BEARER.len() {
        for bit in 0..7 {
            if let Some(token) = flipped(at, bit) {
                assert!(open(&token, &[DIGITS]).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn what_is_not_authentic_is_not_decrypted() {
    let key = key(DIGITS);
    let [iv, ciphertext] = [vec![0; 16], vec![0; 32]];
    let tag = tag(&key, HEADER.as_bytes(), &iv, &ciphertext).unwrap();
    let mut wrong = tag;
    wrong[15] ^= 1;
    let token = |tag: [u8; 16]| {
        let [iv, ciphertext, tag] = [&iv[..], &ciphertext, &tag].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{HEADER}..{iv}.{ciphertext}.{tag}")
    };
    let open = |tag| decrypt_compact(&token(tag), std::slice::from_ref(&key)).unwrap_err();
    assert_eq!(open(tag), JweError::Ciphertext);
    assert_eq!(open(wrong), JweError::WrongKey, "the padding was looked at before the tag");
}

#[test]
fn every_refusal_has_a_word_of_its_own() {
    use JweError as E;
    let all = [
        E::TooLong,
        E::NotCompact,
        E::Header,
        E::Algorithm,
        E::Encryption,
        E::Compressed,
        E::Critical,
        E::EncryptedKey,
        E::WrongKey,
        E::Ciphertext,
        E::Library,
    ];
    let words: std::collections::BTreeSet<_> = all.iter().map(|error| error.reason()).collect();
    assert_eq!(words.len(), all.len());
}

proptest! {
    #[test]
    fn any_text_is_refused(text: String, tail in "[A-Za-z0-9_.-]{0,80}") {
        let keys = [key(DIGITS)];
        prop_assert!(decrypt_compact(&text, &keys).is_err());
        let token = format!("{HEADER}.{tail}");
        prop_assert!(decrypt_compact(&token, &keys).is_err());
    }

    #[test]
    fn any_plaintext_comes_back(plaintext: Vec<u8>, bytes: [u8; 32]) {
        let phrase: String = bytes.iter().map(|byte| char::from(b'0' + byte % 10)).collect();
        let keys = [key(&phrase)];
        prop_assert_eq!(&*decrypt_compact(&encrypt_compact(&plaintext, &keys[0]).unwrap(), &keys).unwrap(), &plaintext);
    }
}
