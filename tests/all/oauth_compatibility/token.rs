//! Sections 1.3 and 3: the token endpoint, and what tokens say.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{malformed, told};
use crate::support::{
    Answer, Gateway, Settings,
    database::Database,
    device,
    oauth::{PUBLIC_URL, Server, form, members, refused, settings},
    secret,
    sign_in::{App, CHALLENGE, claims, nonce, ours, redemption, registration, remembered},
    subtensor::{Node, owner_key},
    wallet::{BittensorWallet, EthereumWallet},
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(7)
}

fn refresh_of(tokens: &Value) -> &str {
    tokens["refresh_token"].as_str().unwrap()
}

#[track_caller]
fn never_kept(answer: &Answer) {
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
}

/// The claims of section 3, and ours: `auth_time` and `grant_id` of access tokens, `signer_type` of both.
#[test]
fn tokens_have_the_old_claims_with_explicit_nulls() {
    for server in Server::on_both(&settings()) {
        for kind in ["public", "confidential"] {
            let client = server.register(&registration(kind));
            let (app, wallet) = (App { server: &server, client: &client }, wallet());
            let answer = app.redeem(&app.code(&wallet, &[]));
            never_kept(&answer);
            let tokens = remembered(&answer);
            let names = ["access_token", "expires_in", "id_token", "refresh_token", "scope", "token_type"];
            assert_eq!(members(&tokens), names);
            assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!("openid")));
            let access = claims(&tokens["access_token"]);
            let names = [
                "aud",
                "auth_time",
                "client_id",
                "coldkey",
                "evm_address",
                "exp",
                "grant_id",
                "hotkey",
                "iat",
                "iss",
                "jti",
                "scope",
                "signer_type",
                "sub",
                "type",
            ];
            assert_eq!(members(&access), names);
            let id = claims(&tokens["id_token"]);
            let names = [
                "at_hash",
                "aud",
                "auth_time",
                "client_id",
                "coldkey",
                "evm_address",
                "exp",
                "hotkey",
                "iat",
                "iss",
                "nonce",
                "scope",
                "signer_type",
                "sub",
                "type",
            ];
            assert_eq!(members(&id), names);
            for (claims, kind, audience) in [(&access, "access", "bittensor-apps"), (&id, "id", app.id())] {
                for (name, value) in [
                    ("iss", json!(PUBLIC_URL)),
                    ("sub", json!(wallet.address())),
                    ("aud", json!(audience)),
                    ("client_id", json!(app.id())),
                    ("scope", json!("openid")),
                    ("type", json!(kind)),
                    ("evm_address", json!(wallet.address())),
                    ("hotkey", Value::Null),
                    ("coldkey", Value::Null),
                ] {
                    assert_eq!(claims[name], value, "{name}");
                }
                let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
                assert_eq!(json!(life), tokens["expires_in"]);
            }
            assert_eq!(id["nonce"], "n-0S6_WzA2Mj");
            assert!(id["auth_time"].is_i64() && id["at_hash"].as_str().is_some_and(|hash| hash.len() == 22));
        }
        let client = server.register(&registration("public"));
        let app = App { server: &server, client: &client };
        let page = app.page(&[("scope", "")]);
        let message = nonce(&app.challenge(&page, None));
        let answer = app.callback(&page, &message, &wallet().address(), &wallet().sign(&message)).json();
        assert_eq!(members(&answer), ["code", "redirect_to"]);
        let tokens = remembered(&app.redeem(&secret(answer["code"].as_str().unwrap())));
        assert!(tokens.get("id_token").is_none(), "none without openid");
        assert_eq!((&tokens["scope"], &claims(&tokens["access_token"])["scope"]), (&json!(""), &json!("")));
    }
}

/// What is sent, and the answer.
type Case<'c> = (&'c [(&'c str, &'c str)], u16, &'c str);

