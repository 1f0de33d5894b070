//! Credits, what a plan asks for a request, and the one function that says what is charged.

use std::fmt;

use minicbor::{
    Decoder, Encoder, decode,
    encode::{self, Write},
};

use super::address::EvmAddress;

/// An amount of credits: whole, never negative, and at most `i64::MAX`, so that it fits every database's integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Credits(u64);

impl Credits {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that is told apart; balances above count as this.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// An amount, cut at [`Self::MAX`].
    #[must_use]
    pub fn new(amount: u64) -> Self {
        Self(amount).min(Self::MAX)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number as databases keep it.
    #[must_use]
    pub fn to_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// An amount out of a database; a negative one counts as nothing.
    #[must_use]
    pub fn from_i64(amount: i64) -> Self {
        Self(u64::try_from(amount).unwrap_or(0))
    }

    /// The sum, cut at [`Self::MAX`].
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::new(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing if the other is larger.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> serde::Deserialize<'de> for Credits {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from).map(Self::new)
    }
}

impl<C> minicbor::Encode<C> for Credits {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.u64(self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Credits {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        d.u64().map(Self::new)
    }
}

/// Whether the service has a say in the price (`webService.chargeType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeType {
    /// The price is the plan's; what the service reports is kept, and not used.
    Fixed,
    /// The service reports what an answer cost, within the plan's bounds.
    Dynamic,
}

/// What a service asks for a request (`nftAttributes`, nevermined.md section 7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Who sets it.
    pub charge_type: ChargeType,
    /// The ordinary price of a request.
    pub amount: Credits,
    /// The least a delivered answer costs. None: no lower bound.
    pub minimum: Option<Credits>,
    /// The most an answer costs. None on a dynamic price: whatever the service reports and the holder has.
    pub maximum: Option<Credits>,
    /// What a holder must have to be let in at all (`minCreditsRequired`).
    pub required: Credits,
}

impl Price {
    /// Nothing, ever: what a plan that pays with time asks for a request.
    pub const FREE: Self = Self {
        charge_type: ChargeType::Fixed,
        amount: Credits::ZERO,
        minimum: None,
        maximum: None,
        required: Credits::ZERO,
    };

    /// What is charged for one request: the intended rules of nevermined.md section 10.4, computed with numbers.
    ///
    /// Nothing for an answer that is not a 2xx: nothing was delivered. A fixed price ignores the report. On a dynamic
    /// price the report counts, kept within minimum and maximum, so a reported 0 is free only where the minimum allows
    /// it. Without a usable report the ordinary price holds, never below the minimum.
    #[must_use]
    pub fn charge(&self, status: u16, reported: Option<Credits>) -> Credits {
        if !(200..300).contains(&status) {
            return Credits::ZERO;
        }
        let minimum = self.minimum.unwrap_or(Credits::ZERO);
        match (self.charge_type, reported) {
            (ChargeType::Dynamic, Some(asked)) => asked.min(self.maximum.unwrap_or(Credits::MAX)).max(minimum),
            (ChargeType::Dynamic, None) | (ChargeType::Fixed, _) => self.amount.max(minimum),
        }
    }

    /// The most one request may cost, which is held before it is let through. A dynamic price without a maximum has
    /// none: there the ordinary price is held, and the charge cannot exceed what the holder has left.
    #[must_use]
    pub fn most(&self) -> Credits {
        let ordinary = self.amount.max(self.minimum.unwrap_or(Credits::ZERO));
        match (self.charge_type, self.maximum) {
            (ChargeType::Dynamic, Some(maximum)) => ordinary.max(maximum),
            _ => ordinary,
        }
    }

    /// Whether one answer can cost more than [`Self::most`] says.
    #[must_use]
    pub fn unbounded(&self) -> bool {
        self.charge_type == ChargeType::Dynamic && self.maximum.is_none()
    }
}

/// What a service reports in `NVMCreditsConsumed`: a decimal number. Anything else (empty, negative, a fraction, two
/// different values) is no report, and the plan's ordinary price applies. More digits than a number holds is the most
/// there is, which the plan's maximum then cuts.
#[must_use]
pub fn parse_report(value: &[u8]) -> Option<Credits> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number =
        digits.iter().fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(Credits::new(number))
}

