//! Section 14.1 up to 8: who signed what for whom, and what it is worth.

use serde_json::{Value, json};

use super::{asking, bittensor, direct, refresh_of, wallet};
use crate::support::{
    Gateway, Request, Settings, eventually,
    oauth::{ADMIN_KEY, Server, refused, settings, standard},
    secret,
    sign_in::{self, App, Page, REDIRECT, claims, link, nonce, ours, part, registration, remembered},
    subtensor::Node,
    wallet::{BittensorWallet, EthereumWallet},
};

/// 14.1, 1.
#[test]
fn a_message_is_of_no_use_to_whoever_passes_it_on() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let page = app.page(&[]);
    assert_eq!(app.challenge(&page, None).status, 400, "Ethereum messages name their account");
    let message = nonce(&app.challenge(&page, Some(&wallet.address())));
    let begin =
        format!("http://localhost:3000 wants you to sign in with your Ethereum account:\n{}\n\n", wallet.address());
    assert!(message.starts_with(&begin), "{message}");
    for line in [
        "Sign in to Weather ?App?. This proves to it: openid.".to_owned(),
        "URI: http://localhost:3000".to_owned(),
        "Version: 1".to_owned(),
        "Chain ID: 1".to_owned(),
        format!("Request ID: {}", app.id()),
        format!("- {REDIRECT}"),
    ] {
        assert!(message.lines().any(|found| found == line), "{line}: {message}");
    }
    assert!(message.contains("\nExpiration Time: ") && message.contains("\nIssued At: "));
    // The same message with another client in it was never handed out.
    let forged = message.replace(app.id(), "another-client");
    assert_eq!(app.callback(&page, &forged, &wallet.address(), &wallet.sign(&forged)).status, 401);
    let answer = app.callback(&page, &message, &wallet.address(), &wallet.sign(&message));
    assert_eq!(answer.status, 200, "{}", answer.text());
    secret(answer.json()["code"].as_str().unwrap());

    // The same for the other kind of wallet, whose messages need not name their account.
    let client = server.register(&bittensor("public"));
    let app = App { server: &server, client: &client };
    let page = app.page(&[]);
    let alice = BittensorWallet::new("//Alice").address();
    let message = nonce(&app.challenge(&page, Some(&alice)));
    let begin = format!("http://localhost:3000 wants you to sign in with your Bittensor account:\n{alice}\n\n");
    assert!(message.starts_with(&begin), "{message}");
    let message = nonce(&app.challenge(&page, None));
    for line in ["URI: http://localhost:3000", &format!("Request ID: {}", app.id()), &format!("- {REDIRECT}")] {
        assert!(message.lines().any(|found| found == line), "{line}: {message}");
    }
    assert!(message.contains("\nExpiration Time: ") && message.contains("\nIssued At: "));
}

/// Configured by a file, and served on the proxy's own listener.
fn with_resources(lifetimes: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let sections = format!(
        "[oauth]\npublic_url = \"http://localhost:3000\"\nproduction = false\nsigning_keys = {:?}\n\
         admin_key = \"{ADMIN_KEY}\"\nresources = [\"https://api.example/\", \"https://other.example\"]\n\
         [oauth.lifetimes]\n{lifetimes}\n[oauth.limits]\nrequests = 100000\nchallenges = 100000\n\
         [[route]]\nname = \"sign-in\"\npath = \"/v1\"\nupstream = \"authorization-server\"\n",
        directory.path().join("keys")
    );
    let mut gateway = Gateway::prepare(Settings::file().with(&sections));
    gateway.cli(&["key", "generate", "--algorithm", "EdDSA"]);
    gateway.launch();
    gateway.ready();
    (directory, Server { gateway, database: None })
}

