//! From a Pylon.

use serde_json::json;
use tollgate::{
    chain::{http, pylon},
    model::secret::Secret,
};

use super::*;
use crate::support::{
    Gate, Gateway, Reply, Settings,
    pylon::{Pylon, TOKEN},
    upstream::Received,
};

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
const ALICES: &str = "d7f9d34322f92a04584ffdea6d45209f8571cb615850ab7534872a9787a59d3d";
const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
/// Its look-up is answered with 500.
const BROKEN: &str = "5HpG9w8EBLe5XCrbczpwq5TSXvedjrBGCwqxK1iQ7qUsSWFc";
/// Not in the registry.
const NOBODY: &str = "5FQzhS8MRMGNZfCxVJaWu4n4Q6jt53zv2hxYguM4Y5fVkcHZ";

fn kept(pylon: &Pylon, clock: &Clock) -> Kept {
    kept_with(pylon, clock, Some(TOKEN), PATIENCE)
}

fn kept_with(pylon: &Pylon, clock: &Clock, token: Option<&str>, timeout: Duration) -> Kept {
    let options = pylon::Options {
        url: pylon.url().parse().unwrap(),
        identity: "miner".to_owned(),
        token: token.map(|token| Secret::new(token.to_owned())),
        http: http::Options { timeout, extra_ca_pem: None },
    };
    run(async {
        let client = pylon::Pylon::new(&options).unwrap();
        let identities = pylon::Identities::default();
        identities.replace([(SUBNET, client.clone())].into());
        let look_ups = identities.look_ups(OFTEN, timeout, clock.clone(), tokio::runtime::Handle::current());
        Kept::reading(tables(clock).with_look_ups(look_ups), Source::Pylon(client))
    })
}

#[test]
fn every_entry_of_the_table_is_read_for_what_it_is() {
    let pylon = Pylon::start();
    let kept = kept(&pylon, &Clock::manual());
    kept.eventually(ALICE, &ed25519(ALICES));
    for (who, key) in [
        // Capital letters, and `0x` in front.
        (
            "5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY",
            ed25519("70526E01EA05816080608144405168311ED285D2C2614F11C51440C3DEB3D696"),
        ),
        (
            "5HGjWAeFDfFCWPsjFQdVV2Msvz2XtMktvgocEZcCj68kUMaw",
            ed25519("739c01405d565b2e2e041b32fca51e2afc79a3cef954c2ee3bbcbf18df7e09e1"),
        ),
        (
            "5DAAnrj7VHTznn2AWBemMuyBwZWs6FNFjdyVXUeYum3PTXFy",
            Ok(Some(PublishedKey::Unusable("published_key_algorithm"))),
        ),
        (NOBODY, Ok(None)),
        (BROKEN, UNAVAILABLE),
        (ALICE, ed25519(ALICES)),
    ] {
        assert_eq!(kept.key(who), key, "{who}");
    }
    assert_eq!(kept.block(), 1_000);
    assert_eq!(kept.neuron(ALICE), Err(Denial::Unavailable(Dependency::Neurons)), "nobody wanted to know");
    assert_eq!(
        run(kept.neurons.own_key(SUBNET)),
        ed25519("045029f18e36af1b588f676c6dfb2949b77791da72c1a16bee5aaa1aef174bc5")
    );
    let asked = pylon.server.received();
    assert!(asked.iter().all(|it| it.header("x-pylon-timeout") == Some("20")), "{asked:?}");
    assert!(asked.iter().any(|it| it.path() == "/api/v1/identity/miner/subnet/2/block/latest/certificates"));
}

#[test]
fn an_entry_that_cannot_be_read_hides_no_other() {
    let pylon = Pylon::start();
    for (who, entry) in [
        (BOB, json!({"algorithm": 1, "public_key": "zz"})),
        ("not a hotkey", json!({"algorithm": 1, "public_key": ALICES})),
        ("5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM", json!({"algorithm": 1, "public_key": ALICES})),
        (NOBODY, json!(null)),
    ] {
        pylon.put(who, Some(entry));
    }
    let kept = kept(&pylon, &Clock::manual());
    kept.eventually(ALICE, &ed25519(ALICES));
    let unreadable = Ok(Some(PublishedKey::Unusable("published_key_unreadable")));
    assert_eq!((kept.key(BOB), kept.key(NOBODY)), (unreadable.clone(), unreadable));
}

#[test]
fn an_old_pylon_is_understood() {
    let pylon = Pylon::old();
    let clock = Clock::manual();
    let kept = kept_with(&pylon, &clock, None, PATIENCE);
    kept.eventually(ALICE, &ed25519(ALICES));
    assert!(pylon.server.received().iter().all(|it| it.header("authorization").is_none()));
    pylon.publish(ALICE, &[5; 32]);
    kept.eventually(ALICE, &Ok(Some(PublishedKey::Ed25519([5; 32]))));
    pylon.put(ALICE, None);
    kept.eventually(ALICE, &Ok(None));
    // It names no block, so nobody can say that its chain stands still.
    clock.advance(Duration::from_mins(6));
    kept.eventually(BOB, &ed25519("fa48912f75cdbd29895b1f349d0a38f3479b184e0490426d248a443dddb70adb"));
}

