//! A hotkey's file, as Bittensor's tools keep it: `WALLETS/NAME/hotkeys/HOTKEY`.
//!
//! It is a JSON object with the address and up to three forms of the secret. What is read here is wiped when it is
//! dropped, and no error quotes it.

use std::{
    fmt, fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sp_core::{Pair as _, sr25519};
use zeroize::{Zeroize as _, Zeroizing};

use crate::model::hotkey::Hotkey;

/// A hotkey with its secret: it can sign. Its `Debug` says the address and no more.
pub struct HotkeyPair(sr25519::Pair);

/// Why there is no pair in a file.
#[derive(Debug, thiserror::Error)]
pub enum KeyfileError {
    /// Not there, or not ours to read.
    #[error("cannot read the hotkey file {}: {error}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A device, a folder, or far too long.
    #[error("{} is not a hotkey file: it is no ordinary file of some hundred bytes", .0.display())]
    NotAFile(PathBuf),
    /// Protected by a password.
    #[error(
        "the hotkey file {} is encrypted, and tollgate asks for no password: decrypt a copy with Bittensor's own tools \
         (hotkeys are usually kept without a password), name it with --wallet, and remove it afterwards",
        .0.display()
    )]
    Encrypted(PathBuf),
    /// Not the JSON object that it should be.
    #[error("{} is not a hotkey file: {why}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// In which way.
        why: &'static str,
    },
    /// The secret is not that of the address beside it.
    #[error(
        "the secret in {} gives the address {found}, but the file says {stated}: it is damaged, or its key is not sr25519",
        .path.display()
    )]
    WrongAddress {
        /// The file.
        path: PathBuf,
        /// What the secret gives.
        found: Hotkey,
        /// What the file says.
        stated: String,
    },
}

/// A hotkey file has some 500 bytes.
const LARGEST: u64 = 16 << 10;

/// How the encrypted forms begin: those of today, of Ansible's vault, of Fernet.
const ENCRYPTED: [&[u8]; 3] = [b"$NACL", b"$ANSIBLE_VAULT", b"gAAAAA"];

/// The object in the file. Names as the tools write them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keyfile {
    ss58_address: Option<String>,
    secret_seed: Option<String>,
    secret_phrase: Option<String>,
    private_key: Option<String>,
}

impl Drop for Keyfile {
    fn drop(&mut self) {
        self.secret_seed.zeroize();
        self.secret_phrase.zeroize();
        self.private_key.zeroize();
    }
}

impl HotkeyPair {
    /// Reads the file, and checks that its secret gives the address it states.
    ///
    /// # Errors
    /// See [`KeyfileError`].
    pub fn open(path: &Path) -> Result<Self, KeyfileError> {
        let malformed = |why| KeyfileError::Malformed { path: path.to_owned(), why };
        let text = read(path)?;
        if ENCRYPTED.iter().any(|start| text.starts_with(start)) {
            return Err(KeyfileError::Encrypted(path.to_owned()));
        }
        if text.starts_with(b"0x") {
            return Err(malformed("it holds a public key alone"));
        }
        // The parser's complaint is not repeated: it may quote the file.
        let keyfile: Keyfile =
            serde_json::from_slice(&text).map_err(|_| malformed("it is not a JSON object of one"))?;
        let pair = keyfile.pair().map_err(malformed)?;
        let found = Hotkey(pair.public().0);
        match &keyfile.ss58_address {
            Some(stated) if stated.parse() != Ok(found) => {
                Err(KeyfileError::WrongAddress { path: path.to_owned(), found, stated: stated.clone() })
            }
            _ => Ok(Self(pair)),
        }
    }

    /// Its account.
    #[must_use]
    pub fn hotkey(&self) -> Hotkey {
        Hotkey(self.0.public().0)
    }

    /// An sr25519 signature, in the context `substrate`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).0
    }
}

impl fmt::Debug for HotkeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HotkeyPair").field(&self.hotkey()).finish()
    }
}

impl Keyfile {
    /// The pair of the first secret there is, in the order in which Bittensor's tools look.
    fn pair(&self) -> Result<sr25519::Pair, &'static str> {
        if let Some(seed) = &self.secret_seed {
            return of_seed::<32>(seed).ok_or("secretSeed is not the hex form of 32 bytes");
        }
        if let Some(phrase) = &self.secret_phrase {
            let made = sr25519::Pair::from_phrase(phrase, None);
            let (pair, mut seed) = made.map_err(|_| "secretPhrase is not a phrase of known words")?;
            seed.zeroize();
            return Ok(pair);
        }
        match &self.private_key {
            Some(key) => of_seed::<64>(key).ok_or("privateKey is not the hex form of an sr25519 secret of 64 bytes"),
            None => Err("it holds no secret (secretSeed, secretPhrase or privateKey)"),
        }
    }
}

