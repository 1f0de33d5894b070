//! Keys that sign tokens, and what is published of them (RFC 7517, RFC 7518 §6, RFC 8037).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use josekit::{
    jwk::{
        Jwk, KeyPair,
        alg::{
            ec::{EcCurve, EcKeyPair},
            ed::{EdCurve, EdKeyPair},
            rsa::RsaKeyPair,
        },
    },
    jws::{ES256, EdDSA, JwsSigner, JwsVerifier, RS256},
};
use openssl::sha::sha256;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::JwsError;

/// What a key signs with (RFC 7518 §3.1, RFC 8037 §3.1). There is no `none` and nothing symmetric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, keys of at least 2048 bits.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// Why a key cannot be used. Nothing of the key is in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM text with a private key of a kind we know.
    #[error("there is no private key of RSA, P-256 or Ed25519 in it (PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted)")]
    NotAKey,
    /// An RSA key that is too short (RFC 7518 §3.3).
    #[error("an RSA key must have at least 2048 bits")]
    TooShort,
    /// A public key was given, and it belongs to another private key.
    #[error("the public key is not the private key's")]
    NotItsPublicKey,
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Library,
}

/// A key that signs. Its name, the key id, is its thumbprint (RFC 7638), so that it is the same in every process.
#[derive(Debug)]
pub struct SigningKey {
    algorithm: Algorithm,
    kid: String,
    jwk: Value,
    signer: Box<dyn JwsSigner>,
    verifier: Box<dyn JwsVerifier>,
    signature_bytes: usize,
}

impl Algorithm {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The word in a token's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// A new private key, as PKCS #8 PEM.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn generate(self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let pem = match self {
            Self::Rs256 => RsaKeyPair::generate(RSA_BITS).map(|pair| pair.to_pem_private_key()),
            Self::Es256 => EcKeyPair::generate(EcCurve::P256).map(|pair| pair.to_pem_private_key()),
            Self::EdDsa => EdKeyPair::generate(EdCurve::Ed25519).map(|pair| pair.to_pem_private_key()),
        };
        pem.map(Zeroizing::new).map_err(|_| KeyError::Library)
    }
}

/// Of keys we make; longer ones are accepted, and slow.
const RSA_BITS: u32 = 2048;
const SHORTEST_RSA_BITS: u32 = 2048;

impl SigningKey {
    /// Reads a private key, whose kind says what it signs with.
    ///
    /// # Errors
    /// When it is none that we use.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = RsaKeyPair::from_pem(pem) {
            let bytes = usize::try_from(pair.key_len()).unwrap_or_default();
            if pair.key_len() < SHORTEST_RSA_BITS / 8 {
                return Err(KeyError::TooShort);
            }
            let public = pair.to_jwk_public_key();
            let signer = RS256.signer_from_jwk(&pair.to_jwk_key_pair()).map_err(|_| KeyError::NotAKey)?;
            let verifier = RS256.verifier_from_jwk(&public).map_err(|_| KeyError::NotAKey)?;
            return Ok(Self::new(Algorithm::Rs256, &public, Box::new(signer), Box::new(verifier), bytes));
        }
        if let Ok(pair) = EcKeyPair::from_pem(pem, Some(EcCurve::P256)) {
            let public = pair.to_jwk_public_key();
            let signer = ES256.signer_from_jwk(&pair.to_jwk_key_pair()).map_err(|_| KeyError::NotAKey)?;
            let verifier = ES256.verifier_from_jwk(&public).map_err(|_| KeyError::NotAKey)?;
            return Ok(Self::new(Algorithm::Es256, &public, Box::new(signer), Box::new(verifier), 64));
        }
        let pair = EdKeyPair::from_pem(pem).map_err(|_| KeyError::NotAKey)?;
        if pair.curve() != EdCurve::Ed25519 {
            return Err(KeyError::NotAKey);
        }
        let public = pair.to_jwk_public_key();
        let signer = EdDSA.signer_from_jwk(&pair.to_jwk_key_pair()).map_err(|_| KeyError::NotAKey)?;
        let verifier = EdDSA.verifier_from_jwk(&public).map_err(|_| KeyError::NotAKey)?;
        Ok(Self::new(Algorithm::EdDsa, &public, Box::new(signer), Box::new(verifier), 64))
    }

    /// Reads a private key that was given with its public one, which must belong to it.
    ///
    /// # Errors
    /// When it does not, or one of them is none that we use.
    pub fn from_pair(private_pem: &[u8], public_pem: &[u8]) -> Result<Self, KeyError> {
        let key = Self::from_pem(private_pem)?;
        let public = openssl::pkey::PKey::public_key_from_pem(public_pem)
            .or_else(|_| {
                openssl::rsa::Rsa::public_key_from_pem_pkcs1(public_pem).and_then(openssl::pkey::PKey::from_rsa)
            })
            .map_err(|_| KeyError::NotItsPublicKey)?;
        let own = josekit_public_der(private_pem)?;
        let given = public.public_key_to_der().map_err(|_| KeyError::Library)?;
        if own == given { Ok(key) } else { Err(KeyError::NotItsPublicKey) }
    }

    fn new(
        algorithm: Algorithm,
        public: &Jwk,
        signer: Box<dyn JwsSigner>,
        verifier: Box<dyn JwsVerifier>,
        signature_bytes: usize,
    ) -> Self {
        let text = |name: &str| public.parameter(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        // RFC 7638 §3.2: only what is required of the kind of key, in the order of the alphabet.
        let required: &[&str] = match algorithm {
            Algorithm::Rs256 => &["e", "kty", "n"],
            Algorithm::Es256 => &["crv", "kty", "x", "y"],
            Algorithm::EdDsa => &["crv", "kty", "x"],
        };
        let members = required.iter().map(|name| format!("\"{name}\":\"{}\"", text(name)));
        let canonical = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        let kid = URL_SAFE_NO_PAD.encode(sha256(canonical.as_bytes()));
        let mut jwk = Map::new();
        for (name, value) in [("kty", text("kty")), ("use", "sig".into()), ("alg", algorithm.as_str().into())] {
            jwk.insert(name.into(), json!(value));
        }
        jwk.insert("kid".into(), json!(kid));
        for name in required.iter().filter(|name| **name != "kty") {
            jwk.insert((*name).into(), json!(text(name)));
        }
        Self { algorithm, kid, jwk: Value::Object(jwk), signer, verifier, signature_bytes }
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its name in tokens' headers.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half, to be published: `kty`, `use`, `alg`, `kid` and the key itself.
    #[must_use]
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JwsError> {
        self.signer.sign(message).map_err(|_| JwsError::Library)
    }

    /// Whether the signature is this key's. Its length is looked at first: the library takes for granted that it is right.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == self.signature_bytes && self.verifier.verify(message, signature).is_ok()
    }
}

fn josekit_public_der(private_pem: &[u8]) -> Result<Vec<u8>, KeyError> {
    let rsa = RsaKeyPair::from_pem(private_pem).map(|pair| pair.to_der_public_key());
    let ec = || EcKeyPair::from_pem(private_pem, Some(EcCurve::P256)).map(|pair| pair.to_der_public_key());
    let ed = || EdKeyPair::from_pem(private_pem).map(|pair| pair.to_der_public_key());
    rsa.or_else(|_| ec()).or_else(|_| ed()).map_err(|_| KeyError::NotAKey)
}
