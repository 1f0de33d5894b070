//! The authorize page and codes: what the page says, and how RFC 6749 wants it answered.

use serde_json::json;

use crate::support::{
    oauth::{PUBLIC_URL, Server, refused, settings, standard},
    sign_in::{App, REDIRECT, nonce, redemption, registration},
    wallet::{BittensorWallet, EthereumWallet},
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(7)
}

#[test]
fn a_page_says_who_asks_for_what_and_is_locked_down() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let answer = app.authorize(&[("redirect_uri", "https://app.example/cb?x=1")]);
    let page = crate::support::sign_in::page(&answer);
    assert!(page.text.contains("Weather &#60;App&#62;") && !page.text.contains("<App>"), "{}", page.text);
    assert!(
        page.text.contains("openid")
            && page.text.contains("sent back to <strong class=\"who\">https://app.example</strong>")
    );
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
}

#[test]
fn what_is_wrong_is_told_to_the_client_once_its_address_is_known_good() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    for (changed, error) in [
        (&[("response_type", "token")][..], "unsupported_response_type"),
        (&[("response_type", "")], "invalid_request"),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("scope", "nonsense")], "invalid_scope"),
        (&[("scope", "subnet:1:miner")], "invalid_scope"),
        (&[("prompt", "none")], "login_required"),
        (&[("response_mode", "form_post")], "invalid_request"),
        (&[("request", "e30.e30."), ("response_type", "")], "request_not_supported"),
        (&[("request_uri", "https://app.example/request")], "request_uri_not_supported"),
        (&[("registration", "{}")], "registration_not_supported"),
        (&[("resource", "https://unknown.example")], "invalid_target"),
    ] {
        let answer = app.authorize(changed);
        assert_eq!(answer.status, 302, "{changed:?}");
        let location = url::Url::parse(answer.header("location").unwrap()).unwrap();
        assert!(location.as_str().starts_with("https://app.example/callback?"));
        let pairs: std::collections::HashMap<_, _> = location.query_pairs().into_owned().collect();
        assert_eq!(pairs["error"], error, "{changed:?}");
        assert_eq!(pairs["state"], "xyz &=", "{changed:?}");
        assert_eq!(pairs["iss"], PUBLIC_URL, "RFC 9207");
    }
    for changed in [[("redirect_uri", "https://evil.example/")], [("client_id", "nobody")]] {
        let answer = app.authorize(&changed);
        assert_eq!((answer.status, answer.header("location")), (400, None), "never an open redirector");
    }
}

#[test]
fn a_user_can_say_no() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let page = app.page(&[]);
    let deny = || app.ours("/v1/oauth/deny", &page.cookie, &json!({ "session_id": page.session }));
    let answer = deny();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let address = answer.json()["redirect_to"].as_str().unwrap().to_owned();
    assert!(address.starts_with("https://app.example/callback?error=access_denied&state=xyz"), "{address}");
    assert_eq!(deny().status, 400);
    assert_eq!(app.challenge(&page, Some(&wallet().address())).status, 400);
}

#[test]
fn the_rfcs_words_for_what_is_wrong_with_a_code() {
    let server = Server::start(standard());
    let confidential = server.register(&registration("confidential"));
    let foreign = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &confidential }, wallet());
    let code = app.code(&wallet, &[]);
    let theirs = App { server: &server, client: &foreign };
    assert_eq!(refused(&theirs.redeem(&code)), (400, "invalid_grant".into()));
    let elsewhere = [redemption(&code)[0], redemption(&code)[1], ("redirect_uri", "https://app.example/cb?x=1")];
    assert_eq!(refused(&app.token(&elsewhere)), (400, "invalid_grant".into()));
    assert_eq!(refused(&app.token(&[("grant_type", "password")])), (400, "unsupported_grant_type".into()));
    assert_eq!(refused(&app.token(&[("code", "x")])), (400, "invalid_request".into()));
    // RFC 9700 section 4.8.2: the challenge was taken out of the request.
    let stripped = app.code(&wallet, &[("code_challenge", ""), ("code_challenge_method", "")]);
    assert_eq!(refused(&app.redeem(&stripped)), (400, "invalid_grant".into()));
    let wrong = [("client_id", app.id()), ("client_secret", "wrong"), ("grant_type", "authorization_code")];
    let answer = server.post_form("/v1/oauth/token", &wrong);
    assert_eq!(refused(&answer), (401, "invalid_client".into()));
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Basic")));
    assert_eq!(server.get("/v1/oauth/token").status, 405);
}

#[test]
fn scopes_that_need_the_chain_are_neither_granted_nor_denied() {
    let server = Server::start(settings());
    let client = server.register(&json!({
        "client_name": "miners", "client_type": "public", "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code"], "allowed_scopes": [],
    }));
    let (app, wallet) = (App { server: &server, client: &client }, BittensorWallet::new("//Alice"));
    for scope in ["openid", "subnet:1:miner", "tao:holder", ""] {
        let page = app.page(&[("scope", scope)]);
        for sign in [BittensorWallet::sign, BittensorWallet::sign_wrapped] {
            let nonce = nonce(&app.challenge(&page, Some(&wallet.address())));
            let answer = app.callback(&page, &nonce, &wallet.address(), &sign(&wallet, &nonce));
            assert_eq!(refused(&answer), (503, "Service Unavailable".into()), "{scope}");
            assert!(answer.header("retry-after").is_some());
        }
    }
}