#[test]
fn who_may_not_ask_gets_no_token() {
    let server = Server::start(settings());
    let public = server.register(&registration("public"));
    let confidential = server.register(&registration("confidential"));
    let gone = server.register(&registration("public"));
    let path = format!("/v1/admin/clients/{}", gone["client_id"].as_str().unwrap());
    assert_eq!(server.admin("DELETE", &path, None).status, 200);
    let id = |client: &'_ Value| client["client_id"].as_str().unwrap().to_owned();
    let (public, confidential, gone) = (id(&public), id(&confidential), id(&gone));
    let code = ("grant_type", "authorization_code");
    let cases: &[Case<'_>] = &[
        (&[code], 401, "invalid_client"),
        (&[code, ("client_id", "")], 401, "invalid_client"),
        (&[code, ("client_id", "nobody")], 401, "invalid_client"),
        (&[code, ("client_id", &gone)], 401, "invalid_client"),
        (&[code, ("client_id", &confidential)], 401, "invalid_client"),
        (&[code, ("client_id", &confidential), ("client_secret", "")], 401, "invalid_client"),
        (&[code, ("client_id", &confidential), ("client_secret", "wrong")], 401, "invalid_client"),
        (&[("grant_type", ""), ("client_id", &public)], 400, "unsupported_grant_type"),
        (&[("grant_type", "password"), ("client_id", &public)], 400, "unsupported_grant_type"),
        (&[("grant_type", "client_credentials"), ("client_id", &public)], 400, "unsupported_grant_type"),
        (&[("grant_type", "password")], 401, "invalid_client"),
        (&[code, ("client_id", &public)], 400, "invalid_request"),
        (&[("grant_type", "refresh_token"), ("client_id", &public)], 400, "invalid_request"),
        (&[("grant_type", device::GRANT), ("client_id", &public)], 400, "invalid_request"),
        (&[("grant_type", device::GRANT), ("client_id", &public), ("device_code", "x")], 404, "Not Found"),
    ];
    for (fields, status, error) in cases {
        let answer = server.post_form("/v1/oauth/token", fields);
        assert_eq!(told(&answer), (*status, (*error).to_owned()), "{fields:?}");
        never_kept(&answer);
        assert_eq!(answer.header("www-authenticate"), None, "{fields:?}");
    }
    for (text, field) in
        [("nobody:x", ""), (&format!("{confidential}:wrong"), &public), (&format!("{confidential}:"), "")]
    {
        let basic = form("/v1/oauth/token", &[code, ("client_id", field), ("code", "x")]);
        let answer = server.send(&basic.header("Authorization", format!("Basic {}", STANDARD.encode(text))));
        assert_eq!(told(&answer), (401, "invalid_client".into()), "{text}");
    }
    for fields in [&[][..], &[("client_id", &*public)], &[code, code], &[code, ("code", "x"), ("code", "y")]] {
        let answer = server.post_form("/v1/oauth/token", fields);
        malformed(&answer);
        never_kept(&answer);
    }
    let other = server.post_form("/v1/oauth/refresh", &[code]);
    assert_eq!(told(&other), (400, "unsupported_grant_type".into()), "before anybody asks who it is");
    never_kept(&other);
}

#[test]
fn a_client_does_what_it_is_registered_for() {
    let server = Server::start(settings());
    let mut no_refresh = registration("public");
    no_refresh["grant_types"] = json!(["authorization_code"]);
    no_refresh["allowed_origins"] = json!(["https://app.example"]);
    let client = server.register(&no_refresh);
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let tokens = app.tokens(&wallet);
    let refresh = tokens["refresh_token"].as_str().expect("the replaced server always sent one");
    assert_eq!(told(&app.refresh(refresh)), (400, "unsupported_grant_type".into()));
    let device = app.token(&[("grant_type", device::GRANT), ("device_code", "x")]);
    assert_eq!(told(&device), (400, "unsupported_grant_type".into()));
    for (origin, status) in [
        ("https://app.example", 401),
        ("https://APP.example:443", 401),
        ("https://evil.example", 403),
        ("http://app.example", 403),
        ("null", 400),
    ] {
        let request = app.token_request(&redemption("tgc_x")).header("Origin", origin);
        assert_eq!(server.send(&request).status, status, "{origin}");
    }
}

