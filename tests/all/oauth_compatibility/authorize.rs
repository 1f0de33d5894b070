//! Section 1.2: the authorize page, its challenge and its callback.

use serde_json::{Value, json};

use super::{malformed, told};
use crate::support::{
    Answer, Request,
    oauth::{Server, members, settings},
    secret,
    sign_in::{App, REDIRECT, link, nonce, registration},
    wallet::{BittensorWallet, EthereumWallet},
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(7)
}

/// A public client whose users have Bittensor wallets, and which may ask for everything.
fn bittensor() -> Value {
    let mut registration = registration("public");
    registration["allowed_sign_methods"] = json!(["sr25519"]);
    registration["allowed_scopes"] = json!([]);
    registration
}

/// Of which client, what is changed, and what the answer is.
type Case<'c> = (&'c Value, &'c [(&'c str, &'c str)], u16, &'c str);

#[test]
fn no_wrong_authorization_request_gets_a_page_to_sign_on() {
    let server = Server::start(settings());
    let public = server.register(&registration("public"));
    let confidential = server.register(&registration("confidential"));
    let limited = server.register(&json!({
        "client_name": "limited", "client_type": "public", "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code"], "allowed_scopes": ["subnet:1:miner"],
    }));
    let gone = server.register(&registration("public"));
    server.admin("DELETE", &format!("/v1/admin/clients/{}", gone["client_id"].as_str().unwrap()), None);
    //    client, changed parameters, status, title or text
    let cases: &[Case<'_>] = &[
        (&public, &[("client_id", "")], 400, "Bad Request"),
        (&public, &[("redirect_uri", "")], 400, "Bad Request"),
        (&public, &[("response_type", "")], 400, "Bad Request"),
        (&public, &[("response_type", "token")], 400, "Bad Request"),
        (&public, &[("client_id", "nobody")], 400, "not registered"),
        (&public, &[("client_id", "a\0b")], 400, "not registered"),
        (&public, &[("redirect_uri", "https://app.example/callback/")], 400, "not registered"),
        (&public, &[("redirect_uri", "https://app.example/callback?x")], 400, "not registered"),
        (&public, &[("redirect_uri", "https://evil.example/callback")], 400, "not registered"),
        (&public, &[("redirect_uri", "HTTPS://app.example/callback")], 400, "not registered"),
        (&public, &[("code_challenge", ""), ("code_challenge_method", "")], 400, "PKCE Required"),
        (&public, &[("code_challenge_method", "plain")], 400, "explicit code_challenge_method=S256"),
        (&public, &[("code_challenge_method", "")], 400, "explicit code_challenge_method=S256"),
        (&confidential, &[("code_challenge", "")], 400, "Bad Request"),
        (&confidential, &[("code_challenge_method", "plain")], 400, "explicit code_challenge_method=S256"),
        (&confidential, &[("code_challenge_method", "")], 400, "explicit code_challenge_method=S256"),
        (&public, &[("code_challenge", "tooshort")], 400, "Bad Request"),
        (&public, &[("scope", "openid  openid")], 400, "Invalid Scopes"),
        (&public, &[("scope", " openid")], 400, "Invalid Scopes"),
        (&public, &[("scope", "openid profile")], 400, "Invalid Scopes"),
        (&limited, &[("scope", "subnet:2:miner")], 403, "not allowed"),
        (&gone, &[], 400, "Unknown Application"),
        (&public, &[("state", "a\0b")], 400, "Bad Request"),
        (&public, &[("resource", "https://unknown.example")], 400, "Bad Request"),
    ];
    for (client, changed, status, text) in cases {
        let answer = App { server: &server, client }.authorize(changed);
        assert_eq!(answer.status, *status, "{changed:?}");
        assert!(answer.text().contains(text), "{changed:?}: {}", answer.text());
        assert!(answer.header("location").is_none(), "the replaced server never redirected: {changed:?}");
        assert!(!answer.text().contains("data-session"), "{changed:?}");
    }
    let testnet = Server::start(settings().variable("NETWORK", "testnet"));
    let client = testnet.register(&bittensor());
    let answer = App { server: &testnet, client: &client }.authorize(&[("scope", "staker:1")]);
    assert!(answer.status == 400 && answer.text().contains("Invalid Scopes"), "{}", answer.text());
    let app = App { server: &server, client: &public };
    assert_eq!(server.get(&format!("{}&scope=openid", link(&app.parameters(), &[]))).status, 400, "twice");
    assert_eq!(app.authorize(&[("prompt", "login"), ("max_age", "1"), ("unknown", "x")]).status, 200);
}

