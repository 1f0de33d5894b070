//! Signatures of Bittensor accounts over texts that people are asked to sign (auth-gateway.md section 2.4).
//!
//! A browser's wallet signs the text between `<Bytes>` and `</Bytes>`, a command line the text itself; both count. A
//! signed request of another protocol never begins like one of our messages, so the one cannot be passed off as the
//! other.

use sp_core::{
    crypto::{AccountId32, Ss58Codec},
    ecdsa,
};
use sp_crypto_hashing::blake2_256;

use super::substrate::{NotSigned, Scheme, verify as verify_raw};
use crate::model::hotkey::Hotkey;

/// Which kinds of keys count besides sr25519, the one that Bittensor wallets have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Ed25519.
    pub ed25519: bool,
    /// ECDSA on secp256k1 over BLAKE2, as Substrate has it: the account is a hash of the key.
    pub ecdsa: bool,
}

/// Bytes of the longest signature: a kind, and 65 of ECDSA.
pub const LONGEST_SIGNATURE: usize = 66;

/// Longer than any address, of whatever prefix.
const LONGEST_ADDRESS: usize = 64;

/// An account by its SS58 address with any network's prefix: the key is the same, and so is the account. None for
/// anything else, a hexadecimal key included, and for the account of zeros, which is nobody's.
#[must_use]
pub fn account(text: &str) -> Option<Hotkey> {
    if text.len() > LONGEST_ADDRESS {
        return None;
    }
    let (account, _) = AccountId32::from_ss58check_with_version(text).ok()?;
    let account: [u8; 32] = account.into();
    (account != [0; 32]).then_some(Hotkey(account))
}

/// Whether `account` has signed this message, as it is or between `<Bytes>` and `</Bytes>`. A signature may have the byte
/// of its kind in front, as Substrate's `MultiSignature` has.
///
/// # Errors
/// [`NotSigned`].
pub fn verify(account: &Hotkey, message: &[u8], signature: &[u8], accepted: Accepted) -> Result<(), NotSigned> {
    let wrapped = [b"<Bytes>", message, b"</Bytes>"].concat();
    let any = |check: &dyn Fn(&[u8]) -> Result<(), NotSigned>| check(message).or_else(|_| check(&wrapped));
    let of = |scheme, signature: &[u8; 64]| any(&|text| verify_raw(account, scheme, text, signature));
    if let Ok(signature) = <&[u8; 64]>::try_from(signature) {
        let sr25519 = of(Scheme::Sr25519, signature);
        return if accepted.ed25519 { sr25519.or_else(|_| of(Scheme::Ed25519, signature)) } else { sr25519 };
    }
    if let Ok(signature) = <&[u8; 65]>::try_from(signature) {
        let tagged = match signature.split_first_chunk() {
            Some(([1], rest)) => rest.try_into().map(|rest| of(Scheme::Sr25519, rest)),
            Some(([0], rest)) if accepted.ed25519 => rest.try_into().map(|rest| of(Scheme::Ed25519, rest)),
            _ => Ok(Err(NotSigned::Forged)),
        };
        // Without its kind in front a signature of this length is ECDSA's.
        let plain = |_| {
            if accepted.ecdsa { any(&|text| ecdsa_signed(account, text, signature)) } else { Err(NotSigned::Forged) }
        };
        return tagged.unwrap_or(Err(NotSigned::Forged)).or_else(plain);
    }
    match signature.split_first() {
        Some((2, rest)) if accepted.ecdsa => {
            let signature = <&[u8; 65]>::try_from(rest).map_err(|_| NotSigned::Forged)?;
            any(&|text| ecdsa_signed(account, text, signature))
        }
        _ => Err(NotSigned::Forged),
    }
}

fn ecdsa_signed(account: &Hotkey, message: &[u8], signature: &[u8; 65]) -> Result<(), NotSigned> {
    let key = ecdsa::Signature::from_raw(*signature).recover(message).ok_or(NotSigned::Forged)?;
    if blake2_256(&key.0) == account.0 { Ok(()) } else { Err(NotSigned::Forged) }
}