#[test]
fn a_client_s_requests_are_limited() {
    let server = Server::start(settings());
    let mut limited = registration("confidential");
    limited["rate_limit"] = json!(3);
    let client = server.register(&limited);
    let app = App { server: &server, client: &client };
    let statuses: Vec<u16> = (0..8).map(|_| app.redeem("tgc_x").status).collect();
    assert!(
        statuses.iter().filter(|status| **status == 401).count() <= 6,
        "{statuses:?}: three in each of two minutes"
    );
    assert!(statuses.contains(&429), "{statuses:?}");
    let answer = (0..8).map(|_| app.redeem("x")).find(|answer| answer.status == 429).unwrap();
    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(refused(&answer), (429, "Too Many Requests".into()));
    assert_eq!(members(&answer.json()), ["error", "message", "statusCode"]);
    let device = [("grant_type", device::GRANT), ("device_code", "x")];
    let slow = (0..8).map(|_| app.token(&device)).find(|answer| answer.status == 400).unwrap();
    assert_eq!(told(&slow), (400, "slow_down".into()));
}

#[test]
fn a_code_is_exchanged_only_with_all_that_belongs_to_it() {
    let server = Server::start(settings());
    let public = server.register(&registration("public"));
    let confidential = server.register(&registration("confidential"));
    let foreign = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &public }, wallet());
    let code = app.code(&wallet, &[]);
    let with = |name: &str, value: &str| {
        let mut fields: Vec<(String, String)> =
            redemption(&code).iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        for field in &mut fields {
            if field.0 == name {
                value.clone_into(&mut field.1);
            }
        }
        fields.retain(|(_, value)| !value.is_empty());
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        app.token(&fields)
    };
    let mut mistyped = code.clone();
    mistyped.pop();
    for (name, value, status, error) in [
        ("code", "", 400, "invalid_request"),
        ("code", "nonsense", 401, "invalid_grant"),
        ("code", mistyped.as_str(), 401, "invalid_grant"),
        ("redirect_uri", "", 400, "invalid_request"),
        ("redirect_uri", "https://app.example/cb?x=1", 400, "invalid_request"),
        ("code_verifier", "", 400, "invalid_request"),
        ("code_verifier", &"~".repeat(42), 400, "invalid_request"),
        ("code_verifier", &"~".repeat(129), 400, "invalid_request"),
        ("code_verifier", &"~".repeat(43), 401, "invalid_grant"),
        ("code_verifier", CHALLENGE, 401, "invalid_grant"),
    ] {
        let answer = with(name, value);
        assert_eq!(told(&answer), (status, error.into()), "{name}={value}");
        never_kept(&answer);
    }
    let theirs = App { server: &server, client: &foreign };
    assert_eq!(told(&theirs.redeem(&code)), (401, "invalid_client".into()));
    let answer = app.redeem(&code);
    assert_eq!(answer.status, 200, "what was wrong has not used it up: {}", answer.text());
    remembered(&answer);

    // Without a challenge a client with a secret needs no verifier, and a public one gets no code.
    let app = App { server: &server, client: &confidential };
    let plain = [("code_challenge", ""), ("code_challenge_method", "")];
    let code = app.code(&wallet, &plain);
    let answer = app.token(&redemption(&code)[..3]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    remembered(&answer);
    let code = app.code(&wallet, &plain);
    let answer = app.redeem(&code);
    assert_eq!(answer.status, 200, "the replaced server ignored a verifier without a challenge");
    remembered(&answer);
}

#[test]
fn a_refresh_token_is_exchanged_for_the_next_one() {
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("public"));
        let (app, wallet) = (App { server: &server, client: &client }, wallet());
        let first = app.tokens(&wallet);
        let answer = app.refresh(refresh_of(&first));
        assert_eq!(answer.status, 200, "{}", answer.text());
        never_kept(&answer);
        let second = remembered(&answer);
        assert_ne!(refresh_of(&first), refresh_of(&second));
        let (old, new) = (claims(&first["id_token"]), claims(&second["id_token"]));
        assert_eq!(old["auth_time"], new["auth_time"]);
        assert!(new.get("nonce").is_none(), "never on refresh");
        let (old, new) = (claims(&first["access_token"]), claims(&second["access_token"]));
        assert_ne!(old["jti"], new["jti"]);
        assert_eq!((&old["sub"], &old["grant_id"], &old["scope"]), (&new["sub"], &new["grant_id"], &new["scope"]));
        // The other way in.
        let body = [("grant_type", "refresh_token"), ("refresh_token", refresh_of(&second)), ("client_id", app.id())];
        let answer = server.post_form("/v1/oauth/refresh", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        remembered(&answer);
    }
}