#[test]
fn our_pages_endpoints_take_requests_of_our_pages_alone() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let page = app.page(&[]);
    for path in
        ["/v1/oauth/challenge", "/v1/oauth/callback", "/v1/oauth/deny", "/v1/device/approve", "/v1/device/confirm"]
    {
        let body = json!({
            "session_id": page.session, "user_code": "ABCD-1234", "nonce": "x", "address": wallet().address(),
            "signature": "00",
        });
        let request = Request::post(path, body.to_string()).header("Content-Type", "application/json");
        for origin in [None, Some("https://evil.example"), Some("null"), Some("http://localhost:3001"), Some("")] {
            let request = match origin {
                None => request.clone(),
                Some(origin) => request.clone().header("Origin", origin),
            };
            assert_eq!(told(&server.send(&request)), (403, "Forbidden".into()), "{path} {origin:?}");
        }
    }
}

#[test]
fn no_challenge_is_made_without_a_live_session_and_a_wallet_that_fits() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let page = app.page(&[]);
    for address in ["5Grw", "0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC"] {
        assert_eq!(told(&app.challenge(&page, Some(address))), (400, "Bad Request".into()), "{address}");
    }
    let wrong_kind = app.challenge(&page, Some(&BittensorWallet::new("//Alice").address()));
    assert_eq!(told(&wrong_kind), (400, "Bad Request".into()));
    assert!(wrong_kind.text().contains("evm"));
    for session in ["", "tgs_x", "00000000-0000-4000-8000-000000000000"] {
        let answer = app.ours("/v1/oauth/challenge", &page.cookie, &json!({ "session_id": session }));
        assert_eq!(told(&answer), (400, "Bad Request".into()), "{session}");
    }
    malformed(&app.ours("/v1/oauth/challenge", &page.cookie, &json!({ "session_id": 1 })));
    malformed(&app.ours("/v1/oauth/challenge", &page.cookie, &json!({})));
    let fine = app.challenge(&page, None);
    assert_eq!((members(&fine.json()), &fine.json()["expires_in"]), (vec!["expires_in", "nonce"], &json!(120)));
    server.admin("DELETE", &format!("/v1/admin/clients/{}", app.id()), None);
    assert_eq!(told(&app.challenge(&page, None)), (400, "Bad Request".into()), "the client is gone");
}

#[test]
fn a_callback_answers_its_own_challenge_for_its_own_session_once() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let (app, wallet, other) = (App { server: &server, client: &client }, wallet(), EthereumWallet::new(9));
    let (page, another) = (app.page(&[]), app.page(&[]));
    let own = wallet.address();
    let fresh = |address: Option<&str>| nonce(&app.challenge(&page, address));
    let bad_request = |answer: &Answer| assert_eq!(told(answer), (400, "Bad Request".into()));
    let unauthorized = |answer: &Answer| assert_eq!(told(answer), (401, "Unauthorized".into()));

    let direct = nonce(&server.post_json("/v1/auth/challenge", &json!({ "scopes": ["openid"] })));
    let answer = app.callback(&page, &direct, &own, &wallet.sign(&direct));
    bad_request(&answer);
    assert!(answer.text().contains("different authentication flow"), "{}", answer.text());
    let theirs = nonce(&app.challenge(&another, None));
    bad_request(&app.callback(&page, &theirs, &own, &wallet.sign(&theirs)));
    bad_request(&app.callback(&page, &fresh(None), "5Grw", "00"));
    let alice = BittensorWallet::new("//Alice");
    bad_request(&app.callback(&page, &fresh(None), &alice.address(), &alice.sign("x")));
    unauthorized(&app.callback(&page, "taostats-auth:none:0", &own, &wallet.sign("taostats-auth:none:0")));
    let bound = fresh(Some(&other.address()));
    unauthorized(&app.callback(&page, &bound, &own, &wallet.sign(&bound)));
    let badly = fresh(None);
    unauthorized(&app.callback(&page, &badly, &own, &other.sign(&badly)));
    unauthorized(&app.callback(&page, &badly, &own, &wallet.sign(&badly)));
    malformed(&app.ours("/v1/oauth/callback", &page.cookie, &json!({ "session_id": page.session })));

    // After all that the same session still takes a right answer, once.
    let right = fresh(Some(&own.to_lowercase()));
    let answer = app.callback(&page, &right, &own, &wallet.sign(&right));
    assert_eq!(answer.status, 200, "{}", answer.text());
    secret(answer.json()["code"].as_str().unwrap());
    bad_request(&app.challenge(&page, None));
    bad_request(&app.callback(&page, &right, &own, &wallet.sign(&right)));

    // What has changed between the page and the signature: an address is not registered any more, the client is gone.
    let elsewhere = app.page(&[("redirect_uri", "https://app.example/cb?x=1")]);
    let page = app.page(&[]);
    let [here, there] = [&page, &elsewhere].map(|page| nonce(&app.challenge(page, None)));
    let path = format!("/v1/admin/clients/{}", app.id());
    let change = json!({ "redirect_uris": ["https://app.example/cb?x=1"] });
    assert_eq!(server.admin("PATCH", &path, Some(&change)).status, 200);
    bad_request(&app.callback(&page, &here, &own, &wallet.sign(&here)));
    assert_eq!(server.admin("DELETE", &path, None).status, 200);
    bad_request(&app.callback(&elsewhere, &there, &own, &wallet.sign(&there)));
}
