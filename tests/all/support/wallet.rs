//! Wallets that really sign.

use alloy::primitives::{B256, eip191_hash_message, hex, keccak256};
use k256::ecdsa::SigningKey;
use sp_core::{Pair, sr25519};
use tollgate::model::address::EvmAddress;

/// An Ethereum wallet.
pub struct EthereumWallet(SigningKey);

impl EthereumWallet {
    pub fn new(number: u8) -> Self {
        Self(SigningKey::from_slice(&[number; 32]).unwrap())
    }

    /// EIP-55.
    pub fn address(&self) -> String {
        let point = self.0.verifying_key().to_encoded_point(false);
        let hash = keccak256(&point.as_bytes()[1..]);
        EvmAddress(hash[12..].try_into().unwrap()).checksummed()
    }

    /// `personal_sign`.
    pub fn sign(&self, text: &str) -> String {
        self.sign_hash(&eip191_hash_message(text))
    }

    /// A signature over a hash, whatever it is of.
    pub fn sign_hash(&self, hash: &B256) -> String {
        let (signature, recovery) = self.0.sign_prehash_recoverable(hash.as_slice()).unwrap();
        let mut bytes = signature.to_vec();
        bytes.push(27 + recovery.to_byte());
        hex::encode_prefixed(bytes)
    }
}

/// A Bittensor wallet.
pub struct BittensorWallet(sr25519::Pair);

impl BittensorWallet {
    /// A development key: `//Alice`.
    pub fn new(path: &str) -> Self {
        Self(sr25519::Pair::from_string(path, None).unwrap())
    }

    pub fn address(&self) -> String {
        tollgate::model::hotkey::Hotkey(self.0.public().0).to_string()
    }

    /// As a command line does.
    pub fn sign(&self, text: &str) -> String {
        hex::encode(self.0.sign(text.as_bytes()).0)
    }

    /// As an extension of a browser does.
    pub fn sign_wrapped(&self, text: &str) -> String {
        self.sign(&format!("<Bytes>{text}</Bytes>"))
    }
}
