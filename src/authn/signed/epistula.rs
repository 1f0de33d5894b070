//! Epistula (nexus.md section 6.2): version 2, and the dialect with `X-` before every name.
//!
//! The secret signatures of version 2 are not looked at. They let a receiver refuse strangers by the header alone, and
//! there are two incompatible ways to write the interval they sign; whom the other headers do not prove, they would not
//! prove either.

use http::HeaderMap;

use super::{MALFORMED, Protocol, UNSUPPORTED_VERSION, Unverified, number, optional, required, sender, signature};
use crate::{
    model::{address::hex_into, decision::Denial},
    wallet::substrate::Scheme,
};

/// The headers of version 2.
pub(super) const NAMES: [&str; 6] = [VERSION, TIMESTAMP, UUID, SIGNED_BY, SIGNED_FOR, SIGNATURE];
const VERSION: &str = "epistula-version";
const TIMESTAMP: &str = "epistula-timestamp";
const UUID: &str = "epistula-uuid";
const SIGNED_BY: &str = "epistula-signed-by";
const SIGNED_FOR: &str = "epistula-signed-for";
const SIGNATURE: &str = "epistula-request-signature";

/// The headers of the dialect.
pub(super) const LITE_NAMES: [&str; 3] = [LITE_TIMESTAMP, LITE_SIGNATURE, LITE_HOTKEY];
const LITE_TIMESTAMP: &str = "x-epistula-timestamp";
const LITE_SIGNATURE: &str = "x-epistula-signature";
const LITE_HOTKEY: &str = "x-epistula-hotkey";

/// Version 2: its time is in milliseconds.
pub(super) fn read(headers: &HeaderMap) -> Result<Unverified, Denial> {
    if required(headers, VERSION)? != "2" {
        return Err(UNSUPPORTED_VERSION);
    }
    let stamp = required(headers, TIMESTAMP)?;
    let at_nanos = number(stamp)? * 1_000_000;
    let uuid = required(headers, UUID)?;
    // All that matters is that it is short and cannot be mistaken for its neighbours in what is signed.
    if uuid.len() != 36 || uuid::Uuid::try_parse(uuid).is_err() {
        return Err(MALFORMED);
    }
    let sender = sender(required(headers, SIGNED_BY)?)?;
    let receiver = optional(headers, SIGNED_FOR)?.map(Into::into);
    let signature = signature(required(headers, SIGNATURE)?)?;
    let (protocol, scheme) = (Protocol::Epistula, Scheme::Sr25519);
    let (stamp, uuid) = (stamp.into(), uuid.into());
    Ok(Unverified { protocol, sender, scheme, signature, receiver, at_nanos, stamp, uuid })
}

/// The dialect: its time is in seconds or in nanoseconds, and so large that one is not mistaken for the other.
pub(super) fn read_lite(headers: &HeaderMap) -> Result<Unverified, Denial> {
    let stamp = required(headers, LITE_TIMESTAMP)?;
    let at = number(stamp)?;
    let at_nanos = if at < SECONDS_OF_THE_YEAR_5138 { at * 1_000_000_000 } else { at };
    let signature = signature(required(headers, LITE_SIGNATURE)?)?;
    let sender = sender(required(headers, LITE_HOTKEY)?)?;
    let (protocol, scheme) = (Protocol::EpistulaLite, Scheme::Sr25519);
    let (stamp, uuid) = (stamp.into(), Box::default());
    Ok(Unverified { protocol, sender, scheme, signature, receiver: None, at_nanos, stamp, uuid })
}

const SECONDS_OF_THE_YEAR_5138: i128 = 100_000_000_000;

/// `<hash>.<uuid>.<timestamp>.<receiver>`, where the last may be empty.
pub(super) fn message(claim: &Unverified, body_sha256: &[u8; 32]) -> Vec<u8> {
    let mut message = Vec::with_capacity(192);
    hex_into(&mut message, body_sha256);
    for part in [&*claim.uuid, &*claim.stamp, claim.receiver.as_deref().unwrap_or_default()] {
        message.push(b'.');
        message.extend_from_slice(part.as_bytes());
    }
    message
}

/// `<timestamp>.<hash>`
pub(super) fn message_lite(claim: &Unverified, body_sha256: &[u8; 32]) -> Vec<u8> {
    let mut message = Vec::with_capacity(96);
    message.extend_from_slice(claim.stamp.as_bytes());
    message.push(b'.');
    hex_into(&mut message, body_sha256);
    message
}