#[test]
fn no_wrong_refresh_token_is_exchanged() {
    let server = Server::start(settings());
    let client = server.register(&registration("confidential"));
    let foreign = server.register(&registration("confidential"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let tokens = app.tokens(&wallet);
    let theirs = App { server: &server, client: &foreign };
    assert_eq!(told(&theirs.refresh(refresh_of(&tokens))), (401, "invalid_client".into()));
    assert_eq!(told(&app.refresh("")), (400, "invalid_request".into()));
    let mut mistyped = refresh_of(&tokens).to_owned();
    mistyped.replace_range(10..11, if mistyped.as_bytes()[10] == b'a' { "b" } else { "a" });
    for token in ["nonsense", &mistyped, tokens["access_token"].as_str().unwrap()] {
        assert_eq!(told(&app.refresh(token)), (401, "invalid_grant".into()));
    }
    let without_secret =
        [("grant_type", "refresh_token"), ("refresh_token", refresh_of(&tokens)), ("client_id", app.id())];
    assert_eq!(told(&server.post_form("/v1/oauth/token", &without_secret)), (401, "invalid_client".into()));
    assert_eq!(app.refresh(refresh_of(&tokens)).status, 200, "none of that has used it up");
}

/// Two gateways on one database, and on two chains: what was true when the wallet signed is not any more.
#[test]
fn what_is_not_true_any_more_is_refused_and_uses_nothing_up() {
    let (before, after) = (Node::start(), Node::start());
    let wallet = BittensorWallet::new("//Alice//hot");
    after.set(owner_key(&wallet.address()), None);
    after.mine_and_finalize();
    let database = Database::fresh();
    let on = |node: &Node| -> Settings {
        settings().variable("DATABASE_URL", &database.url).variable("SUBTENSOR_WS_URL", node.url())
    };
    let server = Server { gateway: Gateway::start(on(&before)), database: None };
    let later = Server { gateway: Gateway::start(on(&after)), database: None };
    let mut form = registration("public");
    form["allowed_sign_methods"] = json!(["sr25519"]);
    let client = server.register(&form);
    let app = App { server: &server, client: &client };
    let page = app.page(&[("scope", "signer:hotkey")]);
    let message = nonce(&app.challenge(&page, None));
    let answer = app.callback(&page, &message, &wallet.address(), &wallet.sign(&message));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let tokens = remembered(&app.redeem(&secret(answer.json()["code"].as_str().unwrap())));
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", refresh_of(&tokens))];

    let body = json!({ "client_id": app.id(), "scopes": ["signer:hotkey"] });
    let begun = server.post_json("/v1/device/code", &body).json();
    let user_code = begun["user_code"].as_str().unwrap();
    let body = json!({ "user_code": user_code });
    let message = nonce(&ours(&server, "/v1/device/approve", "", &body));
    let body = json!({
        "user_code": user_code, "nonce": message, "address": wallet.address(), "signature": wallet.sign(&message),
    });
    assert_eq!(ours(&server, "/v1/device/confirm", "", &body).status, 200);
    let code = secret(begun["device_code"].as_str().unwrap());
    let poll = [("grant_type", device::GRANT), ("device_code", &*code)];

    for fields in [refresh, poll] {
        let answer = App { server: &later, client: &client }.token(&fields);
        assert_eq!(told(&answer), (403, "Forbidden".into()));
        assert!(answer.text().contains("Scope verification failed: signer:hotkey"), "{}", answer.text());
        let answer = app.token(&fields);
        assert_eq!(answer.status, 200, "where it is still true: {}", answer.text());
        remembered(&answer);
    }
}
