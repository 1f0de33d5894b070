//! With a Pylon, which makes and publishes the key itself.

use super::*;
use crate::support::{
    Gate, Reply, eventually,
    pylon::{Pylon, TOKEN},
};

/// The end of the path that makes a key, and of no other.
const MAKE: &str = "2/certificates/self";

fn pylon() -> Pylon {
    let pylon = Pylon::start();
    pylon.set_wallet(NEURON);
    pylon
}

fn desk(pylon: &Pylon) -> Desk {
    Desk::new()
        .variable("NEXUS_PYLON_ENDPOINT", &format!(" {}// ", pylon.url()))
        .variable("NEXUS_PYLON_NETUID", "2")
        .variable("NEXUS_PYLON_IDENTITY_NAME", "miner")
        .variable("NEXUS_PYLON_IDENTITY_TOKEN", TOKEN)
}

const FOR_NEURON: [&str; 2] = ["-ss58-address", NEURON];

fn forced<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [FOR_NEURON.as_slice(), &["-force-recreate"], arguments].concat()
}

#[test]
fn a_key_is_made_once_and_again_when_that_is_said() {
    let pylon = pylon();
    let desk = desk(&pylon);
    desk.generate(&FOR_NEURON).with(0, &["a new key", "3650 days"]);
    desk.certified(NEURON, &key(1));
    assert_eq!(mode(&desk.certs("")), 0o755);
    desk.generate(&FOR_NEURON).with(0, &["nothing done"]);
    desk.generate(&[FOR_NEURON.as_slice(), &["-force-recreate=false"]].concat()).with(0, &["nothing done"]);
    assert_eq!(pylon.made(), 1);
    set_mode(&desk.key(), 0o644);
    desk.generate(&forced(&["-not-after-days=36500"])).with(0, &["36500 days"]);
    desk.certified(NEURON, &key(2));
}

#[test]
fn secrets_come_out_of_files_and_go_into_no_log() {
    let pylon = pylon();
    let desk = desk(&pylon).variable("NEXUS_PYLON_IDENTITY_TOKEN_FILE", "token");
    fs::write(desk.directory.path().join("token"), format!("{TOKEN}\n")).unwrap();
    desk.generate(&FOR_NEURON).with(2, &["both set"]);
    let desk = desk.variable("NEXUS_PYLON_IDENTITY_TOKEN", "");
    let ended = desk.generate(&FOR_NEURON).with(0, &[]);
    assert!(!ended.err.contains("0101010101") && !ended.err.contains(TOKEN), "{}", ended.err);
}

#[test]
fn nothing_is_published_when_the_files_cannot_be_written() {
    let pylon = pylon();
    let desk = desk(&pylon);
    let in_the_way = desk.directory.path().join("certs");
    fs::write(&in_the_way, "a file").unwrap();
    desk.generate(&FOR_NEURON).with(1, &["Failed to generate a certificate"]);
    fs::remove_file(&in_the_way).unwrap();
    for blocked in ["client.key.next", "client.crt", "client.key"] {
        fs::create_dir_all(desk.certs(blocked)).unwrap();
        desk.generate(&forced(&[])).with(1, &[blocked]);
        fs::remove_dir(desk.certs(blocked)).unwrap();
    }
    // Where even root may make nothing.
    desk.generate(&[FOR_NEURON.as_slice(), &["--output-dir", "/proc/tollgate"]].concat()).with(1, &["/proc/tollgate"]);
    assert_eq!((pylon.made(), pylon.asked(MAKE)), (0, 0));
}

#[test]
fn another_subnet_is_refused_and_no_redirect_followed() {
    let pylon = pylon();
    let desk = desk(&pylon);
    let arguments = [FOR_NEURON.as_slice(), &["--netuid", "3"]].concat();
    desk.generate(&arguments).with(1, &["belongs to subnet 2"]);
    pylon.say_netuid(3);
    desk.generate(&arguments).with(1, &["308"]);
    assert_eq!((pylon.made(), desk.names()), (0, vec![]));
}

#[test]
fn a_hotkey_of_another_wallet_is_refused_before_a_key_is_made() {
    let pylon = pylon();
    let desk = desk(&pylon);
    // Alice has published a key, and the identity's wallet has not.
    desk.generate(&["--ss58-address", ALICE]).with(1, &["is not the hotkey of Pylon's identity \"miner\""]);
    assert_eq!(pylon.made(), 0);
}