/// 14.1, 2: the confused deputy.
#[test]
fn a_token_for_one_resource_does_not_pass_at_another() {
    let (_keys, server) = with_resources("");
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let page = app.page(&[("resource", "https://api.example/")]);
    assert!(page.text.contains("https://api.example/"));
    let message = nonce(&app.challenge(&page, Some(&wallet.address())));
    assert!(message.ends_with("\n- https://api.example/"), "what is signed names it: {message}");
    let code = app.callback(&page, &message, &wallet.address(), &wallet.sign(&message)).json()["code"].clone();
    let tokens = remembered(&app.redeem(&secret(code.as_str().unwrap())));
    let access = claims(&tokens["access_token"]);
    assert_eq!((&access["aud"], &access["client_id"]), (&json!("https://api.example/"), &json!(app.id())));
    for other in ["https://other.example", "https://api.example", "bittensor-apps"] {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_of(&tokens)), ("resource", other)];
        assert_eq!(refused(&app.token(&fields)), (400, "invalid_target".into()), "{other}");
    }
    let again = remembered(&app.refresh(refresh_of(&tokens)));
    assert_eq!(claims(&again["access_token"])["aud"], "https://api.example/");
    // The direct flow knows no clients: its tokens name none, and pass for no resource that wants to be named.
    let message =
        nonce(&server.post_json(
            "/v1/auth/challenge",
            &json!({ "address": wallet.address(), "resource": "https://api.example/" }),
        ));
    let body = json!({ "nonce": message, "address": wallet.address(), "signature": wallet.sign(&message) });
    let direct = claims(&remembered(&server.post_json("/v1/auth/verify", &body))["access_token"]);
    assert_eq!((&direct["aud"], direct.get("client_id")), (&json!("bittensor-apps"), None));
}

