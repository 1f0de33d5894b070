//! Which scopes are asked for, and whether they may be.

use std::borrow::Cow;

use axum::http::StatusCode;

use super::{
    Code, Error,
    scope::{Scope, allows},
};
use crate::{
    config::Network,
    model::client::{Client, SignMethod},
};

/// Why scopes cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// One is none.
    Syntax(String),
    /// One is of another network.
    Network(String),
    /// One is not of this kind of wallet.
    Wallet(String, SignMethod),
    /// One is not on the client's list.
    NotAllowed(String),
}

/// Scopes, read.
///
/// # Errors
/// [`Refused`], for the first that cannot be asked for.
pub fn scopes<S: AsRef<str>>(texts: &[S], network: Network) -> Result<Vec<Scope>, Refused> {
    let parse = |text: &S| {
        let text = text.as_ref();
        let scope: Scope = text.parse().map_err(|_| Refused::Syntax(text.to_owned()))?;
        if scope.exists_on(network) { Ok(scope) } else { Err(Refused::Network(text.to_owned())) }
    };
    texts.iter().map(parse).collect()
}

/// Whether all of them can be asked of such a wallet.
///
/// # Errors
/// [`Refused::Wallet`].
pub fn suit(scopes: &[Scope], wallet: SignMethod) -> Result<(), Refused> {
    let odd = scopes.iter().find(|scope| !scope.suits(wallet));
    odd.map_or(Ok(()), |scope| Err(Refused::Wallet(scope.to_string(), wallet)))
}

/// Whether a client may ask for all of them.
///
/// # Errors
/// [`Refused::NotAllowed`].
pub fn allowed(scopes: &[Scope], client: &Client) -> Result<(), Refused> {
    let odd = scopes.iter().find(|scope| !allows(&client.allowed_scopes, scope));
    odd.map_or(Ok(()), |scope| Err(Refused::NotAllowed(scope.to_string())))
}

/// Scopes as they were written, with a blank between them.
#[must_use]
pub fn joined(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}

/// The scopes in a text with blanks between them, as the store keeps it.
#[must_use]
pub fn split(scope: &str) -> Vec<String> {
    scope.split_ascii_whitespace().map(str::to_owned).collect()
}

impl Refused {
    /// What the caller is told.
    #[must_use]
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            Self::Syntax(scope) => format!("Invalid scope format: {}", shortened(scope)).into(),
            Self::Network(scope) => format!("Scope {scope} is available on mainnet only").into(),
            Self::Wallet(scope, wallet) => {
                format!("Scope {scope} is not available for {} wallets", wallet.as_str().to_uppercase()).into()
            }
            Self::NotAllowed(scope) => format!("Scope {scope} is not allowed for this client").into(),
        }
    }

    /// 400, and 403 for what the client may not ask for.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        if matches!(self, Self::NotAllowed(_)) { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST }
    }

    /// For endpoints of OAuth: `invalid_scope` (RFC 6749 §5.2); the replaced server used HTTP's words.
    #[must_use]
    pub fn oauth(&self) -> Error {
        let status = self.status();
        let phrase = if status == StatusCode::FORBIDDEN { "Forbidden" } else { "Bad Request" };
        Error::oauth(Code::InvalidScope, self.text()).or_as_replaced(status, phrase)
    }
}

impl From<Refused> for Error {
    /// For endpoints that are not OAuth's.
    fn from(refused: Refused) -> Self {
        Self::http(refused.status(), refused.text())
    }
}

/// Whatever a stranger wrote is repeated in part only.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_for_is_named() {
        for (asked, network, expected) in [
            (&["openid", "nonsense"][..], Network::Mainnet, "Invalid scope format: nonsense"),
            (&["openid", ""], Network::Mainnet, "Invalid scope format: "),
            (&["staker:1"], Network::Testnet, "Scope staker:1 is available on mainnet only"),
        ] {
            assert_eq!(scopes(asked, network).unwrap_err().text(), expected);
        }
        let fine = scopes(&["openid", "subnet:1:miner", "openid"], Network::Mainnet).unwrap();
        assert_eq!(joined(&fine), "openid subnet:1:miner openid");
        assert_eq!(suit(&fine, SignMethod::Sr25519), Ok(()));
        let odd = suit(&fine, SignMethod::Evm).unwrap_err();
        assert_eq!(odd.text(), "Scope subnet:1:miner is not available for EVM wallets");
        assert!(scopes(&["x".repeat(5000)], Network::Mainnet).unwrap_err().text().len() < 200);
    }
}
