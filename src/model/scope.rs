//! Scopes: what an application may ask to have proven about a wallet (auth-gateway.md section 6; `signer:…` is ours). Pure:
//! whether a scope is true of somebody is asked elsewhere.

mod allowed;
mod required;

use std::{fmt, str::FromStr};

pub use self::{
    allowed::{allows, is_pattern},
    required::RequiredScope,
};
use super::{client::SignMethod, identity::SignerKind, network::Network};

/// One scope, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    text: String,
    kind: Kind,
}

/// What it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `openid`: an id token (OpenID Connect Core §3.1.2.1).
    OpenId,
    /// `signer:hotkey`, `signer:coldkey`: the key itself that signs, not one that belongs to it.
    Signer(SignerKind),
    /// `subnet:N:miner`, `subnet:N:validator`, `subnet:N:owner`.
    SubnetRole(Netuid, Role),
    /// `subnet:N:holder[:AMOUNT]`: alpha of a subnet.
    SubnetHolder(Netuid, Option<Amount>),
    /// `tao:holder[:AMOUNT]`: free TAO.
    TaoHolder(Option<Amount>),
    /// `delegate:HOTKEY[:AMOUNT]`: TAO staked with a hotkey.
    Delegator(String, Option<Amount>),
    /// `staker:AMOUNT`: TAO staked altogether.
    Staker(Amount),
}

impl Kind {
    /// The metric label: never rename one.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::OpenId => "openid",
            Self::Signer(_) => "signer",
            Self::SubnetRole(..) => "subnet_role",
            Self::SubnetHolder(..) => "subnet_holder",
            Self::TaoHolder(_) => "tao_holder",
            Self::Delegator(..) => "delegator",
            Self::Staker(_) => "staker",
        }
    }

    /// The subnet that it is about.
    #[must_use]
    pub fn netuid(&self) -> Option<&Netuid> {
        match self {
            Self::SubnetRole(netuid, _) | Self::SubnetHolder(netuid, _) => Some(netuid),
            Self::OpenId | Self::Signer(_) | Self::TaoHolder(_) | Self::Delegator(..) | Self::Staker(_) => None,
        }
    }
}

/// A role on a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `miner`
    Miner,
    /// `validator`
    Validator,
    /// `owner`
    Owner,
}

/// A subnet's number as it was written: any number of digits. See [`Netuid::number`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netuid(String);

/// An amount of TAO or alpha: decimal digits, as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    text: String,
    rao: u128,
}

/// Which of a wallet's keys has to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningHint {
    /// `hotkey`
    Hotkey,
    /// `coldkey`
    Coldkey,
    /// `any`
    Any,
}

/// The text is no scope that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no scope has this form")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let kind = parse(text).ok_or(UnknownScope)?;
        Ok(Self { text: text.to_owned(), kind })
    }
}

fn parse(text: &str) -> Option<Kind> {
    let mut parts = text.split(':');
    let kind = match (parts.next()?, parts.next(), parts.next()) {
        ("openid", None, None) => Kind::OpenId,
        ("signer", Some(kind), None) => Kind::Signer(signer(kind)?),
        ("subnet", Some(netuid), Some("holder")) => Kind::SubnetHolder(Netuid::parse(netuid)?, amount(parts.next())?),
        ("subnet", Some(netuid), Some(role)) => Kind::SubnetRole(Netuid::parse(netuid)?, Role::parse(role)?),
        ("tao", Some("holder"), written) => Kind::TaoHolder(amount(written)?),
        ("delegate", Some(hotkey), written) => Kind::Delegator(hotkey_text(hotkey)?, amount(written)?),
        ("staker", Some(written), None) => Kind::Staker(Amount::parse(written)?),
        _ => return None,
    };
    parts.next().is_none().then_some(kind)
}

/// Ethereum's is no kind of a wallet that has several.
fn signer(text: &str) -> Option<SignerKind> {
    [SignerKind::Hotkey, SignerKind::Coldkey].into_iter().find(|kind| kind.as_str() == text)
}

/// Some(None): there is none. None: there is one, and it is wrong.
#[expect(clippy::option_option, reason = "absent and wrong are different")]
fn amount(written: Option<&str>) -> Option<Option<Amount>> {
    written.map_or(Some(None), |text| Amount::parse(text).map(Some))
}

/// 48 characters of an SS58 address of prefix 42, whose checksum was never looked at.
fn hotkey_text(text: &str) -> Option<String> {
    let base58 = |byte: u8| byte.is_ascii_alphanumeric() && !matches!(byte, b'0' | b'O' | b'I' | b'l');
    (text.len() == 48 && text.starts_with('5') && text.bytes().all(base58)).then(|| text.to_owned())
}

