//! Requests that their sender has signed with its hotkey: **btauth/1** and **Epistula** (nexus.md section 6).
//!
//! What a signature covers is told only when the whole body has arrived, so it goes in two steps: [`presented`] reads the
//! headers, [`Unverified::check`] refuses what could not be accepted whatever the body is, and [`Unverified::verify`]
//! looks at the signature. A verified request may be used once: whoever calls this has to see to that, with
//! [`Verified::nonce`].
//!
//! The signatures are over the bytes themselves. One over the message between `<Bytes>` and `</Bytes>` is refused: only
//! wallets in browsers make such, of what some page asks them to sign.

mod btauth;
mod epistula;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use crate::{
    config::SignedRequests,
    model::{
        address::hex_decode,
        decision::Denial,
        hotkey::Hotkey,
        identity::{Identity, Proof, Subject},
        nonce::Nonce,
    },
    wallet::substrate::{self, NotSigned, SIGNATURE_BYTES, Scheme},
};

/// A way to sign requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// btauth/1, of Bittensor's SDK 11: covers method, target, body, time, sender and receiver (nexus.md section 6.1).
    Btauth,
    /// Epistula, version 2: covers body, time, sender and receiver, not what is asked for (nexus.md section 6.2).
    Epistula,
    /// Its dialect with `X-` before every name: covers body, time and sender.
    EpistulaLite,
}

/// What the headers of a request say. Nothing of it is known to be true.
#[derive(Debug)]
pub struct Unverified {
    protocol: Protocol,
    sender: Hotkey,
    scheme: Scheme,
    signature: [u8; SIGNATURE_BYTES],
    /// The text, which need not be an address.
    receiver: Option<Box<str>>,
    /// When it was signed, in nanoseconds since the Unix epoch.
    at_nanos: i128,
    /// The same as it was written, which is what was signed.
    stamp: Box<str>,
    /// Epistula's name for the request; empty elsewhere.
    uuid: Box<str>,
}

/// What a signature can cover besides the headers of its protocol.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query as they arrived, before any normalisation: it is what was signed.
    pub target: &'a [u8],
    /// SHA-256 of the body.
    pub body_sha256: &'a [u8; 32],
}

/// A request whose sender is known.
#[derive(Debug)]
pub struct Verified {
    /// The sender.
    pub identity: Identity,
    /// To be used once.
    pub nonce: Nonce,
}

/// Reads the signature of a request. None: there is not one header of this protocol.
///
/// # Errors
/// `malformed_signature_headers` when there is a part of them, one of them twice, or one that says nothing;
/// `unsupported_version`.
pub fn presented(headers: &HeaderMap, protocol: Protocol) -> Result<Option<Unverified>, Denial> {
    if !protocol.is_in(headers) {
        return Ok(None);
    }
    let read = match protocol {
        Protocol::Btauth => btauth::read,
        Protocol::Epistula => epistula::read,
        Protocol::EpistulaLite => epistula::read_lite,
    };
    read(headers).map(Some)
}

impl Protocol {
    fn is_in(self, headers: &HeaderMap) -> bool {
        let names: &[&str] = match self {
            Self::Btauth => &btauth::NAMES,
            Self::Epistula => &epistula::NAMES,
            Self::EpistulaLite => &epistula::LITE_NAMES,
        };
        names.iter().any(|name| headers.contains_key(*name))
    }

    fn proof(self) -> Proof {
        match self {
            Self::Btauth => Proof::Btauth,
            Self::Epistula => Proof::Epistula,
            Self::EpistulaLite => Proof::EpistulaLite,
        }
    }

    /// How old a request may be.
    fn max_age(self, terms: &SignedRequests) -> Duration {
        match self {
            Self::Btauth => terms.max_age,
            Self::Epistula | Self::EpistulaLite => terms.epistula_max_age,
        }
    }
}