/// The pair of a secret of so many bytes, in hex with or without `0x`.
fn of_seed<const BYTES: usize>(hex: &str) -> Option<sr25519::Pair> {
    let bytes = unhex::<BYTES>(hex.strip_prefix("0x").unwrap_or(hex))?;
    sr25519::Pair::from_seed_slice(&*bytes).ok()
}

fn unhex<const BYTES: usize>(hex: &str) -> Option<Zeroizing<[u8; BYTES]>> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    let mut digits = hex.chars();
    for byte in bytes.iter_mut() {
        let (high, low) = (digits.next()?.to_digit(16)?, digits.next()?.to_digit(16)?);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyfileError> {
    let unreadable = |error| KeyfileError::Unreadable { path: path.to_owned(), error };
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() || about.len() > LARGEST {
        return Err(KeyfileError::NotAFile(path.to_owned()));
    }
    // Enough from the start: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(LARGEST).unwrap_or_default()));
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST).read_to_end(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Whether people other than the owner and the group may read a file.
#[must_use]
pub fn exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const ALICE_SEED: &str = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
    const DEVELOPMENT: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
    /// The address of the development phrase.
    const DEVELOPER: &str = "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV";

    fn open(text: &str) -> Result<HotkeyPair, KeyfileError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        HotkeyPair::open(file.path())
    }

    fn keyfile(address: &str, field: &str, secret: &str) -> String {
        format!(r#"{{"accountId":"0x00","{field}":"{secret}","other":null,"ss58Address":"{address}"}}"#)
    }

    #[test]
    fn each_form_of_the_secret_gives_the_pair() {
        let whole = sr25519::Pair::from_string("//Alice", None).unwrap().to_raw_vec();
        let private = sp_core::bytes::to_hex(&whole, false);
        for (text, address) in [
            (keyfile(ALICE, "secretSeed", ALICE_SEED), ALICE),
            (keyfile(ALICE, "secretSeed", ALICE_SEED.trim_start_matches("0x")), ALICE),
            (keyfile(DEVELOPER, "secretPhrase", DEVELOPMENT), DEVELOPER),
            (keyfile(ALICE, "privateKey", &private), ALICE),
            (format!(r#"{{"secretSeed":"{ALICE_SEED}"}}"#), ALICE),
        ] {
            let pair = open(&text).unwrap();
            assert_eq!(pair.hotkey().to_string(), address);
            let signature = sr25519::Signature::from_raw(pair.sign(b"message"));
            assert!(sr25519::Pair::verify(&signature, b"message", &sr25519::Public::from_raw(pair.hotkey().0)));
            assert_eq!(format!("{pair:?}"), format!("HotkeyPair({address})"));
        }
    }

    #[test]
    fn what_is_not_a_hotkey_file_is_refused_and_not_quoted() {
        let secret = &ALICE_SEED[2..];
        for (text, said) in [
            (keyfile(DEVELOPER, "secretSeed", ALICE_SEED), "the file says 5Dfh"),
            (keyfile("nonsense", "secretSeed", ALICE_SEED), "the file says nonsense"),
            (keyfile(ALICE, "secretSeed", &ALICE_SEED[..64]), "secretSeed"),
            (keyfile(ALICE, "secretSeed", &format!("{secret}00")), "secretSeed"),
            (keyfile(ALICE, "secretSeed", &format!("{}é", &secret[..62])), "secretSeed"),
            (keyfile(ALICE, "secretPhrase", &format!("{DEVELOPMENT} nonsense")), "secretPhrase"),
            (keyfile(ALICE, "privateKey", secret), "privateKey"),
            (keyfile(ALICE, "publicKey", secret), "holds no secret"),
            (format!("$NACL{secret}"), "encrypted"),
            (format!("$ANSIBLE_VAULT;1.1;AES256\n{secret}"), "encrypted"),
            (format!("gAAAAA{secret}"), "encrypted"),
            (ALICE_SEED.to_owned(), "public key alone"),
            (secret.to_owned(), "not a JSON object"),
            (String::new(), "not a JSON object"),
            ("x".repeat(20_000), "no ordinary file"),
        ] {
            let error = open(&text).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert!(!format!("{error} {error:?}").contains(&secret[..16]), "{error}");
        }
        assert!(matches!(HotkeyPair::open(Path::new("/")), Err(KeyfileError::NotAFile(_))));
        assert!(matches!(HotkeyPair::open(Path::new("/no/such")), Err(KeyfileError::Unreadable { .. })));
    }

    #[test]
    fn a_file_that_everybody_may_read_is_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!exposed(file.path()));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(exposed(file.path()));
    }
}