/// 14.1, 3.
#[test]
fn no_kind_of_token_passes_for_another() {
    let server = Server::start(settings());
    let client = server.register(&registration("confidential"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let spare = app.code(&wallet, &[]);
    let tokens = app.tokens(&wallet);
    assert_eq!(part(&tokens["access_token"], 0)["typ"], "at+jwt");
    assert_eq!(part(&tokens["id_token"], 0)["typ"], "JWT");
    let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
    assert!(text("refresh_token").starts_with("tgr_") && spare.starts_with("tgc_"), "not to be taken for a JWT");
    let user_info = |token: &str| server.send(&Request::get("/v1/oauth/userinfo").token(token)).status;
    assert_eq!(user_info(&text("access_token")), 200);
    for token in [text("id_token"), text("refresh_token"), spare.clone()] {
        assert_eq!(user_info(&token), 401);
        assert_eq!(app.redeem(&token).status, if token == spare { 200 } else { 401 });
    }
    for token in [text("id_token"), text("access_token"), spare] {
        assert_eq!(refused(&app.refresh(&token)), (401, "invalid_grant".into()));
    }
    let disguised = text("refresh_token").replacen("tgr_", "tgc_", 1);
    assert_eq!(refused(&app.redeem(&disguised)), (401, "invalid_grant".into()));
}

/// 14.1, 4.
#[test]
fn a_session_is_of_no_use_in_another_browser() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let (page, other) = (app.page(&[]), app.page(&[]));
    assert_ne!(page.cookie, other.cookie);
    for cookie in ["", &other.cookie, "tollgate-browser=x", "tollgate-browser="] {
        let body = json!({ "session_id": page.session, "address": wallet.address() });
        assert_eq!(refused(&ours(&server, "/v1/oauth/challenge", cookie, &body)), (400, "Bad Request".into()));
        assert_eq!(ours(&server, "/v1/oauth/deny", cookie, &body).status, 400);
    }
    // Two pages of one browser both work.
    let second = app.server.send(&Request::get(&link(&app.parameters(), &[])).header("Cookie", &page.cookie));
    assert!(second.header("set-cookie").is_none());
    let second = Page { cookie: page.cookie.clone(), ..sign_in::page(&second) };
    for page in [&page, &second] {
        let nonce = nonce(&app.challenge(page, None));
        let answer = app.callback(page, &nonce, &wallet.address(), &wallet.sign(&nonce));
        assert_eq!(answer.status, 200, "{}", answer.text());
        secret(answer.json()["code"].as_str().unwrap());
    }
}

/// 14.1, 5: a hotkey's token has its owner's coldkey too, and says that the hotkey signed; who wants the coldkey itself to have
/// signed demands it.
#[test]
fn a_hotkeys_signature_does_not_pass_for_its_coldkeys() {
    let node = Node::start();
    let server = Server::start(asking(&node, settings()));
    for (scope, path, status) in [
        ("signer:hotkey", "//Alice//hot", 200),
        ("signer:hotkey", "//Alice", 403),
        ("signer:hotkey", "//Nobody", 403),
        ("signer:coldkey", "//Alice", 200),
        ("signer:coldkey", "//Alice//hot", 403),
        // What cannot be found out does not hide what is known.
        ("signer:coldkey subnet:2:owner", "//Alice//hot", 403),
        ("signer:coldkey subnet:2:owner", "//Alice", 503),
    ] {
        let scopes: Vec<&str> = scope.split(' ').collect();
        let (told, tokens) = direct(&server, &BittensorWallet::new(path), &scopes);
        assert_eq!(told, status, "{scope} {path}: {tokens}");
        if status == 200 {
            assert_eq!(tokens["scope"], json!(scope));
            assert_eq!(json!(scope.replace("signer:", "")), claims(&tokens["access_token"])["signer_type"]);
        }
    }
    let ethereum = EthereumWallet::new(21).address();
    let refused = server.post_json("/v1/auth/challenge", &json!({ "address": ethereum, "scopes": ["signer:hotkey"] }));
    assert_eq!(refused.status, 400, "{}", refused.text());
    node.stop();
    let (told, answer) = direct(&server, &BittensorWallet::new("//Bob"), &["signer:coldkey"]);
    assert_eq!(told, 503, "{answer}");
}

/// 14.1, 6: who was banned under one spelling came back under another.
#[test]
fn one_key_has_one_name_however_its_address_is_written() {
    const POLKADOT: &str = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5";
    const HEX: &str = "0xd43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d";
    let node = Node::start();
    let server = Server::start(asking(&node, settings()));
    let alice = BittensorWallet::new("//Alice");
    for (asked, answered) in [(POLKADOT, POLKADOT), (POLKADOT, &*alice.address()), (&alice.address(), POLKADOT)] {
        let message = nonce(&server.post_json("/v1/auth/challenge", &json!({ "address": asked })));
        let body = json!({ "nonce": message, "address": answered, "signature": alice.sign(&message) });
        let answer = server.post_json("/v1/auth/verify", &body);
        assert_eq!(answer.status, 200, "{asked} {answered}: {}", answer.text());
        let claims = claims(&remembered(&answer)["access_token"]);
        assert_eq!((&claims["sub"], &claims["coldkey"]), (&json!(alice.address()), &json!(alice.address())));
    }
    for spelling in [HEX, &HEX[2..], &HEX.to_uppercase(), &POLKADOT.replace('5', "6"), &format!(" {POLKADOT}")] {
        let answer = server.post_json("/v1/auth/challenge", &json!({ "address": spelling }));
        assert_eq!(refused(&answer), (400, "Bad Request".into()), "{spelling}");
    }
}

/// 14.1, 6: kinds of keys that no Bittensor wallet has were taken without a word.
#[test]
fn no_other_kind_of_key_passes_for_a_bittensor_wallets() {
    use sp_core::{Pair as _, crypto::Ss58Codec as _, ecdsa, ed25519};
    let node = Node::start();
    let server = Server::start(asking(&node, settings()));
    let edwards = ed25519::Pair::from_string("//Alice", None).unwrap();
    let account = edwards.public().to_ss58check();
    let curve = ecdsa::Pair::from_string("//Alice", None).unwrap();
    let hashed = tollgate::model::hotkey::Hotkey(sp_crypto_hashing::blake2_256(&curve.public().0)).to_string();
    let fresh = || nonce(&server.post_json("/v1/auth/challenge", &json!({})));
    for kind in ["ed25519", "ed25519, tagged", "ecdsa", "ecdsa, tagged"] {
        let message = fresh();
        let (tag, signature, address) = if kind.starts_with("ed") {
            (0, edwards.sign(message.as_bytes()).0.to_vec(), &account)
        } else {
            (2, curve.sign(message.as_bytes()).0.to_vec(), &hashed)
        };
        let signature = if kind.ends_with("tagged") { [&[tag], &*signature].concat() } else { signature };
        let body = json!({ "nonce": message, "address": address, "signature": alloy::hex::encode(signature) });
        assert_eq!(refused(&server.post_json("/v1/auth/verify", &body)), (401, "Unauthorized".into()), "{kind}");
    }
}

/// 14.1, 7.
#[test]
fn a_refresh_token_used_twice_ends_the_family_but_a_lost_answer_is_forgiven_once() {
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("public"));
        let (app, wallet) = (App { server: &server, client: &client }, wallet());
        let first = app.tokens(&wallet);
        let lost = remembered(&app.refresh(refresh_of(&first)));
        // At once it is refused, and nothing else; after two seconds it was a lost answer.
        let again = eventually("a lost answer is forgiven", || {
            let answer = app.refresh(refresh_of(&first));
            (answer.status == 200).then(|| remembered(&answer))
        });
        assert_eq!(app.refresh(refresh_of(&lost)).status, 401, "the lost one is nobody's");
        let next = remembered(&app.refresh(refresh_of(&again)));
        // Now there are two who have it.
        eventually("the second repetition is seen as one", || {
            app.refresh(refresh_of(&first));
            let answer = server.send(&Request::get("/v1/oauth/userinfo").token(next["access_token"].as_str().unwrap()));
            (answer.status == 401).then_some(())
        });
        let ended = app.refresh(refresh_of(&next));
        assert_eq!(refused(&ended), (401, "invalid_grant".into()));
        assert!(ended.text().contains("revoked"));
    }
}

