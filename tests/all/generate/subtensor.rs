//! Without Pylon: the hotkey signs, and a node takes the transaction.

use serde_json::json;
use sp_core::{Pair as _, sr25519};

use super::*;
use crate::support::{
    eventually,
    subtensor::{IDLE, MINER, MINERS_KEY, NETUID, NOBODY, Node, Release, certificate_key, storage_key},
};

/// Each submission of a transaction.
const SUBMIT: &str = "author_submitAndWatchExtrinsic";

/// A node on which a neuron may publish as often as it likes, and which finalises at once.
fn node() -> Node {
    let node = Node::start();
    node.serving_rate_limit(0);
    node.mine_and_finalize();
    node.automatic();
    node
}

/// A hotkey's file, as btcli writes it.
fn wallet(desk: &Desk, name: &str, path: &str, address: &str) {
    let pair = sr25519::Pair::from_string(path, None).unwrap();
    let public = alloy::hex::encode_prefixed(pair.public().0);
    let file = json!({
        "accountId": public, "publicKey": public, "privateKey": alloy::hex::encode_prefixed(pair.to_raw_vec()),
        "secretPhrase": null, "secretSeed": null, "ss58Address": address,
    });
    let path = desk.directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, file.to_string()).unwrap();
    set_mode(&path, 0o600);
}

/// A desk with the miner's wallet.
fn desk() -> Desk {
    let desk = Desk::new().variable("NEXUS_PYLON_NETUID", "2");
    wallet(&desk, "wallet", "//Charlie//hot", MINER);
    desk
}

/// Runs it at a node, with the wallet in the file `wallet`.
fn generate(desk: &Desk, node: &Node, arguments: &[&str]) -> Ended {
    desk.generate(&[&["--subtensor-url", &node.url(), "--wallet", "wallet"], arguments].concat())
}

/// The key in the output directory.
fn kept(path: &Path) -> NeuronKey {
    NeuronKey::from_pem(&fs::read(path).unwrap()).unwrap()
}

/// The node has this key of the hotkey.
#[track_caller]
fn has(node: &Node, hotkey: &str, key: &NeuronKey) {
    assert_eq!(node.published(hotkey), Some((1, key.public().to_vec())));
}

/// Where the chain says a hotkey is reached: everything but the block.
fn axon(node: &Node, hotkey: &str) -> Option<String> {
    let item = storage_key("SubtensorModule", "Axons", &[]);
    let account = &certificate_key(NETUID, hotkey)[item.len()..];
    node.storage(&format!("{item}{account}")).map(|value| value[2 + 16..].to_owned())
}

#[test]
fn a_key_is_published_and_rotated_on_every_runtime() {
    for release in [Release::Recorded, Release::Finney365, Release::Devnet381] {
        let (node, desk) = (node(), desk());
        node.upgrade(release);
        node.mine_and_finalize();
        let before = axon(&node, MINER).unwrap();
        generate(&desk, &node, &[]).with(0, &["a new key", MINER]);
        let first = kept(&desk.key());
        desk.certified(MINER, &first);
        has(&node, MINER, &first);
        assert_eq!(axon(&node, MINER).unwrap(), before, "where it is reached stays");

        generate(&desk, &node, &[]).with(0, &["nothing done"]);
        generate(&desk, &node, &["--force-recreate", "--ip", "2001:db8::1", "--port", "9000"]).with(0, &[]);
        let second = kept(&desk.key());
        assert_ne!(first.public(), second.public());
        desk.certified(MINER, &second);
        has(&node, MINER, &second);
        assert_ne!(axon(&node, MINER).unwrap(), before);
        assert_eq!(node.asked(SUBMIT), 2);
    }
}

#[test]
fn a_neuron_that_nobody_knows_where_to_reach_says_so() {
    let (node, desk) = (node(), desk());
    wallet(&desk, "wallet", "//Ferdie//hot", IDLE);
    generate(&desk, &node, &[]).with(1, &["--ip and --port"]);
    generate(&desk, &node, &["--ip", "203.0.113.9"]).with(1, &["--ip and --port"]);
    assert!(desk.names().is_empty(), "no key is made for nothing");
    generate(&desk, &node, &["--ip", "127.0.0.1", "--port", "8443"]).with(1, &["InvalidIpAddress", "public one"]);
    let key = kept(&desk.next_key());
    assert_eq!(node.published(IDLE), None);
    generate(&desk, &node, &["--ip", "203.0.113.9", "--port", "8443"]).with(0, &["going on with it"]);
    desk.certified(IDLE, &key);
    has(&node, IDLE, &key);
}

