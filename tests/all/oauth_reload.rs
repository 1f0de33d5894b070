//! A reload changes the authorization server's settings, and nothing that is under way.

use serde_json::{Value, json};

use crate::support::{
    Client, Gateway, Request, Settings, Upstream, eventually, free_port,
    oauth::{ADMIN_KEY, Server},
    secret,
    sign_in::{App, claims, registration, remembered},
    wallet::EthereumWallet,
};

/// Settings of an authorization server: lines of `[oauth]`, and sections below it.
fn settings(keys: &str, lines: &str, sections: &str) -> Settings {
    Settings::file().with(&format!(
        "[oauth]\npublic_url = \"http://localhost:3000\"\nproduction = false\nsigning_keys = \"{keys}\"\n{lines}\n\
         {sections}\n[[route]]\nname = \"sign-in\"\npath = \"/v1\"\nupstream = \"authorization-server\"\n"
    ))
}

/// Lines and limits that no ordinary test meets.
fn usual() -> (String, &'static str) {
    (format!("admin_key = \"{}\"", secret(ADMIN_KEY)), "[oauth.limits]\nrequests = 100000\nchallenges = 100000\n")
}

/// The folder of keys, named as in a configuration.
const KEYS: &str = "keys";

fn start(lines: &str, sections: &str) -> Server {
    let mut gateway = Gateway::prepare(settings(KEYS, lines, sections));
    gateway.cli(&["key", "generate", "--algorithm", "EdDSA"]);
    gateway.launch();
    gateway.ready();
    Server { gateway, database: None }
}

#[test]
fn the_next_token_has_the_new_lifetime_and_open_sessions_go_on() {
    let lifetime = |tokens: &Value| {
        let claims = claims(&tokens["access_token"]);
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
    };
    let (admin, limits) = usual();
    let upstream = Upstream::start();
    let with = |access_token: &str| {
        format!(
            "{limits}[oauth.lifetimes]\naccess_token = \"{access_token}\"\n\
             [[upstream]]\nname = \"api\"\naddresses = [\"{}\"]\n\
             [[route]]\nname = \"api\"\npath = \"/api\"\nupstream = \"api\"\naccepts = [\"access-token\"]\n",
            upstream.address
        )
    };
    let mut server = start(&admin, &with("15m"));
    let client = server.register(&registration("confidential"));
    let wallet = EthereumWallet::new(7);
    let app = App { server: &server, client: &client };
    let before = app.tokens(&wallet);
    assert_eq!((&before["expires_in"], lifetime(&before)), (&json!(900), 900));
    let call = |server: &Server, tokens: &Value| {
        server.send(&Request::get("/api").token(tokens["access_token"].as_str().unwrap())).status
    };
    eventually("revocations are known", || (call(&server, &before) == 200).then_some(()));
    // One has the page before them, another has signed and not yet redeemed the code.
    let page = app.page(&[]);
    let message = app.challenge(&page, Some(&wallet.address())).json()["nonce"].as_str().unwrap().to_owned();
    let code = app.code(&wallet, &[]);

    let told = server.gateway.reload(settings(KEYS, &format!("{admin}\naudience = \"others\""), &with("1h")));
    assert!(told.contains("are loaded again"), "{told}");
    let app = App { server: &server, client: &client };
    let answer = app.callback(&page, &message, &wallet.address(), &wallet.sign(&message));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let second = secret(answer.json()["code"].as_str().unwrap());
    for code in [code, second] {
        let answer = app.redeem(&code);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = remembered(&answer);
        assert_eq!((&tokens["expires_in"], lifetime(&tokens)), (&json!(3600), 3600));
        assert_eq!(claims(&tokens["access_token"])["aud"], "others");
        assert_eq!((call(&server, &tokens), call(&server, &before)), (200, 401), "routes follow");
        assert_eq!(app.redeem(&code).status, 400, "a code is used once, whatever was reloaded");
    }
    let refreshed = app.refresh(before["refresh_token"].as_str().unwrap());
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    assert_eq!(lifetime(&remembered(&refreshed)), 3600);
}

#[test]
fn limits_and_keys_of_administrators_count_at_once() {
    let (admin, limits) = usual();
    let mut server = start(&admin, limits);
    assert_eq!(server.admin("GET", "/v1/admin/clients", None).status, 200);
    let other = format!("admin_key = \"{}\"", secret("another-admin-key-for-tests-only"));
    server.gateway.reload(settings(KEYS, &other, limits));
    assert_eq!(server.admin("GET", "/v1/admin/clients", None).status, 401, "the old key opens nothing");

    // An address that was here in this minute has been counted by the old limit.
    let statuses = |server: &Server, last: u8| -> Vec<u16> {
        let ask = || Client::connect_from([127, 0, 0, last].into(), server.gateway.http);
        (0..5).map(|_| ask().send(&Request::get("/v1/oauth/authorize")).status).collect()
    };
    server.gateway.reload(settings(KEYS, &admin, "[oauth.limits]\nrequests = 3\nchallenges = 3\n"));
    assert_eq!(statuses(&server, 2)[3..], [429, 429]);
    server.gateway.reload(settings(KEYS, &admin, limits));
    assert!(!statuses(&server, 3).contains(&429));

    // A mistake changes nothing.
    server.gateway.expect_error("oauth.limits.requests");
    let told = server.gateway.reload(settings(KEYS, &other, "[oauth.limits]\nrequests = 0\n"));
    assert!(told.contains("the old one stays"), "{told}");
    assert_eq!(server.admin("GET", "/v1/admin/clients", None).status, 200);
}

#[test]
fn what_needs_another_start_is_said_by_its_key_and_stays_as_it_was() {
    let (admin, limits) = usual();
    let address = super::support::loopback(free_port());
    let listener = |port: u16| format!("{admin}\nadmin_address = \"127.0.0.1:{port}\"");
    let mut server = start(&listener(address.port()), limits);
    let key = secret("another-admin-key-for-tests-only");
    let list = |key: &str| {
        Client::connect(address).send(&Request::get("/v1/admin/clients").header("X-Admin-API-Key", key)).status
    };
    assert_eq!((list(ADMIN_KEY), list(&key)), (200, 401));

    let elsewhere = listener(free_port()).replace(ADMIN_KEY, &key);
    let told = server.gateway.reload(settings("/nowhere", &elsewhere, limits));
    assert!(told.contains("are loaded again"), "{told}");
    for key in ["oauth.admin_address", "oauth.signing_keys"] {
        let said = |line: &String| line.contains(&format!("{key} counts from the next start"));
        assert!(server.gateway.log().iter().any(said), "{key}");
    }
    // Its other settings count there, too, and the listener is where it was, and nowhere else.
    assert_eq!((list(ADMIN_KEY), list(&key)), (401, 200));
    assert_eq!(server.get("/v1/admin/clients").status, 404);

    // Without the section its routes are gone; its listener stays until the end.
    server.gateway.reload(Settings::file().open(address, ""));
    assert_eq!((server.gateway.send(&Request::get("/v1/oauth/authorize")).status, list(&key)), (404, 200));
    drop(server);

    let mut gateway = Gateway::start(Settings::file().open(address, ""));
    gateway.expect_error("oauth: this section is new");
    let told = gateway.reload(settings(KEYS, &admin, limits));
    assert!(told.contains("the old one stays"), "{told}");
}