/// 14.1, 7: however often it is refreshed.
#[test]
fn no_family_of_refresh_tokens_lives_for_ever() {
    let (_keys, server) = with_resources("refresh_token_total = \"4s\"");
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let tokens = app.tokens(&wallet());
    assert!(tokens["expires_in"].as_i64().unwrap() <= 4, "no access token outlives its grant: {tokens}");
    let mut refresh = refresh_of(&tokens).to_owned();
    eventually("it ends", || {
        let answer = app.refresh(&refresh);
        if answer.status == 200 {
            refresh_of(&remembered(&answer)).clone_into(&mut refresh);
            return None;
        }
        assert!(answer.text().contains("expired"), "{}", answer.text());
        Some(())
    });
}

/// 14.1, 7: whoever deactivates it.
#[test]
fn a_deactivated_clients_tokens_end_with_it() {
    for server in Server::on_both(&settings()) {
        let kept = server.register(&registration("public"));
        let kept = App { server: &server, client: &kept }.tokens(&wallet());
        let user = |tokens: &Value| {
            server.send(&Request::get("/v1/oauth/userinfo").token(tokens["access_token"].as_str().unwrap())).status
        };
        for by_command in [true, false] {
            let client = server.register(&registration("public"));
            let app = App { server: &server, client: &client };
            let (tokens, code) = (app.tokens(&wallet()), app.code(&wallet(), &[]));
            assert_eq!(user(&tokens), 200);
            if by_command {
                server.gateway.cli(&["client", "deactivate", app.id()]);
            } else {
                assert_eq!(server.admin("DELETE", &format!("/v1/admin/clients/{}", app.id()), None).status, 200);
            }
            assert_eq!(user(&tokens), 401);
            assert_eq!(app.refresh(refresh_of(&tokens)).status, 401);
            assert_eq!(app.redeem(&code).status, 401);
        }
        assert_eq!(user(&kept), 200, "another's stay");
    }
}

/// 14.1, 8.
#[test]
fn a_code_used_twice_takes_back_what_the_first_use_got() {
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("confidential"));
        let (app, wallet) = (App { server: &server, client: &client }, wallet());
        let code = app.code(&wallet, &[]);
        let tokens = remembered(&app.redeem(&code));
        let again = app.redeem(&code);
        assert_eq!(refused(&again), (401, "invalid_grant".into()));
        assert!(again.text().contains("already been used"));
        let refresh = app.refresh(tokens["refresh_token"].as_str().unwrap());
        assert_eq!(refused(&refresh), (401, "invalid_grant".into()));
        assert!(refresh.text().contains("revoked"));
    }
}
