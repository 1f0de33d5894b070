//! btauth/1 (nexus.md section 6.1): its headers, and what is signed.

use http::HeaderMap;

use super::{
    MALFORMED, Protocol, Sent, UNSUPPORTED_VERSION, Unverified, number, optional, required, sender, signature,
};
use crate::{
    model::{address::hex_into, decision::Denial},
    wallet::substrate::Scheme,
};

/// Its headers. Other protocols have used some of the names, but none has used the first.
pub(super) const NAMES: [&str; 6] = [VERSION, HOTKEY, RECEIVER, NONCE, CRYPTO, SIGNATURE];
const VERSION: &str = "x-bittensor-version";
const HOTKEY: &str = "x-bittensor-hotkey";
const RECEIVER: &str = "x-bittensor-receiver";
const NONCE: &str = "x-bittensor-nonce";
const CRYPTO: &str = "x-bittensor-crypto";
const SIGNATURE: &str = "x-bittensor-signature";

/// In the order of the reference, so that of several mistakes the same one is named.
pub(super) fn read(headers: &HeaderMap) -> Result<Unverified, Denial> {
    if required(headers, VERSION)? != "1" {
        return Err(UNSUPPORTED_VERSION);
    }
    let sender = sender(required(headers, HOTKEY)?)?;
    let stamp = required(headers, NONCE)?;
    let at_nanos = number(stamp)?;
    let scheme = match optional(headers, CRYPTO)? {
        None | Some("sr25519") => Scheme::Sr25519,
        Some("ed25519") => Scheme::Ed25519,
        Some(_) => return Err(MALFORMED),
    };
    let signature = signature(required(headers, SIGNATURE)?)?;
    let receiver = optional(headers, RECEIVER)?.map(Into::into);
    let (stamp, uuid) = (stamp.into(), Box::default());
    Ok(Unverified { protocol: Protocol::Btauth, sender, scheme, signature, receiver, at_nanos, stamp, uuid })
}

/// Eight lines.
pub(super) fn message(claim: &Unverified, sent: &Sent<'_>) -> Vec<u8> {
    let scheme: &[u8] = match claim.scheme {
        Scheme::Sr25519 => b"sr25519",
        Scheme::Ed25519 => b"ed25519",
    };
    let method = sent.method.as_str().to_ascii_uppercase();
    let sender = claim.sender.to_string();
    let mut hash = Vec::with_capacity(64);
    hex_into(&mut hash, sent.body_sha256);
    let receiver = claim.receiver.as_deref().unwrap_or("-").as_bytes();
    let (stamp, sender) = (claim.stamp.as_bytes(), sender.as_bytes());
    [b"btauth/1", scheme, method.as_bytes(), sent.target, &hash, stamp, sender, receiver].join(b"\n".as_slice())
}
