//! Which coldkey owns a hotkey: asked of the chain, remembered, and never guessed.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use tollgate::{
    chain::{
        cache::{Clock, Unanswered},
        fault::Fault,
        subtensor::{self, owners::Owners},
    },
    model::hotkey::Hotkey,
};

use crate::support::{
    PATIENCE, eventually, run,
    subtensor::{GENESIS, IDLE, MINER, NOBODY, Node, Release, Trouble, VALIDATOR, owner_key},
};

/// Who owns [`VALIDATOR`], and [`MINER`].
const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
const CHARLIE: &str = "5FLSigC9HGRKVhB9FiEo4Y3koPsNmBmLJbpXg2mp1hXcS59Y";

fn hotkey(text: &str) -> Hotkey {
    text.parse().unwrap()
}

fn owners_at(url: &str, clock: &Clock, timeout: Duration, genesis: &str) -> Owners {
    let genesis_hash = Some(alloy::hex::FromHex::from_hex(genesis).unwrap());
    let options = subtensor::Options { url: url.parse().unwrap(), genesis_hash, timeout };
    run(async {
        let node = subtensor::Node::new(options).unwrap();
        Owners::new(node, timeout, clock.clone(), tokio::runtime::Handle::current())
    })
}

fn owners(node: &Node, clock: &Clock) -> Owners {
    owners_at(&node.url(), clock, PATIENCE, GENESIS)
}

fn of(owners: &Owners, who: &str) -> Result<Option<String>, Unanswered> {
    Ok(run(owners.of_stranger(hotkey(who)))?.map(|owner| owner.to_string()))
}

#[expect(clippy::unnecessary_wraps, reason = "it is what is asked for")]
fn owned(by: &str) -> Result<Option<String>, Unanswered> {
    Ok(Some(by.to_owned()))
}

fn failed(fault: Fault) -> Result<Option<String>, Unanswered> {
    Err(Unanswered::Unavailable(fault))
}

#[test]
fn owners_are_read_over_both_transports_and_from_later_runtimes() {
    let node = Node::start();
    for url in [node.url(), node.http_url()] {
        let owners = owners_at(&url, &Clock::manual(), PATIENCE, GENESIS);
        assert_eq!(of(&owners, VALIDATOR), owned(BOB));
        assert_eq!(of(&owners, MINER), owned(CHARLIE));
        for coldkey in [BOB, NOBODY] {
            assert_eq!(of(&owners, coldkey), Ok(None), "where nothing is stored, the zero account is read");
        }
    }
    node.upgrade(Release::Devnet381);
    node.mine_and_finalize();
    assert_eq!(of(&owners(&node, &Clock::manual()), VALIDATOR), owned(BOB));
}

#[test]
fn the_zero_account_owns_nothing_although_it_is_stored() {
    let node = Node::start();
    node.set(owner_key(VALIDATOR), Some(format!("0x{}", "00".repeat(32))));
    node.mine_and_finalize();
    assert_eq!(of(&owners(&node, &Clock::manual()), VALIDATOR), Ok(None));
}

#[test]
fn only_what_is_final_counts() {
    let node = Node::start();
    node.set(owner_key(NOBODY), Some(alloy::hex::encode_prefixed(hotkey(BOB).0)));
    node.mine();
    assert_eq!(of(&owners(&node, &Clock::manual()), NOBODY), Ok(None));
    node.finalize();
    assert_eq!(of(&owners(&node, &Clock::manual()), NOBODY), owned(BOB));
}

