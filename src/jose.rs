//! JOSE: the only file that names josekit.
//!
//! Of all of JWE we need one shape: compact, `alg` = `dir`, `enc` = `A128CBC-HS256` (RFC 7516 §7.1, RFC 7518 §4.5 and
//! §5.2.3). The header of a token is read to refuse it, never to choose an algorithm. josekit's own reader of compact
//! tokens is not used: it decrypts before it authenticates, compares tags with `==`, unpacks `zip` and panics on a token
//! without an initialisation vector.

use std::hint::black_box;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::{
    jwe::{JweContentEncryption as _, enc::A128CBC_HS256},
    jws::{HS256, JwsSigner as _},
    util::random_bytes,
};
use serde::{Deserialize, de::IgnoredAny};
use zeroize::Zeroizing;

use crate::model::key::ContentKey;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// `{"alg":"dir","enc":"A128CBC-HS256"}`: what the issuer writes, always.
const HEADER: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0";
const IV_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;

/// Why a token cannot be opened. Nothing of the token or the keys is in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JweError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// Not five parts of base64url (RFC 7516 §7.1), or parts whose lengths the algorithm does not produce.
    #[error("this is not a JWE in compact form")]
    NotCompact,
    /// The first part is not a JSON object with `alg` and `enc`.
    #[error("the token's header is not a JWE header")]
    Header,
    /// Another `alg` than `dir`.
    #[error("the token's key management algorithm is not dir")]
    Algorithm,
    /// Another `enc` than `A128CBC-HS256`.
    #[error("the token's encryption is not A128CBC-HS256")]
    Encryption,
    /// A `zip` header: a small token must not become a large one.
    #[error("the token is compressed")]
    Compressed,
    /// A `crit` header: we understand no extension (RFC 7516 §4.1.13).
    #[error("the token has critical extensions")]
    Critical,
    /// With `dir` there is no encrypted key (RFC 7518 §4.5).
    #[error("the token has an encrypted key")]
    EncryptedKey,
    /// No key of ours made this token, or somebody changed it since.
    #[error("no key opens the token")]
    WrongKey,
    /// A key of ours authenticates the token, and yet it does not decrypt: its maker made a mistake.
    #[error("the token is authentic and does not decrypt")]
    Ciphertext,
    /// The cryptographic library failed: it is not the token's fault.
    #[error("the cryptographic library failed")]
    Library,
}

impl JweError {
    /// The metric label and the `reason` field of the access log. Operators build alerts on these: never rename one.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::NotCompact => "malformed_token",
            Self::Header => "malformed_token_header",
            Self::Algorithm => "token_algorithm",
            Self::Encryption => "token_encryption",
            Self::Compressed => "token_compressed",
            Self::Critical => "token_critical_header",
            Self::EncryptedKey => "token_encrypted_key",
            Self::WrongKey => "wrong_key",
            Self::Ciphertext => "malformed_ciphertext",
            Self::Library => "cryptography_failed",
        }
    }
}

/// Opens a token with the first key that fits. A token that a key does not authenticate is not decrypted with it.
///
/// # Errors
/// When the token is not of the one shape, or no key opens it.
pub fn decrypt_compact(token: &str, keys: &[ContentKey]) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let parts = Parts::split(token)?;
    for key in keys {
        let expected = tag(key, parts.header.as_bytes(), &parts.iv, &parts.ciphertext)?;
        if same(&expected, &parts.tag) {
            return A128CBC_HS256
                .decrypt(key.as_bytes(), Some(&parts.iv), &parts.ciphertext, parts.header.as_bytes(), Some(&parts.tag))
                .map(Zeroizing::new)
                .map_err(|_| JweError::Ciphertext);
        }
    }
    Err(JweError::WrongKey)
}

