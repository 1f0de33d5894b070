//! Signatures of Ethereum accounts over texts, as their wallets make them (EIP-191 `personal_sign`).

use alloy::primitives::{Address, B256, Signature, U256, eip191_hash_message};

use crate::model::address::{EvmAddress, hex_decode};

/// Bytes of a signature by an account's own key: r, s and v.
pub const SIGNATURE_BYTES: usize = 65;

/// The signature is another key's, or over something else, or none at all. A contract's account may still take it: ask
/// the chain (ERC-1271).
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the signature does not match")]
pub struct NotSigned;

/// What a wallet signs when it is asked to sign this message: the digest with Ethereum's prefix and the length.
#[must_use]
pub fn digest(message: &[u8]) -> [u8; 32] {
    eip191_hash_message(message).0
}

/// Whether the key of `account` has signed exactly this message. `v` is 27 or 28, or 0 or 1 as hardware wallets write it;
/// of the two `s` that fit, only the lower counts (EIP-2), so that a signature has one spelling.
///
/// # Errors
/// [`NotSigned`].
pub fn verify(account: EvmAddress, message: &[u8], signature: &[u8]) -> Result<(), NotSigned> {
    if signature.len() != SIGNATURE_BYTES {
        return Err(NotSigned);
    }
    let Some((scalars, [v])) = signature.split_first_chunk::<64>() else { return Err(NotSigned) };
    let (r, s) = scalars.split_at(32);
    let odd = match v {
        0 | 27 => false,
        1 | 28 => true,
        _ => return Err(NotSigned),
    };
    let signature = Signature::new(U256::from_be_slice(r), U256::from_be_slice(s), odd);
    if signature.normalize_s().is_some() {
        return Err(NotSigned);
    }
    let signer = signature.recover_address_from_prehash(&B256::from(digest(message))).map_err(|_| NotSigned)?;
    if signer == Address::from(account.0) { Ok(()) } else { Err(NotSigned) }
}

/// The bytes of a signature as clients write it: hexadecimal digits, with or without `0x`, blanks around them. None for
/// anything else, and for more than `limit` bytes.
#[must_use]
pub fn bytes(text: &str, limit: usize) -> Option<Vec<u8>> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || digits.len() > limit.saturating_mul(2) {
        return None;
    }
    let mut bytes = vec![0; digits.len() / 2];
    hex_decode(digits, &mut bytes)?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // From the documentation of web3.js, `eth.accounts.sign`.
    const ACCOUNT: &str = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23";
    const SIGNED: &[u8] = b"Some data";
    const SIGNATURE: &str = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";

    fn account() -> EvmAddress {
        ACCOUNT.parse().unwrap()
    }

    fn signature() -> Vec<u8> {
        bytes(SIGNATURE, 65).unwrap()
    }

    #[test]
    fn the_digest_is_that_of_eip_191() {
        assert_eq!(
            alloy::hex::encode(digest(SIGNED)),
            "1da44b586eb0729ff70a73c326926f6ed5a25f5b056e7f47fbc6e58d86871655"
        );
    }

    #[test]
    fn a_published_signature_counts_in_both_spellings_of_v() {
        assert_eq!(verify(account(), SIGNED, &signature()), Ok(()));
        let mut hardware = signature();
        hardware[64] -= 27;
        assert_eq!(verify(account(), SIGNED, &hardware), Ok(()));
    }

    #[test]
    fn nothing_else_counts() {
        assert_eq!(verify(account(), b"some data", &signature()), Err(NotSigned));
        assert_eq!(verify(EvmAddress([1; 20]), SIGNED, &signature()), Err(NotSigned));
        for byte in 0..65 {
            let mut other = signature();
            other[byte] ^= 1;
            assert_eq!(verify(account(), SIGNED, &other), Err(NotSigned), "byte {byte} does not count");
        }
        for v in (2..27).chain(29..=255) {
            let mut other = signature();
            other[64] = v;
            assert_eq!(verify(account(), SIGNED, &other), Err(NotSigned), "v {v}");
        }
        for length in [0, 1, 64, 66] {
            assert_eq!(verify(account(), SIGNED, &vec![0; length]), Err(NotSigned));
        }
        for filler in [0, 0xff] {
            assert_eq!(verify(account(), SIGNED, &[filler; 65]), Err(NotSigned));
            let mut other = signature();
            other[..32].fill(filler);
            assert_eq!(verify(account(), SIGNED, &other), Err(NotSigned));
        }
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let mut other = signature();
        let order =
            U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16).unwrap();
        let mirrored: [u8; 32] = (order - U256::from_be_slice(&other[32..64])).to_be_bytes();
        other[32..64].copy_from_slice(&mirrored);
        other[64] = if other[64] == 27 { 28 } else { 27 };
        assert_eq!(verify(account(), SIGNED, &other), Err(NotSigned));
    }

    #[test]
    fn digits_are_read_as_clients_write_them() {
        assert_eq!(bytes(" 0x00fF\n", 2), Some(vec![0, 255]));
        assert_eq!(bytes("00ff", 2), Some(vec![0, 255]));
        for bad in ["", "0x", "0x0", "0xzz", "0x 0", "00ff00", "0x0x00", "é0"] {
            assert_eq!(bytes(bad, 2), None, "{bad}");
        }
    }
}