impl Role {
    const ALL: [Self; 3] = [Self::Miner, Self::Validator, Self::Owner];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// The word in a scope.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Miner => "miner",
            Self::Validator => "validator",
            Self::Owner => "owner",
        }
    }
}

impl Netuid {
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| Self(text.to_owned()))
    }

    /// The number. None: no subnet has such a large one.
    #[must_use]
    pub fn number(&self) -> Option<u16> {
        self.canonical().parse().ok()
    }

    /// Without leading zeros.
    fn canonical(&self) -> &str {
        without_leading_zeros(&self.0)
    }
}

fn without_leading_zeros(digits: &str) -> &str {
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() { "0" } else { significant }
}

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        // Nine decimals count; more than anybody can have is as good as the most.
        let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        let rao = format!("{whole}{fraction}").parse().unwrap_or(u128::MAX);
        Some(Self { text: text.to_owned(), rao })
    }

    /// In the smallest unit, a billionth.
    #[must_use]
    pub fn rao(&self) -> u128 {
        self.rao
    }
}

impl fmt::Display for Amount {
    /// For people: without zeros that say nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = self.text.split_once('.').unwrap_or((&self.text, ""));
        let fraction = fraction.get(..9).unwrap_or(fraction).trim_end_matches('0');
        f.write_str(without_leading_zeros(whole))?;
        if fraction.is_empty() { Ok(()) } else { write!(f, ".{fraction}") }
    }
}

impl Scope {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Whether it can be asked of such a wallet.
    #[must_use]
    pub fn suits(&self, method: SignMethod) -> bool {
        method == SignMethod::Sr25519 || self.kind == Kind::OpenId
    }

    /// Whether there is such a thing on this network.
    #[must_use]
    pub fn exists_on(&self, network: Network) -> bool {
        network == Network::Mainnet || !matches!(self.kind, Kind::Delegator(..) | Kind::Staker(_))
    }

    /// Which key has to sign for it.
    #[must_use]
    pub fn signing_key(&self) -> SigningHint {
        match self.kind {
            Kind::OpenId => SigningHint::Any,
            Kind::SubnetRole(_, Role::Miner | Role::Validator) | Kind::Signer(SignerKind::Hotkey) => {
                SigningHint::Hotkey
            }
            _ => SigningHint::Coldkey,
        }
    }

    /// What a person is told.
    #[must_use]
    pub fn description(&self) -> String {
        let suffix = |amount: &Option<Amount>, unit: &str| {
            amount.as_ref().map_or_else(String::new, |amount| format!(" (min {amount} {unit})"))
        };
        match &self.kind {
            Kind::OpenId => "openid".to_owned(),
            Kind::Signer(kind) => format!("Signed with a {}", kind.as_str()),
            Kind::SubnetRole(netuid, role) => {
                let role = match role {
                    Role::Miner => "Miner",
                    Role::Validator => "Validator",
                    Role::Owner => "Owner",
                };
                format!("{role} on Subnet {}", netuid.canonical())
            }
            Kind::SubnetHolder(netuid, amount) => {
                format!("Token Holder on Subnet {}{}", netuid.canonical(), suffix(amount, "alpha"))
            }
            Kind::TaoHolder(amount) => format!("TAO Holder{}", suffix(amount, "TAO")),
            Kind::Delegator(hotkey, amount) => {
                let (first, last) = (hotkey.get(..8).unwrap_or(hotkey), hotkey.get(42..).unwrap_or_default());
                format!("Delegator to {first}...{last}{}", suffix(amount, "TAO"))
            }
            Kind::Staker(amount) => format!("Staker (min {amount} TAO total)"),
        }
    }

    fn segments(&self) -> Vec<&str> {
        self.text.split(':').collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl SigningHint {
    /// The word for pages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hotkey => "hotkey",
            Self::Coldkey => "coldkey",
            Self::Any => "any",
        }
    }

    /// For several scopes: a hotkey if any wants one, else a coldkey if any wants one. What is no scope wants nothing.
    #[must_use]
    pub fn of_all<'t>(scopes: impl IntoIterator<Item = &'t str>) -> Self {
        let mut all = Self::Any;
        for hint in scopes.into_iter().filter_map(|text| Some(text.parse::<Scope>().ok()?.signing_key())) {
            match hint {
                Self::Hotkey => return Self::Hotkey,
                Self::Coldkey => all = Self::Coldkey,
                Self::Any => {}
            }
        }
        all
    }
}

/// What a person is told of a scope; of what is none, the text itself.
#[must_use]
pub fn description(text: &str) -> String {
    text.parse::<Scope>().map_or_else(|_| text.to_owned(), |scope| scope.description())
}

#[cfg(test)]
mod tests;