#[test]
fn who_is_registered_is_asked_for_once_somebody_wants_to_know() {
    let pylon = Pylon::start();
    let neuron = |uid: u16, permit: bool, total: f64| {
        json!({"uid": uid, "hotkey": "x", "active": true, "axon_info": {"ip": "0.0.0.0", "port": 0, "protocol": 4},
            "stake": 9999.0, "validator_permit": permit, "stakes": {"alpha": 1.0, "tao": 2.0, "total": total}, "new": {}})
    };
    pylon.neurons(&json!({ALICE: neuron(7, true, 1042.2), BOB: neuron(8, false, 0.0)}));
    let kept = kept(&pylon, &Clock::manual());
    kept.eventually(ALICE, &ed25519(ALICES));
    assert_eq!(pylon.asked("/neurons"), 0);
    kept.neurons.want_registered(SUBNET);
    let alice = Neuron { uid: 7, validator_permit: true, stake: 1_042_200_000_000 };
    eventually("Alice is registered", || (kept.neuron(ALICE) == Ok(Some(alice))).then_some(()));
    assert_eq!(kept.neuron(BOB), Ok(Some(Neuron { uid: 8, validator_permit: false, stake: 0 })));
    assert_eq!(kept.neuron(NOBODY), Ok(None));
    assert_eq!(pylon.asked("/block/latest/neurons"), 0, "its memory is enough");

    pylon.forget_neurons();
    pylon.neurons(&json!({BOB: neuron(7, true, 1.0)}));
    eventually("it is asked for the chain's", || (kept.neuron(ALICE) == Ok(None)).then_some(()));
    assert!(pylon.asked("/block/latest/neurons") > 0);
    // Without the weighted stake nobody knows who has enough of it.
    pylon.neurons(&json!({BOB: {"uid": 7, "validator_permit": true, "stake": 5.0}}));
    let unknown = Err(Denial::Unavailable(Dependency::Neurons));
    eventually("neurons that cannot be read are unknown", || (kept.neuron(BOB) == unknown).then_some(()));
    kept.eventually(ALICE, &ed25519(ALICES));
}

#[test]
fn an_identity_of_another_subnet_never_makes_a_table() {
    let pylon = Pylon::start();
    pylon.say_netuid(3);
    let kept = kept(&pylon, &Clock::manual());
    kept.fails(Fault::Mismatch);
    assert_eq!(kept.key(ALICE), UNAVAILABLE);
    assert_eq!(run(kept.neurons.own_key(SUBNET)), UNAVAILABLE);
    // What `/identities` hides, the redirect shows. It is not followed.
    pylon.say_netuid(2);
    pylon.set_netuid(3);
    kept.fails(Fault::Mismatch);
    assert_eq!(kept.key(ALICE), UNAVAILABLE);
    pylon.set_identity("somebody");
    pylon.set_netuid(2);
    kept.fails(Fault::Mismatch);
    assert_eq!(kept.key(ALICE), UNAVAILABLE);
    assert_eq!(pylon.asked("/subnet/3/block/latest/certificates"), 0);
    pylon.set_identity("miner");
    kept.eventually(ALICE, &ed25519(ALICES));
}

#[test]
fn a_pylon_that_fails_leaves_the_table_for_a_while() {
    let pylon = Pylon::start();
    let clock = Clock::manual();
    let kept = kept(&pylon, &clock);
    kept.eventually(ALICE, &ed25519(ALICES));
    let elsewhere = pylon.url() + "/api/v1/identity/miner/subnet/3/block/latest/certificates";
    for (reply, fault) in [
        (Reply::status(500, "broken"), Fault::Status),
        (Reply::status(429, "slower"), Fault::Status),
        (Reply::status(401, "{}"), Fault::Status),
        (Reply::status(403, "{}"), Fault::Status),
        (Reply::status(404, "{}"), Fault::Status),
        (Reply::status(308, "").header("Location", &elsewhere), Fault::Mismatch),
        (Reply::ok("<html>"), Fault::Malformed),
        (Reply::ok("[]"), Fault::Malformed),
        (Reply::ok("null"), Fault::Malformed),
        (Reply::ok(" ".repeat(9 << 20)), Fault::TooLarge),
        (Reply::raw(""), Fault::Transport),
    ] {
        pylon.answer_at("/certificates", Some(reply));
        kept.fails(fault);
        assert_eq!(kept.key(ALICE), ed25519(ALICES));
        pylon.answer_at("/certificates", None);
        kept.succeeds();
    }
    pylon.answer_instead(Some(Reply::status(500, "broken")));
    kept.fails(Fault::Status);
    clock.advance(Duration::from_mins(9));
    assert_eq!(kept.key(ALICE), ed25519(ALICES), "it is believed for ten minutes");
    clock.advance(Duration::from_mins(2));
    assert_eq!(kept.key(ALICE), UNAVAILABLE);
    assert_eq!(kept.key(NOBODY), UNAVAILABLE);
    pylon.set_block(1_050);
    pylon.answer_instead(None);
    kept.eventually(ALICE, &ed25519(ALICES));
}

