//! What is demanded of a token: scopes that it must have.

use std::{fmt, str::FromStr};

use super::{
    Amount, Network, Scope, UnknownScope,
    allowed::{Shape, shape},
    without_leading_zeros,
};

/// A demand: a scope, in which `*` may stand for any number, role, hotkey or amount, as in an allow-list.
///
/// It is met by a scope of the same kind that proves as much: every part is the same or `*` is demanded, and an amount is at
/// least the one that is demanded. Where no amount is demanded, any but zero will do: zero is what everybody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredScope {
    text: String,
    shape: Shape,
}

impl FromStr for RequiredScope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        shape(text).map(|shape| Self { text: text.to_owned(), shape }).ok_or(UnknownScope)
    }
}

impl RequiredScope {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scope that a client asks for to meet it. None: `*` is no scope, and what it stands for is for the client to know.
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        self.text.parse().ok()
    }

    /// Whether there is such a thing on this network.
    #[must_use]
    pub fn exists_on(&self, network: Network) -> bool {
        network == Network::Mainnet || !matches!(self.shape, Shape::Delegator | Shape::Staker)
    }

    /// Whether a scope that was granted meets it.
    #[must_use]
    pub fn met_by(&self, granted: &Scope) -> bool {
        if Shape::of(granted) != self.shape {
            return false;
        }
        let rao = |text: &str| Amount::parse(text).map(|amount| amount.rao());
        let mut demanded = self.text.split(':');
        granted.as_str().split(':').enumerate().all(|(index, given)| match demanded.next() {
            None | Some("*") if self.is_amount(index) => rao(given) > Some(0),
            Some(demanded) if self.is_amount(index) => rao(given) >= rao(demanded),
            Some("*") => true,
            Some(demanded) => without_leading_zeros(given) == without_leading_zeros(demanded),
            None => false,
        }) && demanded.next().is_none()
    }

    /// Whether the part of this number is an amount.
    fn is_amount(&self, index: usize) -> bool {
        match self.shape {
            Shape::OpenId | Shape::Signer | Shape::SubnetRole => false,
            Shape::Staker => index == 1,
            Shape::TaoHolder | Shape::Delegator => index == 2,
            Shape::SubnetHolder => index == 3,
        }
    }
}

impl fmt::Display for RequiredScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
