//! Codes and tokens that mean nothing to whoever holds them: a prefix that says what it is, 256 random bits, and a
//! checksum.
//!
//! The prefix makes a leaked one recognisable and keeps one kind from being taken for another; the checksum lets a
//! mistyped one be refused without asking the database. Only SHA-256 of the whole text is ever stored.

use crate::{model::secret::Secret, store::grant::Digest};

/// What a text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An authorization code (RFC 6749 section 4.1.2).
    Code,
    /// A refresh token.
    RefreshToken,
    /// A device code (RFC 8628 section 3.2).
    DeviceCode,
    /// The id of an authorize session, which the page knows.
    Session,
    /// The cookie of the browser that began it.
    Browser,
}

/// The system has no random numbers. Nothing can be issued then.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the system gave no random numbers")]
pub struct NoRandomness;

const RANDOM_BYTES: usize = 32;
const RANDOM_LETTERS: usize = 43;

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Code => "tgc_",
            Self::RefreshToken => "tgr_",
            Self::DeviceCode => "tgd_",
            Self::Session => "tgs_",
            Self::Browser => "tgb_",
        }
    }
}

/// A new one.
///
/// # Errors
/// [`NoRandomness`].
pub fn issue(kind: Kind) -> Result<(Secret, Digest), NoRandomness> {
    let mut random = [0; RANDOM_BYTES];
    openssl::rand::rand_bytes(&mut random).map_err(|_| NoRandomness)?;
    let body = base64(&random);
    let text = format!("{}{body}{}", kind.prefix(), sum(kind, &body));
    let digest = sha256(text.as_bytes());
    Ok((Secret::new(text), digest))
}

/// The digest of what was presented, if it has this kind's form: what a look-up asks for.
#[must_use]
pub fn presented(kind: Kind, unverified: &str) -> Option<Digest> {
    let rest = unverified.strip_prefix(kind.prefix())?;
    let (body, given) = rest.split_at_checked(RANDOM_LETTERS)?;
    let letters = body.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_');
    (letters && given == sum(kind, body)).then(|| sha256(unverified.as_bytes()))
}

/// Random letters and digits for a message: 22 of them hold some 130 bits.
///
/// # Errors
/// [`NoRandomness`].
pub fn nonce() -> Result<String, NoRandomness> {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    random_letters(LETTERS, 22)
}

/// What the user of a device types: four letters without I and O, four digits (auth-gateway.md section 4.4).
///
/// # Errors
/// [`NoRandomness`].
pub fn user_code() -> Result<String, NoRandomness> {
    let letters = random_letters(b"ABCDEFGHJKLMNPQRSTUVWXYZ", 4)?;
    let digits = random_letters(b"0123456789", 4)?;
    Ok(format!("{letters}-{digits}"))
}

/// A random UUID of version 4.
///
/// # Errors
/// [`NoRandomness`].
pub fn uuid() -> Result<uuid::Uuid, NoRandomness> {
    let mut random = [0; 16];
    openssl::rand::rand_bytes(&mut random).map_err(|_| NoRandomness)?;
    Ok(uuid::Builder::from_random_bytes(random).into_uuid())
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    openssl::sha::sha256(bytes)
}

/// Base64 for URLs, without padding (RFC 4648 section 5).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Each of them equally likely: bytes beyond the last whole multiple are drawn again.
fn random_letters(of: &[u8], length: usize) -> Result<String, NoRandomness> {
    let whole = 256_usize.checked_div(of.len()).unwrap_or(0).saturating_mul(of.len());
    let mut letters = String::with_capacity(length);
    while letters.len() < length {
        let mut random = [0; 32];
        openssl::rand::rand_bytes(&mut random).map_err(|_| NoRandomness)?;
        let fitting = random.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < whole);
        let missing = length.saturating_sub(letters.len());
        let drawn = fitting.filter_map(|byte| of.get(byte.checked_rem(of.len())?)).map(|letter| char::from(*letter));
        letters.extend(drawn.take(missing));
    }
    Ok(letters)
}

/// Six letters of the CRC-32 over prefix and body.
fn sum(kind: Kind, body: &str) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(kind.prefix().as_bytes());
    hasher.update(body.as_bytes());
    base64(&hasher.finalize().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KINDS: [Kind; 5] = [Kind::Code, Kind::RefreshToken, Kind::DeviceCode, Kind::Session, Kind::Browser];

    #[test]
    fn what_was_issued_is_recognised_as_what_it_is_and_as_nothing_else() {
        for kind in KINDS {
            let (text, digest) = issue(kind).unwrap();
            assert_eq!(text.expose().len(), 4 + RANDOM_LETTERS + 6);
            assert_eq!(presented(kind, text.expose()), Some(digest));
            for other in KINDS.into_iter().filter(|other| *other != kind) {
                assert_eq!(presented(other, text.expose()), None);
                let disguised = text.expose().replacen(kind.prefix(), other.prefix(), 1);
                assert_eq!(presented(other, &disguised), None, "the checksum covers the prefix");
            }
            assert!(!format!("{text:?}").contains("tg"));
        }
    }

    #[test]
    fn a_mistyped_one_never_reaches_the_database() {
        let (text, _) = issue(Kind::Code).unwrap();
        let text = text.expose();
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(presented(Kind::Code, &String::from_utf8(other).unwrap()), None, "letter {at}");
        }
        let longer = format!("{text}x");
        for bad in ["", "tgc_", "tgc", &text[..text.len() - 1], &longer, &format!(" {text}"), "tgc_é"] {
            assert_eq!(presented(Kind::Code, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_user_code_has_the_old_form() {
        let form = regex::Regex::new(r"^[A-HJ-NP-Z]{4}-\d{4}$").unwrap();
        let codes: HashSet<String> = (0..200).map(|_| user_code().unwrap()).collect();
        assert_eq!(codes.len(), 200);
        assert!(codes.iter().all(|code| form.is_match(code)));
        let nonces: HashSet<String> = (0..200).map(|_| nonce().unwrap()).collect();
        assert!(nonces.len() == 200 && nonces.iter().all(|nonce| nonce.len() == 22));
    }

    #[test]
    fn the_reference_s_vectors_hold() {
        assert_eq!(base64(&sha256("a".repeat(43).as_bytes())), "ZtNPunH49FD35FWYhT5Tv8I7vRKQJ8uxMaL0_9eHjNA");
        assert_eq!(base64(&sha256(b"abc")[..16]), "ungWv48Bz-pBQUDeXa4iIw");
    }
}