/// Makes a token of the one shape, with a random initialisation vector.
///
/// # Errors
/// When the cryptographic library fails.
pub fn encrypt_compact(plaintext: &[u8], key: &ContentKey) -> Result<String, JweError> {
    let iv = random_bytes(IV_BYTES);
    let (ciphertext, tag) = A128CBC_HS256
        .encrypt(key.as_bytes(), Some(&iv), plaintext, HEADER.as_bytes())
        .map_err(|_| JweError::Library)?;
    let tag = tag.ok_or(JweError::Library)?;
    let [iv, ciphertext, tag] = [iv, ciphertext, tag].map(|part| URL_SAFE_NO_PAD.encode(part));
    Ok(format!("{HEADER}..{iv}.{ciphertext}.{tag}"))
}

/// A token taken apart, with everything about it checked that needs no key.
struct Parts<'a> {
    header: &'a str,
    iv: [u8; IV_BYTES],
    ciphertext: Vec<u8>,
    tag: [u8; TAG_BYTES],
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, JweError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JweError::TooLong);
        }
        let mut parts = token.split('.');
        let mut part = || parts.next().ok_or(JweError::NotCompact);
        let (header, encrypted_key, iv, ciphertext, tag) = (part()?, part()?, part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(JweError::NotCompact);
        }
        if header != HEADER {
            check_header(header)?;
        }
        if !encrypted_key.is_empty() {
            return Err(JweError::EncryptedKey);
        }
        let ciphertext = decode(ciphertext)?;
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK_BYTES) {
            return Err(JweError::NotCompact);
        }
        Ok(Self { header, iv: fixed(iv)?, ciphertext, tag: fixed(tag)? })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, JweError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JweError::NotCompact)
}

fn fixed<const N: usize>(part: &str) -> Result<[u8; N], JweError> {
    decode(part)?.try_into().map_err(|_| JweError::NotCompact)
}

/// Accepts a header that says the same in other words: members in another order, or such that change nothing (`typ`).
fn check_header(part: &str) -> Result<(), JweError> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        enc: String,
        #[serde(default)]
        zip: Present,
        #[serde(default)]
        crit: Present,
    }

    #[derive(Default)]
    struct Present(bool);

    impl<'de> Deserialize<'de> for Present {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            IgnoredAny::deserialize(deserializer).map(|_| Self(true))
        }
    }

    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| JweError::Header)?;
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(JweError::Header);
    }
    let header: Header = serde_json::from_slice(&json).map_err(|_| JweError::Header)?;
    match header {
        Header { alg, .. } if alg != "dir" => Err(JweError::Algorithm),
        Header { enc, .. } if enc != "A128CBC-HS256" => Err(JweError::Encryption),
        Header { zip: Present(true), .. } => Err(JweError::Compressed),
        Header { crit: Present(true), .. } => Err(JweError::Critical),
        Header { .. } => Ok(()),
    }
}

/// The authentication tag: the first half of an HMAC-SHA-256 (RFC 7518 §5.2.2.1).
fn tag(key: &ContentKey, header: &[u8], iv: &[u8], ciphertext: &[u8]) -> Result<[u8; TAG_BYTES], JweError> {
    // josekit wants at least 32 bytes of HMAC key and ours has 16. HMAC itself fills a key with zeros (RFC 2104 §2), so
    // sixteen zeros more are the same key.
    let mut mac_key = Zeroizing::new([0; 32]);
    for (to, from) in mac_key.iter_mut().zip(key.as_bytes().iter().take(16)) {
        *to = *from;
    }
    let header_bits = u64::try_from(header.len()).unwrap_or(u64::MAX).saturating_mul(8).to_be_bytes();
    let authenticated = [header, iv, ciphertext, &header_bits].concat();
    let signer = HS256.signer_from_bytes(mac_key.as_slice()).map_err(|_| JweError::Library)?;
    let mac = signer.sign(&authenticated).map_err(|_| JweError::Library)?;
    mac.first_chunk().copied().ok_or(JweError::Library)
}

/// Compares without telling by the time it takes where the first difference is.
fn same(one: &[u8; TAG_BYTES], other: &[u8; TAG_BYTES]) -> bool {
    black_box(one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other))) == 0
}

#[cfg(test)]
pub(crate) mod vectors;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{vectors::*, *};

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
            let [iv, ciphertext, tag] =
                [vec![1; 16], ciphertext, tag.unwrap()].map(|part| URL_SAFE_NO_PAD.encode(part));
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
}
