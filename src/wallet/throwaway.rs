//! A key for demonstrations: made when the program starts, kept nowhere, gone with it, and used for whoever asks.

use alloy::{
    hex,
    primitives::{B256, Signature},
};
use sp_core::{Pair, ecdsa};

use super::evm;
use crate::model::address::EvmAddress;

/// The key of an Ethereum account that is nobody's.
pub struct ThrowawayKey(ecdsa::Pair);

impl Default for ThrowawayKey {
    fn default() -> Self {
        Self(ecdsa::Pair::generate().0)
    }
}

impl ThrowawayKey {
    /// Its account.
    #[must_use]
    pub fn account(&self) -> EvmAddress {
        let digest = evm::digest(b"");
        let signature = Signature::from_raw(&self.signed(&digest)).ok();
        let account = signature.and_then(|signature| signature.recover_address_from_prehash(&B256::from(digest)).ok());
        EvmAddress(account.unwrap_or_default().into_array())
    }

    /// What a wallet's `personal_sign` answers, in hexadecimal digits.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        hex::encode_prefixed(self.signed(&evm::digest(message)))
    }

    fn signed(&self, digest: &[u8; 32]) -> [u8; evm::SIGNATURE_BYTES] {
        self.0.sign_prehashed(digest).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_signatures_are_its_accounts_and_every_process_has_another() {
        let (one, other) = (ThrowawayKey::default(), ThrowawayKey::default());
        assert_ne!(one.account(), other.account());
        let signature = evm::bytes(&one.sign(b"a text"), evm::SIGNATURE_BYTES).unwrap();
        assert_eq!(evm::verify(one.account(), b"a text", &signature), Ok(()));
        assert_eq!(evm::verify(other.account(), b"a text", &signature), Err(evm::NotSigned));
        assert_ne!(one.account(), EvmAddress([0; 20]));
    }
}
