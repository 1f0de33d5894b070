//! Ethereum addresses, as accounts that hold credits.

use std::{fmt, str::FromStr};

/// A 20-byte Ethereum address. Written in lower case; a mixed-case text is accepted only with a correct EIP-55
/// checksum, as the replaced system's library did (nevermined.md section 4), so that a mistyped account is not charged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct EvmAddress(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 20]);

/// Why a text is not an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// Not `0x` and 40 hexadecimal digits.
    #[error("an Ethereum address is 0x and 40 hexadecimal digits")]
    Form,
    /// Mixed case, and not the case EIP-55 prescribes.
    #[error("the letters' case is not the EIP-55 checksum of this address: it is mistyped")]
    Checksum,
}

impl FromStr for EvmAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let digits = text.strip_prefix("0x").ok_or(AddressError::Form)?;
        let mut bytes = [0; 20];
        hex_decode(digits, &mut bytes).ok_or(AddressError::Form)?;
        let address = Self(bytes);
        let mixed = digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
        if mixed && address.checksummed() != text {
            return Err(AddressError::Checksum);
        }
        Ok(address)
    }
}

impl EvmAddress {
    /// The EIP-55 spelling, which the marketplace and the access tables use.
    #[must_use]
    pub fn checksummed(&self) -> String {
        alloy::primitives::Address::from(self.0).to_checksum(None)
    }
}

impl fmt::Display for EvmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hex_text(&mut [0; 42], "0x", &self.0))
    }
}

impl fmt::Debug for EvmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Decodes exactly as many bytes as `into` holds.
pub(crate) fn hex_decode(digits: &str, into: &mut [u8]) -> Option<()> {
    if digits.len() != into.len().checked_mul(2)? {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    for (byte, pair) in into.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let [high, low] = *pair else { return None };
        *byte = (nibble(high)? << 4) | nibble(low)?;
    }
    Some(())
}

/// Appends the digits of `bytes`, in lower case.
pub(crate) fn hex_into(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + (value - 10) }
}

/// Writes a prefix and the digits of `bytes`, in lower case, into a buffer of just that length. A formatter takes a
/// microsecond for a DID, which is paid on the request path.
pub(crate) fn hex_text<'b>(buffer: &'b mut [u8], prefix: &str, bytes: &[u8]) -> &'b str {
    if let Some((head, digits)) = buffer.split_at_mut_checked(prefix.len()) {
        head.copy_from_slice(prefix.as_bytes());
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
    }
    std::str::from_utf8(buffer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_wrong_checksum_is_refused() {
        let right = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
        assert_eq!(right.parse::<EvmAddress>().unwrap().checksummed(), right);
        assert!(right.to_lowercase().parse::<EvmAddress>().is_ok());
        assert_eq!("0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse::<EvmAddress>(), Err(AddressError::Checksum));
        for bad in [
            "",
            "0x",
            "3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293B",
            "0x+C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "0xé",
        ] {
            assert_eq!(bad.parse::<EvmAddress>(), Err(AddressError::Form), "{bad}");
        }
    }
}
