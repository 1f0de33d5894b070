//! Signing in with Bittensor wallets: which kind of key signed is read from the chain, and nobody gets in while it cannot be.

use serde_json::{Value, json};

use crate::support::{
    Answer, Settings, eventually,
    oauth::{Server, settings, standard},
    secret,
    sign_in::{App, claims, registration, remembered},
    subtensor::{Node, owner_key},
    wallet::{BittensorWallet, EthereumWallet},
};

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

fn asking(node: &Node, settings: Settings) -> Settings {
    settings.variable("SUBTENSOR_WS_URL", node.url())
}

#[track_caller]
fn challenge(server: &Server, address: &str) -> String {
    let answer = server.post_json("/v1/auth/challenge", &json!({ "address": address, "scopes": ["openid"] }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["nonce"].as_str().unwrap().to_owned()
}

fn verify(server: &Server, address: &str, nonce: &str, signature: &str) -> Answer {
    let body = json!({ "nonce": nonce, "address": address, "signature": signature });
    server.post_json("/v1/auth/verify", &body)
}

/// The direct flow.
fn sign_in(server: &Server, wallet: &BittensorWallet) -> Answer {
    let nonce = challenge(server, &wallet.address());
    verify(server, &wallet.address(), &nonce, &wallet.sign(&nonce))
}

fn sign_in_with_ethereum(server: &Server) -> Answer {
    let wallet = EthereumWallet::new(21);
    let nonce = challenge(server, &wallet.address());
    verify(server, &wallet.address(), &nonce, &wallet.sign(&nonce))
}

/// `signer_type`, `sub`, `hotkey`, `coldkey`, `evm_address` of the access token.
#[track_caller]
fn who(answer: &Answer) -> [Value; 5] {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let claims = claims(&remembered(answer)["access_token"]);
    ["signer_type", "sub", "hotkey", "coldkey", "evm_address"].map(|name| claims[name].clone())
}

fn hotkey(address: &str, owner: &str) -> [Value; 5] {
    [json!("hotkey"), json!(address), json!(address), json!(owner), Value::Null]
}

fn coldkey(address: &str) -> [Value; 5] {
    [json!("coldkey"), json!(address), Value::Null, json!(address), Value::Null]
}

#[track_caller]
fn unavailable(answer: &Answer) {
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    assert!(answer.text().contains("cannot be asked about this wallet"), "{}", answer.text());
}

#[test]
fn hotkeys_and_coldkeys_are_told_apart_however_they_sign() {
    let node = Node::start();
    for settings in [settings(), standard()] {
        let server = Server::start(asking(&node, settings));
        for path in ["//Alice//hot", "//Alice", "//Nobody"] {
            let wallet = BittensorWallet::new(path);
            let address = wallet.address();
            let expected = if path == "//Alice//hot" { hotkey(&address, ALICE) } else { coldkey(&address) };
            assert_eq!(who(&sign_in(&server, &wallet)), expected, "{path}");
            let nonce = challenge(&server, &address);
            assert_eq!(who(&verify(&server, &address, &nonce, &wallet.sign_wrapped(&nonce))), expected, "{path}");
            let nonce = challenge(&server, &address);
            let other = BittensorWallet::new("//Eve");
            assert_eq!(verify(&server, &address, &nonce, &other.sign(&nonce)).status, 401, "{path}: forged");
            assert_eq!(verify(&server, &address, &nonce, &wallet.sign(&nonce)).status, 401, "{path}: burned");
        }
        assert_eq!(server.gateway.metric("tollgate_lookups", &["answered", "owners"]), 3, "one question for each");
    }
}

#[test]
fn a_forged_signature_asks_the_chain_nothing() {
    let node = Node::start();
    let server = Server::start(asking(&node, settings()));
    let address = BittensorWallet::new("//Alice//hot").address();
    let nonce = challenge(&server, &address);
    assert_eq!(verify(&server, &address, &nonce, &BittensorWallet::new("//Eve").sign(&nonce)).status, 401);
    assert_eq!(node.asked("state_getStorage"), 0);
}

#[test]
fn the_zero_account_makes_nobody_a_hotkey() {
    let node = Node::start();
    let wallet = BittensorWallet::new("//Alice//hot");
    node.set(owner_key(&wallet.address()), Some(format!("0x{}", "00".repeat(32))));
    node.mine_and_finalize();
    let server = Server::start(asking(&node, settings()));
    assert_eq!(who(&sign_in(&server, &wallet)), coldkey(&wallet.address()));
}

#[test]
fn the_code_flow_says_who_signed_in_all_tokens() {
    let node = Node::start();
    let server = Server::start(asking(&node, settings()));
    let mut form = registration("public");
    form["allowed_sign_methods"] = json!(["sr25519"]);
    let client = server.register(&form);
    let app = App { server: &server, client: &client };
    let wallet = BittensorWallet::new("//Alice//hot");
    let expected = hotkey(&wallet.address(), ALICE);
    let page = app.page(&[]);
    let nonce = app.challenge(&page, Some(&wallet.address())).json()["nonce"].as_str().unwrap().to_owned();
    let answer = app.callback(&page, &nonce, &wallet.address(), &wallet.sign_wrapped(&nonce));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = app.redeem(&secret(answer.json()["code"].as_str().unwrap()));
    assert_eq!(who(&answer), expected);
    let tokens = answer.json();
    let id = claims(&tokens["id_token"]);
    assert_eq!((&id["signer_type"], &id["coldkey"]), (&json!("hotkey"), &json!(ALICE)));
    assert_eq!(who(&app.refresh(tokens["refresh_token"].as_str().unwrap())), expected);
}

#[test]
fn while_the_chain_is_away_bittensor_waits_and_ethereum_does_not() {
    let node = Node::start();
    node.stop();
    let server = Server::start(asking(&node, settings()));
    let (hot, cold) = (BittensorWallet::new("//Alice//hot"), BittensorWallet::new("//Alice"));
    unavailable(&sign_in(&server, &hot));
    unavailable(&sign_in(&server, &cold));
    assert_eq!(sign_in_with_ethereum(&server).status, 200);
    node.restart();
    let answer = eventually("the chain is asked again", || {
        let answer = sign_in(&server, &hot);
        (answer.status != 503).then_some(answer)
    });
    assert_eq!(who(&answer), hotkey(&hot.address(), ALICE));
    node.stop();
    unavailable(&sign_in(&server, &BittensorWallet::new("//Bob")));
    assert_eq!(sign_in_with_ethereum(&server).status, 200);
    assert!(server.gateway.metric("tollgate_lookups", &["failed_transport", "owners"]) > 0);
}

#[test]
fn a_chain_that_says_nothing_in_time_is_not_waited_for() {
    let node = Node::start();
    node.trouble(Some(crate::support::subtensor::Trouble::Silence));
    let server = Server::start(asking(&node, settings()).variable("SUBTENSOR_QUERY_TIMEOUT_MS", "200"));
    unavailable(&sign_in(&server, &BittensorWallet::new("//Alice")));
    assert_eq!(sign_in_with_ethereum(&server).status, 200);
}
