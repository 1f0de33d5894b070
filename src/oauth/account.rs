//! The wallet that is to sign, and whether it has.

use axum::http::StatusCode;

use super::{Error, State};
use crate::{
    model::{address::EvmAddress, client::SignMethod, hotkey::Hotkey},
    wallet::{evm, sign_in},
};

/// A wallet's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Ethereum.
    Evm(EvmAddress),
    /// Bittensor.
    Substrate(Hotkey),
}

impl Account {
    /// Reads an address: EIP-55 or lower case, or SS58 with any prefix. Two spellings of one account are one account.
    ///
    /// # Errors
    /// 400.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let digits = text.get(2..).unwrap_or_default();
        let ethereum = text.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
        if ethereum && digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            // All in upper case is no checksum, unless it is the one.
            let address = text.parse::<EvmAddress>().ok();
            let lower = digits.bytes().all(|byte| !byte.is_ascii_uppercase());
            let address = address.filter(|address| lower || address.checksummed() == text);
            return address.map(Self::Evm).ok_or_else(|| Error::bad_request("Invalid EVM address"));
        }
        sign_in::account(text).map(Self::Substrate).ok_or_else(|| Error::bad_request("Invalid SS58 address"))
    }

    /// Reads an address that may be left out; an empty text is none.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_if_given(text: Option<&str>) -> Result<Option<Self>, Error> {
        text.filter(|text| !text.is_empty()).map(Self::parse).transpose()
    }

    /// Of which kind of wallet.
    #[must_use]
    pub fn method(&self) -> SignMethod {
        match self {
            Self::Evm(_) => SignMethod::Evm,
            Self::Substrate(_) => SignMethod::Sr25519,
        }
    }

    /// Its one spelling: EIP-55, or SS58 with prefix 42.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Evm(address) => address.checksummed(),
            Self::Substrate(account) => account.to_string(),
        }
    }

    /// Refuses a wallet of another kind than the client's users have.
    ///
    /// # Errors
    /// 400, which names the client's kind.
    pub fn of_kind(self, wanted: SignMethod) -> Result<Self, Error> {
        if self.method() == wanted {
            return Ok(self);
        }
        Err(Error::bad_request(format!("This client's users sign with {} wallets", wanted.as_str())))
    }

    /// Whether this account has signed the message.
    ///
    /// # Errors
    /// 401; 503 if the account is a contract and the chain cannot be asked.
    pub async fn verify(&self, state: &State, message: &str, unverified_signature: &str) -> Result<(), Error> {
        let signed = match self {
            Self::Substrate(account) => {
                let signature = evm::bytes(unverified_signature, sign_in::LONGEST_SIGNATURE);
                let wallets = state.settings.wallets;
                let accepted = sign_in::Accepted { ed25519: wallets.ed25519, ecdsa: wallets.ecdsa };
                signature
                    .is_some_and(|signature| sign_in::verify(account, message.as_bytes(), &signature, accepted).is_ok())
            }
            Self::Evm(address) => {
                let limit = crate::chain::evm::LONGEST_SIGNATURE;
                match evm::bytes(unverified_signature, limit) {
                    None => false,
                    Some(signature) if evm::verify(*address, message.as_bytes(), &signature).is_ok() => true,
                    Some(signature) => contract_signed(state, *address, message, &signature).await?,
                }
            }
        };
        if signed { Ok(()) } else { Err(Error::http(StatusCode::UNAUTHORIZED, "Invalid signature")) }
    }
}

/// ERC-1271 and ERC-6492. Without a node nobody can be asked, and accounts that are contracts cannot sign in.
async fn contract_signed(state: &State, address: EvmAddress, message: &str, signature: &[u8]) -> Result<bool, Error> {
    let Some(node) = &state.facts.ethereum else { return Ok(false) };
    let answer = node.accepts_signature(address, evm::digest(message.as_bytes()), signature).await;
    answer.map_err(|failed| {
        tracing::warn!(%failed, "a contract's signature cannot be checked");
        Error::unavailable("The Ethereum node cannot be asked about this signature; try again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_account_has_one_spelling() {
        let checksummed = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
        let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        for (text, expected) in [
            (checksummed, checksummed),
            ("0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc", checksummed),
            (alice, alice),
            ("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5", alice),
        ] {
            assert_eq!(Account::parse(text).unwrap().text(), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_as_what_it_looks_like() {
        for (text, expected) in [
            ("0x3C44CDDDB6A900FA2B585DD299E03D12FA4293BC", "Invalid EVM address"), // all upper case
            ("0X3c44cdddb6a900fa2b585dd299e03d12fa4293bc", "Invalid EVM address"),
            ("0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC", "Invalid EVM address"), // checksum
            ("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293B", "Invalid SS58 address"),
            ("0xd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d", "Invalid SS58 address"),
            ("", "Invalid SS58 address"),
            ("é", "Invalid SS58 address"),
        ] {
            let error = Account::parse(text).unwrap_err();
            assert!(format!("{error:?}").contains(expected), "{text}: {error:?}");
        }
    }
}
