//! Bittensor accounts, as hotkeys that call and are looked up.

use std::{fmt, str::FromStr};

use sp_core::crypto::{AccountId32, Ss58AddressFormat, Ss58Codec};

/// A 32-byte Bittensor account: a neuron's hotkey. Written as SS58 with prefix 42: 48 characters, the first a `5`.
///
/// Only that spelling is read, so one account has one name in keys, lists and logs. The account of zeros is nobody's, and
/// reading a storage item that does not exist gives it (subtensor.md section 3.3): it cannot be made from text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hotkey(pub [u8; 32]);

/// The text is not an account's address: its length, its alphabet, its prefix or its checksum is wrong.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a hotkey is an SS58 address of 48 characters with prefix 42")]
pub struct NotAHotkey;

/// SS58 prefix 42, "generic Substrate", which Bittensor uses.
const PREFIX: u16 = 42;
/// Characters of every address with that prefix.
const CHARACTERS: usize = 48;

impl FromStr for Hotkey {
    type Err = NotAHotkey;

    fn from_str(text: &str) -> Result<Self, NotAHotkey> {
        // Before any arithmetic: the text may come from a stranger, and base 58 is quadratic.
        if text.len() != CHARACTERS {
            return Err(NotAHotkey);
        }
        let prefix = Ss58AddressFormat::custom(PREFIX);
        let (account, found) = AccountId32::from_ss58check_with_version(text).map_err(|_| NotAHotkey)?;
        let account: [u8; 32] = account.into();
        if found != prefix || account == [0; 32] {
            return Err(NotAHotkey);
        }
        Ok(Self(account))
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = AccountId32::from(self.0).to_ss58check_with_version(Ss58AddressFormat::custom(PREFIX));
        f.write_str(&address)
    }
}

impl fmt::Debug for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    #[test]
    fn an_address_is_read_and_written_in_one_spelling() {
        let alice: Hotkey = ALICE.parse().unwrap();
        assert_eq!(alice.0[..4], [0xd4, 0x35, 0x93, 0xc7]);
        assert_eq!(alice.to_string(), ALICE);
    }

    #[test]
    fn what_is_not_exactly_that_is_no_hotkey() {
        for text in [
            "",
            "self",
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ", // checksum
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQ",  // short
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQYY", // long
            " 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQ", // a blank in front
            "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5", // Alice with Polkadot's prefix
            "5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM", // nobody
            "0rwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQYYY", // not base 58
        ] {
            assert_eq!(text.parse::<Hotkey>(), Err(NotAHotkey), "{text}");
        }
    }
}