/// The kind of plan (`subscription.subscriptionType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanKind {
    /// Pays with credits. Also what an absent or unknown type means.
    Credits,
    /// Pays with time alone: the token's expiry is the limit, and nothing is counted.
    Time,
}

/// Where a holder's credits are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CreditSource {
    /// In our own database.
    Local,
    /// On chain, as the balance of an ERC-1155 token whose id is the plan's DID.
    Chain {
        /// The token contract (`_contractAddress` of the service's `nftHolder` condition).
        contract: EvmAddress,
    },
}

impl CreditSource {
    /// The token contract, where there is one.
    #[must_use]
    pub fn contract(self) -> Option<EvmAddress> {
        match self {
            Self::Local => None,
            Self::Chain { contract } => Some(contract),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(charge_type: ChargeType, amount: u64, minimum: Option<u64>, maximum: Option<u64>) -> Price {
        Price {
            charge_type,
            amount: Credits(amount),
            minimum: minimum.map(Credits),
            maximum: maximum.map(Credits),
            required: Credits(1),
        }
    }

    #[test]
    fn credits_charged_follow_the_plan() {
        use ChargeType::{Dynamic, Fixed};
        //   charge type, amount, minimum, maximum, status, reported, charged
        for (charge_type, amount, minimum, maximum, status, reported, charged) in [
            (Fixed, 1, Some(1), Some(10), 200, None, 1),
            (Fixed, 1, Some(1), Some(10), 200, Some(7), 1),
            (Fixed, 1, Some(1), Some(10), 200, Some(0), 1),    // was: free
            (Fixed, 1, Some(1), Some(10), 200, Some(1000), 1), // was: the whole balance
            (Fixed, 10, Some(9), Some(10), 200, None, 10),     // was: 9, compared as text
            (Fixed, 3, None, None, 200, None, 3),
            (Fixed, 3, None, None, 200, Some(2), 3),
            (Fixed, 0, Some(0), Some(0), 200, None, 0),
            (Dynamic, 1, Some(1), Some(10), 200, Some(7), 7),
            (Dynamic, 1, Some(1), Some(10), 200, Some(50), 10),
            (Dynamic, 1, Some(1), Some(10), 200, Some(60), 10), // was: the whole balance of 50
            (Dynamic, 1, Some(1), Some(10), 200, Some(0), 1),   // was: free
            (Dynamic, 1, Some(1), Some(10), 200, None, 1),
            (Dynamic, 5, Some(5), Some(20), 200, Some(2), 5), // was: 2
            (Dynamic, 5, Some(0), Some(20), 200, Some(0), 0), // the plan allows it
            (Dynamic, 3, None, None, 200, Some(9), 9),
            (Dynamic, 3, None, None, 200, Some(0), 0),
            (Dynamic, 1, Some(1), Some(10), 299, Some(5), 5),
            (Dynamic, 1, Some(1), Some(10), 500, Some(5), 0), // nothing was delivered
            (Dynamic, 1, Some(1), Some(10), 302, Some(5), 0),
            (Dynamic, 1, Some(1), Some(10), 101, Some(5), 0), // a hand-over, not a delivery
        ] {
            let price = price(charge_type, amount, minimum, maximum);
            let got = price.charge(status, reported.map(Credits));
            assert_eq!(got, Credits(charged), "{price:?} {status} {reported:?}");
            assert!(got <= price.most() || price.unbounded(), "{price:?} can cost more than is held");
        }
    }

    #[test]
    fn reports_are_whole_decimal_numbers() {
        for (text, parsed) in [
            ("7", Some(7)),
            (" 9 ", Some(9)),
            ("0", Some(0)),
            ("007", Some(7)),
            ("99999999999999999999999999", Some(i64::MAX as u64)),
            ("", None),
            ("-", None),
            ("abc", None),
            ("7, 7", None),
            ("1.5", None),
            ("0x10", None),
            ("1e3", None),
            ("-5", None),
            ("+5", None),
            ("Infinity", None),
            ("٣", None),
        ] {
            assert_eq!(parse_report(text.as_bytes()), parsed.map(Credits), "{text:?}");
        }
    }
}