impl Unverified {
    /// Whether the request is for us and of now; and for how long it will be, which is how long its body may take to
    /// arrive.
    ///
    /// # Errors
    /// `wrong_receiver`, `stale`, `from_the_future`.
    pub fn check(&self, terms: &SignedRequests, now_nanos: i128) -> Result<Duration, Denial> {
        let receiver = self.receiver.as_deref().map(str::parse::<Hotkey>);
        let for_us = match receiver {
            Some(Ok(receiver)) => terms.receivers.contains(&receiver),
            Some(Err(_)) => false,
            // There is no place for one in that dialect: who accepts it has been told what that means.
            None => !terms.require_receiver || self.protocol == Protocol::EpistulaLite,
        };
        if !for_us {
            return Err(Denial::InvalidCredential("wrong_receiver"));
        }
        let max_age = self.protocol.max_age(terms);
        let age = now_nanos - self.at_nanos;
        if age > nanos(max_age) {
            return Err(Denial::InvalidCredential("stale"));
        }
        if -age > nanos(terms.max_skew) {
            return Err(Denial::InvalidCredential("from_the_future"));
        }
        let left = u64::try_from(nanos(max_age) - age).unwrap_or(u64::MAX);
        Ok(Duration::from_nanos(left))
    }

    /// Whether its sender has signed just this, just now.
    ///
    /// # Errors
    /// As [`Self::check`], which counts at this moment again; `bad_signature`; `unsupported_key_type` for accounts that
    /// cannot sign like this at all.
    pub fn verify(&self, sent: &Sent<'_>, terms: &SignedRequests, now_nanos: i128) -> Result<Verified, Denial> {
        self.check(terms, now_nanos)?;
        let message = self.message(sent);
        substrate::verify(&self.sender, self.scheme, &message, &self.signature).map_err(|error| {
            Denial::InvalidCredential(match error {
                NotSigned::NotAKey => "unsupported_key_type",
                NotSigned::WeakKey | NotSigned::Forged => "bad_signature",
            })
        })?;
        let identity = Identity {
            subject: Subject::Hotkey(self.sender),
            proof: self.protocol.proof(),
            not_before: None,
            expires_at: None,
            issued_at: None,
            entitlement: None,
            access_token: None,
        };
        // Another gateway's clock may be behind ours by as much as a sender's may be ahead.
        let until = self.at_nanos.max(now_nanos) + nanos(self.protocol.max_age(terms)) + nanos(terms.max_skew);
        let nonce = Nonce {
            id: self.id(&message),
            signed_at_micros: micros(self.at_nanos),
            until_micros: micros(until).saturating_add(1),
        };
        Ok(Verified { identity, nonce })
    }

    fn message(&self, sent: &Sent<'_>) -> Vec<u8> {
        match self.protocol {
            Protocol::Btauth => btauth::message(self, sent),
            Protocol::Epistula => epistula::message(self, sent.body_sha256),
            Protocol::EpistulaLite => epistula::message_lite(self, sent.body_sha256),
        }
    }

    /// What the sender uses once. The lite dialect has nothing of the kind, so there it is what was signed: the same body
    /// twice in the same second is the same request.
    fn id(&self, message: &[u8]) -> [u8; 32] {
        let once = match self.protocol {
            Protocol::Btauth => self.stamp.as_bytes(),
            Protocol::Epistula => self.uuid.as_bytes(),
            Protocol::EpistulaLite => message,
        };
        let hash = Sha256::new().chain_update(self.protocol.proof().as_str()).chain_update(self.sender.0);
        hash.chain_update(once).finalize().into()
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 4)
}

fn micros(nanos: i128) -> i64 {
    i64::try_from(nanos.div_euclid(1000)).unwrap_or(i64::MAX)
}

const MALFORMED: Denial = Denial::InvalidCredential("malformed_signature_headers");
const UNSUPPORTED_VERSION: Denial = Denial::InvalidCredential("unsupported_version");

/// The value of a header that is there at most once: two would leave it open which one was meant.
fn optional<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Denial> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| MALFORMED),
        (Some(_), Some(_)) => Err(MALFORMED),
    }
}

/// The value of a header that is there exactly once.
fn required<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Denial> {
    optional(headers, name)?.ok_or(MALFORMED)
}

fn sender(text: &str) -> Result<Hotkey, Denial> {
    text.parse().map_err(|_| MALFORMED)
}

/// A decimal number of 1 to 20 digits and nothing else.
fn number(text: &str) -> Result<i128, Denial> {
    let digits = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().map_err(|_| MALFORMED) } else { Err(MALFORMED) }
}

/// 128 hexadecimal digits, after `0x` or not.
fn signature(text: &str) -> Result<[u8; SIGNATURE_BYTES], Denial> {
    let mut signature = [0; SIGNATURE_BYTES];
    hex_decode(text.strip_prefix("0x").unwrap_or(text), &mut signature).ok_or(MALFORMED)?;
    Ok(signature)
}
