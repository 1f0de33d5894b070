//! JWE. Of all of it we need one shape: compact, `alg` = `dir`, `enc` = `A128CBC-HS256` (RFC 7516 §7.1, RFC 7518 §4.5 and
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
mod tests;