#[test]
fn what_the_chain_refuses_is_told_in_words_and_the_key_waits() {
    let (node, desk) = (node(), desk());
    wallet(&desk, "nobody", "//Nobody", NOBODY);
    let nobody = ["--wallet", "nobody", "--ip", "203.0.113.9", "--port", "8443", "--output-dir", "elsewhere"];
    let ended = desk.generate(&[["--subtensor-url", &node.url()].as_slice(), &nobody].concat());
    ended.with(1, &["not registered in this subnet (HotKeyNotRegisteredInNetwork)"]);

    generate(&desk, &node, &[]).with(0, &[]);
    let (first, before) = (kept(&desk.key()), desk.contents());
    node.serving_rate_limit(50);
    node.mine_and_finalize();
    let ended = generate(&desk, &node, &["--force-recreate"]);
    ended.with(1, &["once in a while", "ServingRateLimitExceeded", "client.key.next"]);
    // The old pair is as it was, and still the published one.
    assert_eq!(desk.contents()[..2], before);
    has(&node, MINER, &first);
    let next = kept(&desk.next_key());
    for _ in 0..50 {
        node.mine_and_finalize();
    }
    // Not forced: what was begun is finished.
    generate(&desk, &node, &[]).with(0, &["going on with it"]);
    desk.certified(MINER, &next);
    has(&node, MINER, &next);
}

#[test]
fn a_call_that_fails_in_its_block_is_told_in_words() {
    let (node, desk) = (node(), desk());
    node.refuse(Some("ServingRateLimitExceeded"));
    generate(&desk, &node, &[]).with(1, &["once in a while", "client.key.next"]);
    node.refuse(None);
    generate(&desk, &node, &[]).with(0, &[]);
    has(&node, MINER, &kept(&desk.key()));
}

#[test]
fn a_call_that_succeeds_and_changes_nothing_is_not_success() {
    let (node, desk) = (node(), desk());
    node.deaf_to_keys(true);
    let ended = generate(&desk, &node, &["--timeout", "10"]);
    ended.with(1, &["cannot be confirmed", "the chain has another key", "client.key.next"]);
    assert_eq!(alloy::hex::encode(node.published(MINER).unwrap().1), MINERS_KEY);
    assert_eq!(desk.names(), ["client.key.next"]);
}

#[test]
fn a_process_that_dies_after_publishing_has_lost_nothing() {
    let (node, desk) = (Node::start(), desk());
    node.serving_rate_limit(0);
    node.mine_and_finalize();
    let arguments = ["--subtensor-url", &node.url(), "--wallet", "wallet"];
    let mut child = desk.command(&arguments).stderr(Stdio::null()).spawn().unwrap();
    eventually("it is submitted", || (node.pool() == 1).then_some(()));
    // On disk before anybody else has seen it.
    let key = kept(&desk.next_key());
    assert_eq!((desk.names(), mode(&desk.next_key())), (vec!["client.key.next".to_owned()], 0o600));
    child.kill().unwrap();
    child.wait().unwrap();
    node.mine_and_finalize();
    has(&node, MINER, &key);
    generate(&desk, &node, &[]).with(0, &["going on with it"]);
    desk.certified(MINER, &key);
    assert_eq!(node.asked(SUBMIT), 1);
}

#[test]
fn a_transaction_that_is_not_final_in_time_is_not_success() {
    let (node, desk) = (Node::start(), desk());
    node.serving_rate_limit(0);
    node.mine_and_finalize();
    generate(&desk, &node, &["--timeout", "10"]).with(1, &["not final", "may still be published", "client.key.next"]);
    let key = kept(&desk.next_key());
    node.mine_and_finalize();
    generate(&desk, &node, &["--timeout", "10"]).with(0, &[]);
    desk.certified(MINER, &key);
}

#[test]
fn a_node_that_does_not_answer_publishes_nothing() {
    let (node, desk) = (node(), desk());
    node.stop();
    generate(&desk, &node, &[]).with(1, &["Failed to generate a certificate"]);
    assert!(desk.names().is_empty());
}

