//! Signed tokens: JWS in compact form (RFC 7515 §7.1).
//!
//! The header of a token is read to find the key by its name and to refuse what we do not understand; which algorithm is
//! used is the key's business. The type (`typ`) must be one that the caller expects, so that a token of one kind
//! cannot be taken for one of another (RFC 8725 §3.11).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::SigningKey;

/// The longest token that is looked at, in bytes.
pub const MAX_SIGNED_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token is not accepted. Nothing of the token or the keys is in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than [`MAX_SIGNED_TOKEN_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url, or a part that is not what it should be.
    #[error("this is not a JWS in compact form")]
    Malformed,
    /// Another `typ` than the ones expected.
    #[error("the token is of another type")]
    Type,
    /// A `crit` header: we understand no extension (RFC 7515 §4.1.11).
    #[error("the token has critical extensions")]
    Critical,
    /// No key of this name, or the header names another algorithm than the key's.
    #[error("no such key")]
    UnknownKey,
    /// Not signed by the key that it names.
    #[error("the signature is wrong")]
    Signature,
    /// Signed, and what is signed is not what the caller can read.
    #[error("the claims cannot be read")]
    Claims,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Library,
}

impl JwsError {
    /// The word in the log and the metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "malformed_token",
            Self::Type => "token_type",
            Self::Critical => "token_critical_header",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "wrong_signature",
            Self::Claims => "malformed_claims",
            Self::Library => "cryptography_failed",
        }
    }
}

/// What was signed, and by which key.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    /// What it says.
    pub claims: T,
    /// The `typ` of its header, in lower case; empty if it has none.
    pub typ: String,
    /// The key's name.
    pub kid: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default)]
    typ: String,
    crit: Option<Value>,
}

impl SigningKey {
    /// Signs claims: `{"alg":…,"typ":…,"kid":…}` and the claims as JSON.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign_compact(&self, typ: &str, claims: &impl Serialize) -> Result<String, JwsError> {
        let header = format!(r#"{{"alg":"{}","typ":"{typ}","kid":"{}"}}"#, self.algorithm().as_str(), self.kid());
        let claims = serde_json::to_vec(claims).map_err(|_| JwsError::Claims)?;
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

/// Checks a token's form, type and signature. Issuer, audience and expiry are the caller's to check. A type is compared
/// without `application/` and without regard to case (RFC 7515 §4.1.9).
///
/// # Errors
/// When it is not a token that one of these keys signed, of one of these types.
pub fn verify_compact<'k, T: DeserializeOwned>(
    unverified_token: &str,
    types: &[&str],
    keys: impl IntoIterator<Item = &'k SigningKey>,
) -> Result<Verified<T>, JwsError> {
    if unverified_token.len() > MAX_SIGNED_TOKEN_BYTES {
        return Err(JwsError::TooLong);
    }
    let (message, signature) = unverified_token.rsplit_once('.').ok_or(JwsError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(JwsError::Malformed)?;
    if claims.contains('.') {
        return Err(JwsError::Malformed);
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::Malformed)?;
    if header.crit.is_some() {
        return Err(JwsError::Critical);
    }
    let typ = header.typ.to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ).to_owned();
    if !types.iter().any(|expected| expected.eq_ignore_ascii_case(&typ)) {
        return Err(JwsError::Type);
    }
    let kid = header.kid.ok_or(JwsError::UnknownKey)?;
    let named = |key: &&SigningKey| key.kid() == kid && key.algorithm().as_str() == header.alg;
    let key = keys.into_iter().find(named).ok_or(JwsError::UnknownKey)?;
    if !key.verifies(message.as_bytes(), &decode(signature)?) {
        return Err(JwsError::Signature);
    }
    let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| JwsError::Claims)?;
    Ok(Verified { claims, typ, kid })
}

#[cfg(test)]
mod tests;
