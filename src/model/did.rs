//! Decentralised identifiers of Nevermined: services and plans.

use std::{fmt, str::FromStr};

use alloy::primitives::U256;

use super::address::{hex_decode, hex_text};

/// A `did:nv:` identifier: 32 bytes. A service's DID names its description at the marketplace; a plan's
/// (subscription's) is at the same time the ERC-1155 token id whose balance is the holder's credits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Did(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// The text was not a DID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a DID is `did:nv:` and 64 hexadecimal digits")]
pub struct NotADid;

impl Did {
    /// The 64 digits without a prefix, as `subscriptionDid` and `_tokenId` are written.
    ///
    /// # Errors
    /// When the text, after an optional `0x`, is not 64 hexadecimal digits.
    pub fn from_digits(text: &str) -> Result<Self, NotADid> {
        let mut bytes = [0; 32];
        hex_decode(text.strip_prefix("0x").unwrap_or(text), &mut bytes).ok_or(NotADid)?;
        Ok(Self(bytes))
    }

    /// The 64 lower-case digits.
    #[must_use]
    pub fn digits(&self) -> String {
        self.to_string().split_off(PREFIX.len())
    }

    /// The whole text, written into `buffer`.
    #[must_use]
    pub fn text<'b>(&self, buffer: &'b mut [u8; 71]) -> &'b str {
        hex_text(buffer, PREFIX, &self.0)
    }

    /// The host label that addresses a service's open endpoints: the number in base 36, lower case, no padding
    /// (nevermined.md section 6).
    #[must_use]
    pub fn to_label(&self) -> String {
        let mut rest = U256::from_be_bytes(self.0);
        let mut label = Vec::with_capacity(50);
        let base = U256::from(36);
        loop {
            let digit = (rest % base).to::<u32>();
            label.push(char::from_digit(digit, 36).unwrap_or('0'));
            rest /= base;
            if rest.is_zero() {
                break;
            }
        }
        label.into_iter().rev().collect()
    }

    /// Reads a host label back. Unlike the replaced system this also finds identifiers that begin with zeros, and
    /// takes a label for a DID only if it is plausible as one: 40 to 50 base-36 digits, so that `www` or `api` never
    /// cause a look-up (a random DID has fewer than 40 digits once in 2⁵⁰). Host names are alike in any case.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        let plausible = (40..=50).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plausible {
            return None;
        }
        let number = U256::from_str_radix(label, 36).ok()?;
        Some(Self(number.to_be_bytes()))
    }
}

const PREFIX: &str = "did:nv:";

impl FromStr for Did {
    type Err = NotADid;

    fn from_str(text: &str) -> Result<Self, NotADid> {
        Self::from_digits(text.strip_prefix(PREFIX).ok_or(NotADid)?)
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; 71]))
    }
}

impl fmt::Debug for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// nevermined.md section 6; the last one is the one in 256 that the replaced system could not address.
    const LABELS: [(&str, &str); 3] = [
        (
            "55f246ab9c77dc131787f046d460156dd6a109e2785dd24835bc24bb608c35ec",
            "2546sz1fhrnw2a3osie9x94esy7s5kanrmd549pzaijtgda57w",
        ),
        (
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof",
        ),
        (
            "00ababababababababababababababababababababababababababababababab",
            "lnskv07zwmsk66lvfsspt6gj5974l5mi756amczg556rd1gr",
        ),
    ];

    #[test]
    fn labels_go_both_ways() {
        for (digits, label) in LABELS {
            let did = Did::from_digits(digits).unwrap();
            assert_eq!(did.to_label(), label);
            assert_eq!(Did::from_label(label), Some(did));
            assert_eq!(Did::from_label(&label.to_uppercase()), Some(did));
        }
    }

    #[test]
    fn ordinary_host_names_are_not_labels() {
        for label in ["www", "api", "localhost", "", "api-foo", &"z".repeat(50), &"-".repeat(45), &"1".repeat(51)] {
            assert_eq!(Did::from_label(label), None, "{label}");
        }
    }
}