#[test]
fn what_pylon_refuses_has_changed_nothing() {
    let pylon = pylon();
    let desk = desk(&pylon).occupied();
    let before = desk.contents();
    for (status, said) in [(400, "400"), (401, "401"), (403, "403"), (404, "404"), (502, "502")] {
        let reply = Reply::status(status, r#"{"detail":"what it\nsays"}"#);
        pylon.answer_at(MAKE, Some(reply));
        desk.generate(&forced(&[])).with(1, &[said, r"what it\nsays", "No key has been published"]);
    }
    pylon.answer_at(MAKE, None);
    pylon.set_wallet("");
    desk.generate(&forced(&[])).with(1, &["502", "No key has been published"]);
    assert_eq!(desk.contents(), before);
}

#[test]
fn a_key_that_may_be_published_and_lost_is_told_and_the_next_run_mends_it() {
    let pylon = pylon();
    let desk = desk(&pylon).occupied();
    let before = desk.contents();
    let pair = |private: &str| {
        let public = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
        Reply::status(201, format!(r#"{{"algorithm":1,"public_key":"{public}","private_key":"{private}"}}"#))
    };
    for (reply, said) in [
        (Reply::status(504, r#"{"detail":"Request timed out"}"#), "504"),
        (Reply::status(500, "{}"), "500"),
        (Reply::status(200, "{}"), "200"),
        (Reply::raw("HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{"), "broke off"),
        (Reply::raw(""), "connection"),
        (Reply::status(201, "{}"), "cannot be used"),
        // The key of another seed.
        (pair(&"77".repeat(32)), "does not belong"),
    ] {
        pylon.answer_made(Some(reply));
        let made = pylon.made();
        desk.generate(&forced(&[])).with(1, &[said, "may have been published", "run this again"]);
        assert_eq!((pylon.made(), desk.contents()), (made + 1, before.clone()), "{said}");
    }
    pylon.answer_made(None);
    desk.generate(&forced(&[])).with(0, &[]);
    desk.certified(NEURON, &key(pylon.made()));
}

#[test]
fn a_key_that_cannot_be_confirmed_is_kept_and_the_next_run_goes_on_with_it() {
    let pylon = pylon();
    let desk = desk(&pylon);
    let (made, seen) = (Gate::closed(), Gate::closed());
    // The answer waits until nobody can look any more whether the key is there.
    let public = alloy::hex::encode(key(1).public());
    let answer = format!(r#"{{"algorithm":1,"public_key":"{public}","private_key":"{}"}}"#, "01".repeat(32));
    pylon.answer_made(Some(Reply::after(&made, Reply::status(201, answer))));
    let mut child = desk.command(&FOR_NEURON).stderr(Stdio::null()).spawn().unwrap();
    eventually("the key is made", || (pylon.made() == 1).then_some(()));
    pylon.answer_at("latest/certificates/self", Some(Reply::after(&seen, Reply::status(500, "{}"))));
    made.open();
    eventually("the key is kept", || desk.next_key().exists().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((desk.names(), mode(&desk.next_key())), (vec!["client.key.next".to_owned()], 0o600));
    // Who keeps a key must not overlook it.
    desk.generate(&[FOR_NEURON.as_slice(), &["--reissue"]].concat()).with(1, &["client.key.next", "earlier run"]);
    pylon.answer_at("latest/certificates/self", None);
    desk.generate(&FOR_NEURON).with(0, &["finishing what it began"]);
    desk.certified(NEURON, &key(1));
    assert_eq!(pylon.made(), 1);
}

#[test]
fn a_key_published_for_another_hotkey_is_kept() {
    let pylon = pylon();
    let desk = desk(&pylon);
    // Neither has published anything, so nothing shows before that this is not the wallet's address.
    let other = "5HpG9w8EBLe5XCrbczpwq5TSXvedjrBGCwqxK1iQ7qUsSWFc";
    pylon.put(other, None);
    let ended = desk.generate(&["--ss58-address", other, "--timeout", "10"]);
    ended.with(1, &["is not the hotkey of Pylon's identity", "client.key.next"]);
    assert_eq!(desk.names(), ["client.key.next"]);
    desk.generate(&FOR_NEURON).with(0, &["finishing what it began"]);
    desk.certified(NEURON, &key(1));
    assert_eq!(pylon.made(), 1);
}

#[test]
fn a_private_key_does_not_travel_in_the_open() {
    let desk = Desk::new().variable("NEXUS_PYLON_IDENTITY_TOKEN", TOKEN);
    let pylon = pylon();
    // An address of this machine that is not loopback: what Pylon would be on another machine.
    let arguments = forced(&["--identity-name", "miner", "--netuid", "2"]);
    let port = pylon.url().rsplit(':').next().unwrap().to_owned();
    let elsewhere = format!("http://127.0.0.1.nip.invalid:{port}");
    let ended = desk.generate(&[arguments.as_slice(), &["--pylon-endpoint", &elsewhere]].concat());
    ended.with(1, &["--allow-plaintext"]);
    assert_eq!(pylon.server.requests(), 0);
}

#[test]
fn a_kept_key_is_compared_with_the_published_one() {
    let pylon = pylon();
    let desk = desk(&pylon);
    desk.write("client.key", key(7).to_pem().as_bytes());
    let reissue = [FOR_NEURON.as_slice(), &["--reissue"]].concat();
    desk.generate(&reissue).with(1, &["the chain has no key"]);
    pylon.publish(NEURON, key(8).public());
    desk.generate(&reissue).with(1, &["the chain has another key", "--publish"]);
    assert_eq!(desk.names(), ["client.key"]);
    pylon.publish(NEURON, key(7).public());
    desk.generate(&reissue).with(0, &["the same key"]);
    desk.certified(NEURON, &key(7));
    assert_eq!(pylon.made(), 0);
}