#[test]
fn nothing_is_published_when_the_files_cannot_be_written() {
    let (node, desk) = (node(), desk());
    for blocked in ["client.key.next", "client.crt", "client.key"] {
        fs::create_dir_all(desk.certs(blocked)).unwrap();
        generate(&desk, &node, &["--force-recreate"]).with(1, &[blocked]);
        fs::remove_dir(desk.certs(blocked)).unwrap();
    }
    generate(&desk, &node, &["--output-dir", "/proc/tollgate"]).with(1, &["/proc/tollgate"]);
    assert_eq!(node.asked(SUBMIT), 0);
}

#[test]
fn a_key_that_there_is_is_published_if_that_is_said() {
    let (node, desk) = (node(), desk());
    fs::write(desk.directory.path().join("shield.pem"), key(7).to_pem().as_bytes()).unwrap();
    let url = node.url();
    let unsigned = ["--subtensor-url", &url, "--ss58-address", MINER, "--from-key", "shield.pem"];
    desk.generate(&unsigned).with(1, &["the chain has another key", "--publish"]);
    desk.generate(&[unsigned.as_slice(), &["--publish"]].concat()).with(2, &["--wallet"]);
    assert!(desk.names().is_empty());
    generate(&desk, &node, &["--from-key", "shield.pem", "--publish"]).with(0, &["the same key"]);
    desk.certified(MINER, &key(7));
    has(&node, MINER, &key(7));
    // Now it is the published one, and a new certificate takes no wallet and no transaction.
    let renewed = ["--subtensor-url", &url, "--ss58-address", MINER, "--reissue"];
    desk.generate(&renewed).with(0, &["the same key"]);
    generate(&desk, &node, &["--reissue", "--publish"]).with(0, &[]);
    assert_eq!(node.asked(SUBMIT), 1);
    assert_eq!(node.published(MINER).unwrap().1, key(7).public());
}

#[test]
fn wallets_are_found_where_btcli_keeps_them() {
    let (node, desk) = (node(), desk());
    wallet(&desk, ".bittensor/wallets/mine/hotkeys/miner", "//Charlie//hot", MINER);
    wallet(&desk, "elsewhere/mine/hotkeys/default", "//Charlie//hot", MINER);
    let home = desk.directory.path().to_str().unwrap().to_owned();
    let desk = desk.variable("HOME", &home);
    let url = node.url();
    let named = ["--subtensor-url", &url, "--wallet-name", "mine", "--output-dir"];
    desk.generate(&[named.as_slice(), &["one", "--wallet-hotkey", "miner"]].concat()).with(0, &[MINER]);
    desk.generate(&[named.as_slice(), &["two", "--wallet-path", "elsewhere"]].concat()).with(0, &[MINER]);
    desk.generate(&[named.as_slice(), &["three"]].concat()).with(1, &[".bittensor/wallets/mine/hotkeys/default"]);
}

#[test]
fn a_wallet_that_cannot_sign_is_refused_before_anything_is_asked() {
    let (node, desk) = (node(), desk());
    let asked = node.questions();
    let secret = "398f0c28f98885e046333d4a41c19cee4c37368a9832c6502f6cfd182e2aef89";
    for (text, said) in [
        ("$NACLxyz".to_owned(), "encrypted"),
        (json!({"secretSeed": format!("0x{secret}"), "ss58Address": MINER}).to_string(), "gives the address"),
        ("{}".to_owned(), "holds no secret"),
    ] {
        fs::write(desk.directory.path().join("wallet"), text).unwrap();
        let ended = generate(&desk, &node, &[]).with(1, &[said, "wallet"]);
        assert!(!ended.err.contains(&secret[..12]), "{}", ended.err);
    }
    wallet(&desk, "wallet", "//Charlie//hot", MINER);
    generate(&desk, &node, &["--ss58-address", IDLE]).with(2, &["is not the wallet's hotkey"]);
    desk.generate(&["--subtensor-url", &node.url()]).with(2, &["--wallet FILE"]);
    desk.generate(&["--subtensor-url", "http://x", "--wallet", "wallet"]).with(2, &["wss://"]);
    assert_eq!(node.questions(), asked);
    // One that everybody may read is used, and complained about.
    set_mode(&desk.directory.path().join("wallet"), 0o644);
    let ended = generate(&desk, &node, &[]).with(0, &["chmod 600"]);
    let file = fs::read_to_string(desk.directory.path().join("wallet")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert!(!ended.err.contains(&file["privateKey"].as_str().unwrap()[2..20]));
    assert_ne!(alloy::hex::encode(node.published(MINER).unwrap().1), MINERS_KEY);
}
