//! Allow-lists: what a client may ask for (auth-gateway.md section 6.3).

use super::{Amount, Kind, Netuid, Role, Scope, hotkey_text, signer};

/// Whether a text can stand in an allow-list: a scope in which `*` may stand for any number, role, hotkey or amount.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    shape(text).is_some()
}

/// The kinds of patterns; a pattern allows scopes of its own kind alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    OpenId,
    Signer,
    SubnetRole,
    SubnetHolder,
    TaoHolder,
    Delegator,
    Staker,
}

pub(super) fn shape(text: &str) -> Option<Shape> {
    let mut parts = text.split(':');
    let any = |text: &str, fits: fn(&str) -> bool| text == "*" || fits(text);
    let netuid = |text: &str| any(text, |text| Netuid::parse(text).is_some());
    let amount = |text: Option<&str>| text.is_none_or(|text| any(text, |text| Amount::parse(text).is_some()));
    let (shape, fits) = match (parts.next()?, parts.next(), parts.next()) {
        ("openid", None, None) => (Shape::OpenId, true),
        ("signer", Some(kind), None) => (Shape::Signer, any(kind, |text| signer(text).is_some())),
        ("subnet", Some(number), Some("holder")) => (Shape::SubnetHolder, netuid(number) && amount(parts.next())),
        ("subnet", Some(number), Some(role)) => {
            (Shape::SubnetRole, netuid(number) && any(role, |text| Role::parse(text).is_some()))
        }
        ("tao", Some("holder"), written) => (Shape::TaoHolder, amount(written)),
        ("delegate", Some(hotkey), written) => {
            (Shape::Delegator, any(hotkey, |text| hotkey_text(text).is_some()) && amount(written))
        }
        ("staker", written @ Some(_), None) => (Shape::Staker, amount(written)),
        _ => return None,
    };
    (fits && parts.next().is_none()).then_some(shape)
}

impl Shape {
    /// That of the patterns which may allow a scope.
    pub(super) fn of(scope: &Scope) -> Self {
        match scope.kind {
            Kind::OpenId => Self::OpenId,
            Kind::Signer(_) => Self::Signer,
            Kind::SubnetRole(..) => Self::SubnetRole,
            Kind::SubnetHolder(..) => Self::SubnetHolder,
            Kind::TaoHolder(_) => Self::TaoHolder,
            Kind::Delegator(..) => Self::Delegator,
            Kind::Staker(_) => Self::Staker,
        }
    }
}

/// Whether a client with this list may ask for a scope. An empty list allows everything; `openid` and `signer:…`,
/// which open nothing, are always allowed. An entry without an amount allows any amount, one with an amount that one alone.
#[must_use]
pub fn allows(list: &[String], scope: &Scope) -> bool {
    if list.is_empty() || matches!(scope.kind, Kind::OpenId | Kind::Signer(_)) {
        return true;
    }
    let own = Shape::of(scope);
    let entry_allows = |wanted: &[&str]| {
        list.iter().filter(|entry| shape(entry) == Some(own)).any(|entry| {
            let entry: Vec<&str> = entry.split(':').collect();
            entry.len() == wanted.len()
                && entry.iter().zip(wanted).all(|(entry, wanted)| entry == &"*" || entry == wanted)
        })
    };
    let without_amount = match &scope.kind {
        Kind::SubnetHolder(netuid, Some(_)) => Some(vec!["subnet", netuid.canonical(), "holder"]),
        Kind::TaoHolder(Some(_)) => Some(vec!["tao", "holder"]),
        Kind::Delegator(hotkey, Some(_)) => Some(vec!["delegate", hotkey.as_str()]),
        _ => None,
    };
    entry_allows(&scope.segments()) || without_amount.is_some_and(|wanted| entry_allows(&wanted))
}
