//! Client secrets: made here, shown once, kept as scrypt hashes in the replaced system's form (auth-gateway.md section 5.3).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::{memcmp, pkcs5::scrypt, rand::rand_bytes, sha::sha256};
use zeroize::Zeroizing;

use crate::model::secret::Secret;

const N: u64 = 16_384;
const R: u64 = 8;
const P: u64 = 1;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 64;

/// The most memory that a hash in the database may ask for.
const MAX_MEMORY: u64 = 128 << 20;

/// The cryptographic library failed, or has no randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct LibraryError;

/// Random bytes.
///
/// # Errors
/// When there is no randomness.
pub fn random<const BYTES: usize>() -> Result<[u8; BYTES], LibraryError> {
    let mut bytes = [0; BYTES];
    rand_bytes(&mut bytes).map_err(|_| LibraryError)?;
    Ok(bytes)
}

/// A new client secret: 32 random bytes as 64 hexadecimal digits.
///
/// # Errors
/// When there is no randomness.
pub fn generate() -> Result<Secret, LibraryError> {
    let bytes = Zeroizing::new(random::<32>()?);
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    Ok(Secret::new(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()))
}

/// `scrypt$N$r$p$salt$hash` of a secret, with a salt of its own. Takes some 50 ms of a core: not for threads that serve.
///
/// # Errors
/// When the cryptographic library fails.
pub fn hash(secret: &Secret) -> Result<String, LibraryError> {
    hash_with(secret, &random::<SALT_BYTES>()?)
}

fn hash_with(secret: &Secret, salt: &[u8]) -> Result<String, LibraryError> {
    let mut hash = [0; HASH_BYTES];
    scrypt(secret.expose().as_bytes(), salt, N, R, P, MAX_MEMORY, &mut hash).map_err(|_| LibraryError)?;
    Ok(format!("scrypt${N}${R}${P}${}${}", URL_SAFE_NO_PAD.encode(salt), URL_SAFE_NO_PAD.encode(hash)))
}

/// Whether a hash is the secret's. One that cannot be read is nobody's. As slow as [`hash`].
#[must_use]
pub fn matches(unverified_secret: &Secret, hash: &str) -> bool {
    let Some(Kept { n, r, p, salt, expected }) = Kept::read(hash) else { return false };
    let mut actual = vec![0; expected.len()];
    let made = scrypt(unverified_secret.expose().as_bytes(), &salt, n, r, p, MAX_MEMORY, &mut actual);
    made.is_ok() && memcmp::eq(&actual, &expected)
}

/// Whether a hash is of the form that [`matches`] reads.
#[must_use]
pub fn is_readable(hash: &str) -> bool {
    Kept::read(hash).is_some()
}

/// A hash taken apart.
struct Kept {
    n: u64,
    r: u64,
    p: u64,
    salt: Vec<u8>,
    expected: Vec<u8>,
}

impl Kept {
    fn read(hash: &str) -> Option<Self> {
        let mut parts = hash.strip_prefix("scrypt$")?.split('$');
        let mut next = || parts.next();
        let (n, r, p) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let (salt, expected) = (URL_SAFE_NO_PAD.decode(next()?).ok()?, URL_SAFE_NO_PAD.decode(next()?).ok()?);
        let sensible = (16..=1 << 20).contains(&n) && (1..=32).contains(&r) && (1..=16).contains(&p);
        let whole = next().is_none() && (16..=128).contains(&expected.len());
        (sensible && whole).then_some(Self { n, r, p, salt, expected })
    }
}

/// Whether two secrets are the same, without telling by the time it takes where they differ or how long they are.
#[must_use]
pub fn same(one: &Secret, other: &str) -> bool {
    memcmp::eq(&sha256(one.expose().as_bytes()), &sha256(other.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: &str = "scrypt$16384$8$1$AAECAwQFBgcICQoLDA0ODw$zyTkMkF5kpt6tLEiL1ljTx22R9Ust_j-OZVbILPhS3FaRmyYJrO28d4QdecRSM8oZozl_TvmvPkLKkRmEBdzNg";

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn a_hash_is_the_replaced_systems() {
        let salt: [u8; 16] = std::array::from_fn(|byte| u8::try_from(byte).unwrap());
        assert_eq!(hash_with(&secret("example-secret"), &salt).unwrap(), VECTOR);
        assert!(matches(&secret("example-secret"), VECTOR));
        assert!(!matches(&secret("example-secreT"), VECTOR));
        assert!(!matches(&secret(""), VECTOR));
    }

    #[test]
    fn a_hash_that_cannot_be_read_is_nobodys() {
        let text = secret("example-secret");
        for bad in [
            "",
            "scrypt$",
            "scrypt$16384$8$1$AAECAwQFBgcICQoLDA0ODw",
            "scrypt$16384$8$1$AAECAwQFBgcICQoLDA0ODw$",
            "bcrypt$16384$8$1$AAECAwQFBgcICQoLDA0ODw$zyTkMkF5kpt6tLEiL1ljTw",
            "scrypt$16385$8$1$AAECAwQFBgcICQoLDA0ODw$zyTkMkF5kpt6tLEiL1ljTw",
            "scrypt$1073741824$8$1$AAECAwQFBgcICQoLDA0ODw$zyTkMkF5kpt6tLEiL1ljTw",
            "scrypt$16384$8$1$!!$zyTkMkF5kpt6tLEiL1ljTw",
        ] {
            assert!(!matches(&text, bad), "{bad}");
        }
        assert!(!matches(&text, &format!("{VECTOR}$x")));
    }

    #[test]
    fn two_secrets_and_two_hashes_differ() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert!(one.expose().len() == 64 && one.expose().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, two);
        assert_ne!(hash(&one).unwrap(), hash(&one).unwrap());
        assert!(same(&one, one.expose()) && !same(&one, two.expose()) && !same(&one, ""));
    }
}