#[test]
fn an_answer_is_remembered_for_a_while_and_a_no_for_less() {
    let node = Node::start();
    let clock = Clock::manual();
    let owners = owners(&node, &clock);
    assert_eq!((of(&owners, VALIDATOR), of(&owners, NOBODY)), (owned(BOB), Ok(None)));
    let before = node.asked("state_getStorage");
    for _ in 0..3 {
        assert_eq!((of(&owners, VALIDATOR), of(&owners, NOBODY)), (owned(BOB), Ok(None)));
    }
    assert_eq!(node.asked("state_getStorage"), before);
    node.stop();
    clock.advance(Duration::from_secs(13));
    assert!(of(&owners, NOBODY).is_err(), "it may have been registered since");
    assert_eq!(of(&owners, VALIDATOR), owned(BOB));
    clock.advance(Duration::from_mins(1));
    assert!(of(&owners, VALIDATOR).is_err(), "nor is an old yes a yes");
}

#[test]
fn a_node_that_does_not_answer_is_neither_yes_nor_no() {
    let node = Node::start();
    let clock = Clock::manual();
    let short = Duration::from_millis(300);
    for (trouble, fault) in [
        (Trouble::Silence, Fault::Timeout),
        (Trouble::Error(-32000, "no"), Fault::Rpc),
        (Trouble::AnotherBlock, Fault::Malformed),
        (Trouble::Status(503), Fault::Status),
    ] {
        node.trouble(Some(trouble.clone()));
        let patience = if fault == Fault::Timeout { short } else { PATIENCE };
        let owners = owners_at(&node.url(), &clock, patience, GENESIS);
        let begun = Instant::now();
        assert_eq!(of(&owners, VALIDATOR), failed(fault), "{trouble:?}");
        assert!(begun.elapsed() < PATIENCE, "{trouble:?}");
    }
    node.trouble(None);
    let elsewhere = owners_at(&node.url(), &clock, PATIENCE, &GENESIS.replace('4', "5"));
    assert_eq!(of(&elsewhere, VALIDATOR), failed(Fault::Mismatch), "another chain's node");
    node.set_syncing(true);
    assert_eq!(of(&owners(&node, &clock), VALIDATOR), failed(Fault::Behind));
}

#[test]
fn a_connection_that_broke_is_made_again_for_the_same_question() {
    let node = Node::start();
    let owners = owners(&node, &Clock::manual());
    assert_eq!(of(&owners, VALIDATOR), owned(BOB));
    node.stop();
    node.restart();
    assert_eq!(of(&owners, MINER), owned(CHARLIE), "nobody but the log sees that the node was restarted");
    assert_eq!(owners.statistics().fetches.failed(Fault::Transport), 0);
}

#[test]
fn a_node_that_comes_late_is_found() {
    let node = Node::start();
    node.stop();
    let clock = Clock::manual();
    let owners = owners(&node, &clock);
    assert_eq!(of(&owners, VALIDATOR), failed(Fault::Transport));
    node.restart();
    assert_eq!(of(&owners, VALIDATOR), failed(Fault::Transport), "left in peace for a moment");
    clock.advance(Duration::from_secs(5));
    eventually("the owner", || (of(&owners, VALIDATOR) == owned(BOB)).then_some(()));
}

#[test]
fn strangers_share_their_questions_and_cannot_ask_without_end() {
    let node = Node::start();
    let owners = owners(&node, &Clock::manual());
    run(async {
        let all: Vec<_> = (0..20)
            .map(|_| {
                let owners = owners.clone();
                tokio::spawn(async move { owners.of_stranger(hotkey(VALIDATOR)).await })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap().unwrap().unwrap().to_string(), BOB);
        }
    });
    assert_eq!(node.asked("state_getStorage"), 1);
    let made_up = |number: u8| run(owners.of_stranger(Hotkey([number; 32])));
    let limited = (1..=60).filter(|number| matches!(made_up(*number), Err(Unanswered::Limited { .. }))).count();
    assert_eq!(limited, 11, "fifty at once, one of them for the validator");
    assert_eq!(owners.statistics().limited.load(Relaxed), 11);
    assert_eq!(of(&owners, VALIDATOR), owned(BOB), "what is known is told");
    assert!(run(owners.of(hotkey(IDLE))).unwrap().is_some(), "who signed in before is not turned away for it");
}
