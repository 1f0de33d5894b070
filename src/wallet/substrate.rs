//! Signatures of Bittensor accounts, as Substrate's wallets make them.

use curve25519_dalek::{edwards::CompressedEdwardsY, ristretto::CompressedRistretto, traits::Identity};
use sp_core::{Pair, ed25519, sr25519};

use crate::model::hotkey::Hotkey;

/// Bytes of every signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What an account signs with. An account is the public key itself, and does not say of which kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Schnorr signatures over Ristretto, with the context `substrate`: what wallets make unless told otherwise.
    Sr25519,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotSigned {
    /// The account is not a key of this scheme, so nobody can sign with it: newer runtimes know accounts whose key is
    /// not the account (subtensor.md section 5).
    #[error("the account is not a key of this scheme")]
    NotAKey,
    /// The account is a key for which signatures can be had without knowing any secret.
    #[error("the account is a weak key")]
    WeakKey,
    /// The signature is another key's, or over something else.
    #[error("the signature does not match")]
    Forged,
}

/// Whether `account` has signed exactly this message. A signature over the message between `<Bytes>` and `</Bytes>`,
/// which wallets in a browser make of what a page asks them to sign, is a signature over something else.
///
/// # Errors
/// [`NotSigned`].
pub fn verify(
    account: &Hotkey,
    scheme: Scheme,
    message: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), NotSigned> {
    if is_weak(account, scheme)? {
        return Err(NotSigned::WeakKey);
    }
    let matches = match scheme {
        Scheme::Sr25519 => {
            let (signature, key) = (sr25519::Signature::from_raw(*signature), sr25519::Public::from_raw(account.0));
            sr25519::Pair::verify(&signature, message, &key)
        }
        Scheme::Ed25519 => {
            let (signature, key) = (ed25519::Signature::from_raw(*signature), ed25519::Public::from_raw(account.0));
            ed25519::Pair::verify(&signature, message, &key)
        }
    };
    if matches { Ok(()) } else { Err(NotSigned::Forged) }
}

/// Keys of small order: one signature fits many messages. The verifiers below take them, each for its own good reason
/// (sp-core's Ed25519 follows ZIP 215, as a chain must). Ristretto has but one such point.
fn is_weak(account: &Hotkey, scheme: Scheme) -> Result<bool, NotSigned> {
    let weak = match scheme {
        Scheme::Sr25519 => {
            let point = CompressedRistretto(account.0).decompress();
            point.map(|point| point == curve25519_dalek::RistrettoPoint::identity())
        }
        Scheme::Ed25519 => CompressedEdwardsY(account.0).decompress().map(|point| point.is_small_order()),
    };
    weak.ok_or(NotSigned::NotAKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"what is signed";

    type Sign = Box<dyn Fn(&[u8]) -> [u8; 64]>;

    fn signers() -> [(Scheme, Hotkey, Sign); 2] {
        let sr25519 = sr25519::Pair::from_string("//Alice", None).unwrap();
        let ed25519 = ed25519::Pair::from_string("//Alice", None).unwrap();
        [
            (Scheme::Sr25519, Hotkey(sr25519.public().0), Box::new(move |message| sr25519.sign(message).0)),
            (Scheme::Ed25519, Hotkey(ed25519.public().0), Box::new(move |message| ed25519.sign(message).0)),
        ]
    }

    #[test]
    fn a_signature_counts_for_one_account_message_and_scheme() {
        for (scheme, account, sign) in signers() {
            let signature = sign(MESSAGE);
            assert_eq!(verify(&account, scheme, MESSAGE, &signature), Ok(()), "{scheme:?}");
            assert_eq!(verify(&account, scheme, b"something else", &signature), Err(NotSigned::Forged));
            assert_eq!(verify(&account, scheme, MESSAGE, &sign(b"something else")), Err(NotSigned::Forged));
            for byte in 0..64 {
                let mut other = signature;
                other[byte] ^= 1 << (byte % 8);
                assert!(verify(&account, scheme, MESSAGE, &other).is_err(), "{scheme:?}: byte {byte} does not count");
            }
            for (other, another, _) in signers() {
                if other != scheme {
                    assert!(verify(&account, other, MESSAGE, &signature).is_err());
                    assert!(verify(&another, scheme, MESSAGE, &signature).is_err());
                }
            }
        }
    }

    #[test]
    fn what_a_browser_wallet_wraps_is_something_else() {
        for (scheme, account, sign) in signers() {
            let wrapped = [b"<Bytes>".as_slice(), MESSAGE, b"</Bytes>"].concat();
            assert_eq!(verify(&account, scheme, MESSAGE, &sign(&wrapped)), Err(NotSigned::Forged));
        }
    }

    /// The eight points of small order and their other spellings, and the signature that fits them: R and s are nothing.
    #[test]
    fn weak_keys_sign_nothing() {
        let mut keys: Vec<[u8; 32]> =
            curve25519_dalek::constants::EIGHT_TORSION.iter().map(|point| point.compress().0).collect();
        let field = [0xed].into_iter().chain([0xff; 30]).chain([0x7f]);
        let prime: [u8; 32] = field.collect::<Vec<_>>().try_into().unwrap();
        // y = p and y = p + 1 are other spellings of 0 and 1; the sign of x = 0 is another spelling too.
        let mut one_more = prime;
        one_more[0] += 1;
        keys.extend([prime, one_more]);
        for key in keys.clone() {
            let mut signed = key;
            signed[31] ^= 0x80;
            keys.push(signed);
        }
        let mut nothing = [0; 64];
        nothing[0] = 1;
        for key in keys {
            let refused = verify(&Hotkey(key), Scheme::Ed25519, MESSAGE, &nothing);
            assert!(matches!(refused, Err(NotSigned::WeakKey | NotSigned::NotAKey)), "{key:?}: {refused:?}");
        }
        let mut marked = [0; 64];
        marked[63] = 0x80;
        assert_eq!(verify(&Hotkey([0; 32]), Scheme::Sr25519, MESSAGE, &marked), Err(NotSigned::WeakKey));
    }

    #[test]
    fn an_account_that_is_no_key_is_told_apart_from_a_forgery() {
        let mut two = [0; 32];
        two[0] = 2; // no point of the curve has this y
        for (account, scheme) in [([0xff; 32], Scheme::Sr25519), (two, Scheme::Ed25519)] {
            assert_eq!(verify(&Hotkey(account), scheme, MESSAGE, &[0; 64]), Err(NotSigned::NotAKey), "{scheme:?}");
        }
    }
}
