//! `[route.neurons]` and `[auth_request.neurons]`: which neurons may call.

use std::collections::HashSet;

use crate::{
    config::{
        reader::Section,
        value::{Parse, Raw},
    },
    model::{hotkey::Hotkey, neuron::NetUid},
};

/// Which of the neurons that have proven who they are may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeuronPolicy {
    /// `netuid`: the subnet that is asked about. Default: that of `[neurons]`.
    pub netuid: NetUid,
    /// `registered`: only who is registered now. Default false where certificates alone are accepted: whoever has a
    /// published key is registered, because deregistration deletes it. Default true where signed requests are: anybody
    /// can make a hotkey and sign.
    pub registered: bool,
    /// `validator_permit`: only who may validate. Default false.
    pub validator_permit: bool,
    /// `min_stake`: only who has at least this stake weight, in units of 10⁻⁹. Default 0.
    pub min_stake: u64,
    /// `hotkeys`: only these. None (the default): any.
    pub hotkeys: Option<HashSet<Hotkey>>,
    /// `deny_hotkeys`: none of these. Default: none.
    pub deny_hotkeys: HashSet<Hotkey>,
}

impl NeuronPolicy {
    /// Reads a policy. `subnet` is the one that is asked about if none is named. None: there is none, which is a mistake
    /// reported elsewhere, or nobody has to be asked. `registered` is whether only who is registered may call, if nothing
    /// is said of it.
    pub(in crate::config) fn read(section: &Section<'_>, subnet: Option<NetUid>, registered: bool) -> Self {
        let hotkeys = section.list::<Hotkey>("hotkeys", &[]);
        if section.is_empty_list("hotkeys") {
            section.mistake("hotkeys", "is a list of nobody; leave it out to admit any");
        }
        Self {
            netuid: section.or("netuid", subnet.unwrap_or(NetUid(0))),
            registered: section.or("registered", registered),
            validator_permit: section.or("validator_permit", false),
            min_stake: section.or("min_stake", Stake(0)).0,
            hotkeys: hotkeys.map(|list| list.into_iter().map(|found| found.value).collect()),
            deny_hotkeys: section.values("deny_hotkeys", &[]).into_iter().collect(),
        }
    }

    /// Whether it asks who is registered, and with what.
    #[must_use]
    pub fn asks_neurons(&self) -> bool {
        self.registered || self.validator_permit || self.min_stake > 0
    }
}

/// A stake in whole units, which may have decimals.
struct Stake(u64);

/// 10⁻⁹ units in one.
const UNIT: u64 = 1_000_000_000;

impl Parse for Stake {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "a stake like 1000 or 1000.5";
        let wrong = || format!("must be {WHAT}, with at most nine decimals");
        match raw {
            Raw::Integer(_) => u64::parse(raw)?.checked_mul(UNIT).map(Self).ok_or_else(|| "is too large".to_owned()),
            // The shortest decimals that are this number: what was written, as far as anybody writes it.
            Raw::Float(number) => decimal(&number.to_string()).map(Self).ok_or_else(wrong),
            Raw::Text(text) => decimal(text).map(Self).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// Reads a decimal number into units of 10⁻⁹, exactly.
fn decimal(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(UNIT)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stake_is_read_exactly() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1_000 * UNIT)),
            ("0.1", Some(100_000_000)),
            ("1000.000000001", Some(1_000 * UNIT + 1)),
            ("18446744073.709551615", Some(u64::MAX)),
            ("18446744073.709551616", None),
            ("0.0000000001", None),
            ("", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1_000", None),
            ("1.2.3", None),
        ] {
            assert_eq!(Stake::parse(Raw::Text(text)).ok().map(|stake| stake.0), expected, "{text}");
        }
        for (number, expected) in
            [(1000.5, Some(1_000_500_000_000)), (0.000_000_001, Some(1)), (1e30, None), (f64::NAN, None)]
        {
            assert_eq!(Stake::parse(Raw::Float(number)).ok().map(|stake| stake.0), expected, "{number}");
        }
        assert_eq!(Stake::parse(Raw::Integer(7)).ok().map(|stake| stake.0), Some(7 * UNIT));
        assert!(Stake::parse(Raw::Integer(i64::MAX)).is_err());
        assert!(Stake::parse(Raw::Integer(-1)).is_err());
        assert!(Stake::parse(Raw::Boolean(true)).is_err());
    }
}
