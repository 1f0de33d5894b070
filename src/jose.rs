//! JOSE: encrypted tokens (JWE), signed tokens (JWS) and the keys that sign them (JWK). Nobody else names josekit.

mod jwe;
mod jwk;
mod jws;
mod key_set;
#[cfg(test)]
pub(crate) mod vectors;

pub use self::{
    jwe::{JweError, MAX_TOKEN_BYTES, decrypt_compact, encrypt_compact},
    jwk::{Algorithm, KeyError, SigningKey},
    jws::{JwsError, MAX_SIGNED_TOKEN_BYTES, Verified, verify_compact},
    key_set::KeySet,
};
