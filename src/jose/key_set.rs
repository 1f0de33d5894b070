//! The keys in use, as one set (RFC 7517 §5): the one that signs, and those that are published beside it.

use arc_swap::ArcSwap;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Algorithm, JwsError, SigningKey, Verified, verify_compact};

/// Keys of which the first signs and all verify. They can be exchanged while somebody uses them.
pub struct KeySet(ArcSwap<Vec<SigningKey>>);

impl KeySet {
    /// These keys, the one that signs first.
    #[must_use]
    pub fn new(keys: Vec<SigningKey>) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// Others take their place.
    pub fn replace(&self, keys: Vec<SigningKey>) {
        self.0.store(keys.into());
    }

    /// Signs claims with the first key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn sign(&self, claims: &impl Serialize, typ: &str) -> Result<String, JwsError> {
        self.0.load().first().ok_or(JwsError::UnknownKey)?.sign_compact(typ, claims)
    }

    /// What the first key signs with.
    #[must_use]
    pub fn signs_with(&self) -> Algorithm {
        self.0.load().first().map_or(Algorithm::Rs256, SigningKey::algorithm)
    }

    /// What a token of one of these types says, if one of the keys signed it. Issuer, audience and expiry are the caller's
    /// to check.
    ///
    /// # Errors
    /// When it is not such a token.
    pub fn verify<T: DeserializeOwned>(&self, unverified_token: &str, types: &[&str]) -> Result<Verified<T>, JwsError> {
        verify_compact(unverified_token, types, self.0.load().iter())
    }

    /// Whether a key of this name is still among them. The name is the key's thumbprint, so it is the same key.
    #[must_use]
    pub fn has(&self, kid: &str) -> bool {
        self.0.load().iter().any(|key| key.kid() == kid)
    }

    /// The public halves.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.0.load().iter().map(|key| key.jwk().clone()).collect::<Vec<_>>() })
    }

    /// What tokens are signed with, now and around a rotation: the words of `id_token_signing_alg_values_supported`.
    #[must_use]
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut words = Vec::new();
        for key in self.0.load().iter() {
            let word = key.algorithm().as_str();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words
    }
}
