//! The grammar, the descriptions, the allow-lists and the hints of auth-gateway.md section 6.

use super::*;

const HOTKEY: &str = "5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX";

fn scope(text: &str) -> Scope {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn scopes_have_these_forms_and_no_other() {
    for good in [
        "openid",
        "signer:hotkey",
        "signer:coldkey",
        "subnet:1:miner",
        "subnet:01:validator",
        "subnet:99999999999999999999:owner",
        "subnet:1:holder",
        "subnet:1:holder:0",
        "subnet:1:holder:100.5",
        "tao:holder",
        "tao:holder:0.01",
        &format!("delegate:{HOTKEY}"),
        &format!("delegate:{HOTKEY}:1"),
        "staker:1000",
        "staker:1.000000000001",
    ] {
        assert_eq!(scope(good).as_str(), good);
    }
    for bad in [
        "",
        " ",
        "OPENID",
        "openid ",
        "openid:",
        "profile",
        "email",
        "offline_access",
        "subnet",
        "subnet:1",
        "subnet::miner",
        "subnet:1:",
        "subnet:1:Miner",
        "subnet:1:miner:",
        "subnet:1:miner:1",
        "subnet:-1:miner",
        "subnet:1.0:miner",
        "subnet:*:miner",
        "subnet:\u{661}:miner",
        "subnet:1:holder:",
        "subnet:1:holder:1.",
        "subnet:1:holder:.5",
        "subnet:1:holder:1:1",
        "subnet:1:holder:-1",
        "subnet:1:holder:1e9",
        "signer",
        "signer:",
        "signer:evm",
        "signer:any",
        "signer:*",
        "signer:Hotkey",
        "signer:hotkey:",
        "tao",
        "tao:",
        "tao:owner",
        "tao:holder:",
        "tao:holder:1,5",
        "delegate",
        "delegate:",
        "delegate:5abc",
        &format!("delegate:{}", HOTKEY.replacen('5', "6", 1)),
        &format!("delegate:{}", HOTKEY.replace('F', "0")),
        &format!("delegate:{HOTKEY}:"),
        "staker",
        "staker:",
        "staker:x",
        "staker:1:2",
        "staker:1\n",
    ] {
        assert_eq!(bad.parse::<Scope>(), Err(UnknownScope), "{bad:?}");
    }
}

#[test]
fn descriptions_are_the_replaced_systems_but_for_ours() {
    for (text, expected) in [
        ("openid", "openid"),
        ("subnet:1:miner", "Miner on Subnet 1"),
        ("subnet:1:validator", "Validator on Subnet 1"),
        ("subnet:1:owner", "Owner on Subnet 1"),
        ("subnet:1:holder", "Token Holder on Subnet 1"),
        ("subnet:1:holder:100", "Token Holder on Subnet 1 (min 100 alpha)"),
        ("tao:holder:0.01", "TAO Holder (min 0.01 TAO)"),
        ("tao:holder:0.010", "TAO Holder (min 0.01 TAO)"),
        ("tao:holder:100.000", "TAO Holder (min 100 TAO)"),
        ("tao:holder", "TAO Holder"),
        (&format!("delegate:{HOTKEY}"), "Delegator to 5F3sa2TJ...5EYjQX"),
        (&format!("delegate:{HOTKEY}:5"), "Delegator to 5F3sa2TJ...5EYjQX (min 5 TAO)"),
        ("staker:1000", "Staker (min 1000 TAO total)"),
        ("signer:hotkey", "Signed with a hotkey"),
        ("no scope", "no scope"),
    ] {
        assert_eq!(description(text), expected);
    }
}

#[test]
fn amounts_have_nine_decimals() {
    for (text, rao) in [
        ("1", 1_000_000_000),
        ("0.000000001", 1),
        ("0.0000000019", 1),
        ("0.0000000009", 0),
        ("0", 0),
        ("007.5", 7_500_000_000),
        ("999999999999999999999999999999999999999", u128::MAX),
    ] {
        assert_eq!(Amount::parse(text).unwrap().rao(), rao, "{text}");
    }
}

#[test]
fn a_netuid_that_is_too_large_has_no_number() {
    for (text, number) in
        [("1", Some(1)), ("0001", Some(1)), ("000", Some(0)), ("65535", Some(65_535)), ("99999", None)]
    {
        assert_eq!(Netuid::parse(text).unwrap().number(), number, "{text}");
    }
}

#[test]
fn allow_lists_hold_patterns() {
    for good in [
        "openid",
        "subnet:*:miner",
        "subnet:1:*",
        "subnet:*:*",
        "subnet:*:holder",
        "subnet:1:holder:*",
        "subnet:1:holder:5",
        "tao:holder:*",
        "delegate:*:*",
        "delegate:*",
        "staker:*",
        "staker:5",
        "signer:hotkey",
        "signer:*",
    ] {
        assert!(is_pattern(good), "{good}");
    }
    for bad in [
        "",
        "*",
        "tao:*",
        "*:1:miner",
        "subnet:*:miner:*",
        "delegate:*:abc",
        "subnet:*:holder:",
        "staker",
        "openid:*",
        "signer:evm",
        "*:*:*",
    ] {
        assert!(!is_pattern(bad), "{bad}");
    }
}

#[test]
fn an_allow_list_allows_its_own_kind() {
    let delegate = format!("delegate:{HOTKEY}");
    let delegate_5 = format!("{delegate}:5");
    for (list, text, allowed) in [
        (vec![], "subnet:1:miner", true),
        (vec!["tao:holder"], "openid", true),
        (vec!["tao:holder"], "signer:coldkey", true),
        (vec!["signer:*"], "tao:holder", false),
        (vec!["openid"], "subnet:1:miner", false),
        (vec!["subnet:1:miner"], "subnet:1:miner", true),
        (vec!["subnet:1:miner"], "subnet:2:miner", false),
        (vec!["subnet:1:miner"], "subnet:01:miner", false),
        (vec!["subnet:*:miner"], "subnet:7:miner", true),
        (vec!["subnet:*:miner"], "subnet:7:owner", false),
        (vec!["subnet:1:*"], "subnet:1:owner", true),
        (vec!["subnet:1:*"], "subnet:1:holder", false),
        (vec!["subnet:*:*"], "subnet:1:holder:5", false),
        (vec!["subnet:1:holder"], "subnet:1:holder:100", true),
        (vec!["subnet:1:holder"], "subnet:01:holder:100", true),
        (vec!["subnet:1:holder"], "subnet:01:holder", false),
        (vec!["subnet:1:holder:100"], "subnet:1:holder:100", true),
        (vec!["subnet:1:holder:100"], "subnet:1:holder:5", false),
        (vec!["subnet:1:holder:100"], "subnet:1:holder", false),
        (vec!["subnet:1:holder:*"], "subnet:1:holder:5", true),
        (vec!["subnet:1:holder:*"], "subnet:1:holder", false),
        (vec!["tao:holder"], "tao:holder:1", true),
        (vec!["delegate:*"], &delegate_5, true),
        (vec!["delegate:*:5"], &delegate_5, true),
        (vec!["delegate:*:5"], &delegate, false),
        (vec!["staker:*"], "staker:5", true),
        (vec!["staker:1"], "staker:5", false),
        (vec!["*"], "staker:5", false),
    ] {
        let list: Vec<String> = list.into_iter().map(str::to_owned).collect();
        assert_eq!(allows(&list, &scope(text)), allowed, "{list:?} {text}");
    }
}

#[test]
fn the_hint_names_the_key_that_is_needed() {
    for (list, hint) in [
        (vec![], "any"),
        (vec!["openid"], "any"),
        (vec!["nonsense"], "any"),
        (vec!["openid", "tao:holder"], "coldkey"),
        (vec!["subnet:1:owner"], "coldkey"),
        (vec!["openid", "signer:coldkey"], "coldkey"),
        (vec!["subnet:1:owner", "signer:hotkey"], "hotkey"),
        (vec!["tao:holder", "subnet:1:miner"], "hotkey"),
        (vec!["subnet:1:validator"], "hotkey"),
    ] {
        assert_eq!(SigningHint::of_all(list.iter().copied()).as_str(), hint, "{list:?}");
    }
}

#[test]
fn what_suits_a_wallet_and_a_network() {
    for (text, evm, testnet) in [
        ("openid", true, true),
        ("subnet:1:miner", false, true),
        ("tao:holder", false, true),
        ("signer:hotkey", false, true),
        ("staker:1", false, false),
        (&format!("delegate:{HOTKEY}"), false, false),
    ] {
        assert_eq!(scope(text).suits(SignMethod::Evm), evm, "{text}");
        assert!(scope(text).suits(SignMethod::Sr25519) && scope(text).exists_on(Network::Mainnet), "{text}");
        assert_eq!(scope(text).exists_on(Network::Testnet), testnet, "{text}");
    }
}

#[test]
fn a_demand_is_met_by_what_proves_as_much() {
    let delegate = format!("delegate:{HOTKEY}");
    let (some, other) = (format!("{delegate}:5"), format!("delegate:{}5", &HOTKEY[..47]));
    for (demanded, granted, met) in [
        ("openid", "openid", true),
        ("openid", "signer:hotkey", false),
        ("signer:hotkey", "signer:hotkey", true),
        ("signer:hotkey", "signer:coldkey", false),
        ("signer:*", "signer:coldkey", true),
        ("subnet:1:miner", "subnet:1:miner", true),
        ("subnet:1:miner", "subnet:01:miner", true),
        ("subnet:1:miner", "subnet:2:miner", false),
        ("subnet:1:miner", "subnet:1:validator", false),
        ("subnet:1:miner", "subnet:1:holder", false),
        ("subnet:1:*", "subnet:1:owner", true),
        ("subnet:*:miner", "subnet:7:miner", true),
        ("subnet:*:miner", "subnet:7:validator", false),
        ("subnet:*:*", "subnet:7:validator", true),
        ("subnet:*:*", "subnet:7:holder", false),
        ("subnet:*:*", "tao:holder", false),
        ("subnet:1:holder", "subnet:1:holder", true),
        ("subnet:1:holder", "subnet:1:holder:0.000000001", true),
        ("subnet:1:holder", "subnet:1:holder:0", false),
        ("subnet:1:holder", "subnet:1:holder:0.0000000001", false),
        ("subnet:1:holder:10", "subnet:1:holder:10", true),
        ("subnet:1:holder:10", "subnet:1:holder:10.0", true),
        ("subnet:1:holder:10", "subnet:1:holder:9.999999999", false),
        ("subnet:1:holder:10", "subnet:1:holder:100", true),
        ("subnet:1:holder:10", "subnet:2:holder:100", false),
        ("subnet:1:holder:10", "subnet:1:holder", false),
        ("subnet:*:holder:10", "subnet:3:holder:11", true),
        ("subnet:1:holder:*", "subnet:1:holder:1", true),
        ("subnet:1:holder:*", "subnet:1:holder:0", false),
        ("subnet:1:holder:*", "subnet:1:holder", false),
        ("tao:holder", "tao:holder", true),
        ("tao:holder", "tao:holder:1", true),
        ("tao:holder", "tao:holder:0", false),
        ("tao:holder:2", "tao:holder:3", true),
        ("tao:holder:2", "tao:holder:1", false),
        ("tao:holder:0", "tao:holder:0", true),
        ("staker:10", "staker:10", true),
        ("staker:10", "staker:9", false),
        ("staker:*", "staker:9", true),
        ("staker:*", "staker:0", false),
        (&delegate, &delegate, true),
        (&delegate, &some, true),
        (&delegate, &other, false),
        ("delegate:*", &some, true),
        ("delegate:*:4", &some, true),
        ("delegate:*:6", &some, false),
    ] {
        let demand: RequiredScope = demanded.parse().unwrap_or_else(|_| panic!("{demanded}"));
        assert_eq!(demand.met_by(&scope(granted)), met, "{demanded} by {granted}");
    }
    for bad in ["", "*", "profile", "subnet:*", "subnet:*:miner:1", "staker", "signer:evm", "openid:*", "tao:*"] {
        assert!(bad.parse::<RequiredScope>().is_err(), "{bad}");
    }
    for (text, testnet) in [("staker:*", false), ("delegate:*", false), ("subnet:*:miner", true), ("openid", true)] {
        assert_eq!(text.parse::<RequiredScope>().unwrap().exists_on(Network::Testnet), testnet, "{text}");
    }
}