#[test]
fn a_pylon_that_says_nothing_is_not_waited_for() {
    let pylon = Pylon::start();
    let kept = kept_with(&pylon, &Clock::manual(), Some(TOKEN), Duration::from_millis(500));
    kept.eventually(ALICE, &ed25519(ALICES));
    pylon.answer_at("/certificates", Some(Reply::after(&Gate::closed(), Reply::ok("{}"))));
    kept.fails(Fault::Timeout);
    pylon.answer_at(NOBODY, Some(Reply::after(&Gate::closed(), Reply::ok("{}"))));
    assert_eq!(kept.key(NOBODY), UNAVAILABLE);
    assert_eq!(kept.key(ALICE), ed25519(ALICES));
}

#[test]
fn a_chain_that_stands_still_or_goes_back_is_not_believed() {
    let pylon = Pylon::start();
    let clock = Clock::manual();
    let kept = kept(&pylon, &clock);
    kept.eventually(ALICE, &ed25519(ALICES));
    pylon.publish(ALICE, &[5; 32]);
    kept.eventually(ALICE, &Ok(Some(PublishedKey::Ed25519([5; 32]))));
    pylon.publish(ALICE, &bytes(ALICES));
    pylon.set_block(999);
    kept.fails(Fault::Behind);
    assert_eq!(kept.key(ALICE), Ok(Some(PublishedKey::Ed25519([5; 32]))), "an older table brings nothing back");
    pylon.set_block(1_005);
    kept.eventually(ALICE, &ed25519(ALICES));
    clock.advance(Duration::from_mins(6));
    kept.eventually(ALICE, &UNAVAILABLE);
    pylon.set_block(1_006);
    kept.eventually(ALICE, &ed25519(ALICES));
}

/// 10,000 strangers cause no more than one look-up each and a limited number in all, while a known neuron is answered.
#[test]
fn ten_thousand_strangers_are_not_felt() {
    let pylon = Pylon::start();
    let kept = kept(&pylon, &Clock::manual());
    kept.eventually(ALICE, &ed25519(ALICES));
    let strangers: Vec<_> = (0..10_000_u32).map(stranger).collect();
    let outcomes = run(async {
        let mut outcomes = [0; 3];
        for stranger in strangers.iter().chain(&strangers) {
            outcomes[match kept.neurons.key(SUBNET, stranger).await {
                Ok(None) => 0,
                Err(Denial::TooManyRequests { .. }) => 1,
                _ => 2,
            }] += 1;
            let known = kept.neurons.key(SUBNET, &hotkey(ALICE)).await;
            assert_eq!(known, ed25519(ALICES));
        }
        outcomes
    });
    // The clock stands still, so what may be asked for at once is all.
    assert_eq!(outcomes, [100, 19_900, 0]);
    let asked: Vec<_> = pylon.server.received();
    let mut singles: Vec<_> = asked.iter().map(Received::path).filter(|it| it.contains("/certificates/")).collect();
    assert_eq!(singles.len(), 50);
    singles.sort_unstable();
    singles.dedup();
    assert_eq!(singles.len(), 50, "somebody was asked for twice");
    assert_eq!(pylon.asked(ALICE), 0);
}

fn stranger(number: u32) -> Hotkey {
    let mut account = [0xaa; 32];
    account[..4].copy_from_slice(&number.to_be_bytes());
    Hotkey(account)
}

#[test]
fn a_gateway_reads_the_table_and_shows_it() {
    let pylon = Pylon::start();
    let mut gateway = Gateway::start(pylon.configured(Settings::file().open(pylon.server.address, ""), ""));
    let keys = |gateway: &Gateway| gateway.metric("tollgate_neurons_keys", &["netuid=\"2\""]);
    eventually("the table is there", || (keys(&gateway) == 5).then_some(()));
    assert_eq!(gateway.metric("tollgate_neurons_block", &[]), 1_000);
    assert!(gateway.metric("tollgate_neurons_readings", &["answered"]) > 0);
    gateway.stop();

    pylon.set_netuid(3);
    gateway.expect_error("belongs to subnet 3");
    gateway.restart();
    let failed = || gateway.metric("tollgate_neurons_readings", &["failed_mismatch"]);
    eventually("the mismatch is counted", || (failed() > 0).then_some(()));
    assert_eq!(keys(&gateway), 0);
}