#[cfg(test)]
mod tests {
    use sp_core::{Pair, ed25519, sr25519};

    use super::*;

    const TEXT: &[u8] = b"taostats-auth:none:0f3c1a2b-0000-4000-8000-000000000001";
    const ALL: Accepted = Accepted { ed25519: true, ecdsa: true };

    fn wrapped(text: &[u8]) -> Vec<u8> {
        [b"<Bytes>", text, b"</Bytes>"].concat()
    }

    #[test]
    fn an_address_of_any_network_is_the_same_account() {
        let alice = account("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").unwrap();
        assert_eq!(account("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5"), Some(alice));
        assert_eq!(alice.to_string(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
        for bad in [
            "",
            "0xd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ",
            "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM",
            " 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
            "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        ] {
            assert_eq!(account(bad), None, "{bad}");
        }
        assert_eq!(account(&"1".repeat(100_000)), None);
    }

    #[test]
    fn both_what_browsers_and_what_command_lines_sign_counts() {
        let pair = sr25519::Pair::from_string("//Alice", None).unwrap();
        let alice = Hotkey(pair.public().0);
        for text in [TEXT.to_vec(), wrapped(TEXT)] {
            let signature = pair.sign(&text).0;
            assert_eq!(verify(&alice, TEXT, &signature, Accepted::default()), Ok(()));
            let tagged = [&[1], signature.as_slice()].concat();
            assert_eq!(verify(&alice, TEXT, &tagged, Accepted::default()), Ok(()));
            for tag in [0, 2, 3] {
                let mistagged = [&[tag], signature.as_slice()].concat();
                assert!(verify(&alice, TEXT, &mistagged, ALL).is_err(), "{tag}");
            }
        }
        for text in [wrapped(&wrapped(TEXT)), b"<Bytes>".to_vec(), Vec::new(), [TEXT, b" "].concat()] {
            assert!(verify(&alice, TEXT, &pair.sign(&text).0, ALL).is_err());
        }
        let other = sr25519::Pair::from_string("//Bob", None).unwrap();
        assert!(verify(&alice, TEXT, &other.sign(TEXT).0, ALL).is_err());
    }

    #[test]
    fn other_kinds_of_keys_count_by_setting_only() {
        let ed = ed25519::Pair::from_string("//Alice", None).unwrap();
        let account = Hotkey(ed.public().0);
        let only_ed = Accepted { ed25519: true, ecdsa: false };
        for signature in [ed.sign(TEXT).0.to_vec(), [&[0], ed.sign(TEXT).0.as_slice()].concat()] {
            assert_eq!(verify(&account, TEXT, &signature, only_ed), Ok(()));
            assert!(verify(&account, TEXT, &signature, Accepted::default()).is_err());
        }
        let ecdsa = ecdsa::Pair::from_string("//Alice", None).unwrap();
        let account = Hotkey(blake2_256(&ecdsa.public().0));
        let only_ecdsa = Accepted { ed25519: false, ecdsa: true };
        let signature = ecdsa.sign(&wrapped(TEXT)).0;
        for signature in [signature.to_vec(), [&[2], signature.as_slice()].concat()] {
            assert_eq!(verify(&account, TEXT, &signature, only_ecdsa), Ok(()));
            assert!(verify(&account, TEXT, &signature, only_ed).is_err());
            assert!(verify(&account, b"other", &signature, ALL).is_err());
        }
    }

    #[test]
    fn no_other_length_is_a_signature() {
        let alice = account("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY").unwrap();
        for length in [0, 1, 63, 64, 65, 66, 67, 128] {
            for filler in [0, 1, 2, 0xff] {
                assert!(verify(&alice, TEXT, &vec![filler; length], ALL).is_err(), "{length} of {filler}");
            }
        }
    }
}
