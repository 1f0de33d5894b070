//! Section 14.1 from 10 on: lifetimes, administrators, what strangers can use up, what is kept.

use serde_json::{Value, json};

use super::{asking, bittensor, direct, refresh_of, wallet};
use crate::support::{
    Client, Gateway, Request,
    database::Database,
    device, free_port, loopback,
    oauth::{ADMIN_KEY, Server, settings, standard},
    secret,
    sign_in::{self, App, claims, link, nonce, ours, registration, remembered},
    subtensor::{Node, Trouble},
    wallet::BittensorWallet,
};

/// 14.1, 10: a threshold of nothing was reached by everybody.
#[test]
fn a_threshold_of_nothing_proves_nothing() {
    let node = Node::start();
    let server = Server::start(asking(&node, settings()));
    for scope in ["tao:holder:0", "tao:holder:0.0000000001", "subnet:1:holder:0", "staker:0", "staker:0.000"] {
        let (status, answer) = direct(&server, &BittensorWallet::new("//Alice"), &[scope]);
        assert_eq!(status, 503, "{scope}: {answer}");
    }
}

/// 14.1, 12: whatever is asked for with whatever kind of wallet.
#[test]
fn no_access_token_lives_longer_than_was_set() {
    let node = Node::start();
    let server = Server::start(asking(&node, settings()).variable("JWT_ACCESS_TOKEN_EXPIRY", "60"));
    let life = |token: &Value| {
        let claims = claims(token);
        assert!(claims.get("epoch").is_none());
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
    };
    for (path, scopes) in
        [("//Alice//hot", &["openid", "signer:hotkey"][..]), ("//Alice", &["signer:coldkey"]), ("//Bob", &[])]
    {
        let (status, tokens) = direct(&server, &BittensorWallet::new(path), scopes);
        assert_eq!((status, life(&tokens["access_token"])), (200, 60), "{path}");
    }
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let tokens = app.tokens(&wallet());
    let again = remembered(&app.refresh(refresh_of(&tokens)));
    for token in [&tokens["access_token"], &tokens["id_token"], &again["access_token"]] {
        assert_eq!(life(token), 60);
    }
}

/// 14.1, 13.
#[test]
fn the_admin_key_is_looked_at_before_the_body() {
    let server = Server::start(settings().variable("RATE_LIMIT_GLOBAL", "1000"));
    for key in [None, Some(""), Some("wrong"), Some("an-admin-key-for-tests-onlY")] {
        for body in ["{}", "not json"] {
            let request = Request::post("/v1/admin/clients", body).header("Content-Type", "application/json");
            let request = key.map_or(request.clone(), |key| request.header("X-Admin-API-Key", key));
            let answer = server.send(&request);
            assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("Unauthorized")), "{key:?}");
        }
    }
}

/// 14.1, 13: also where the admin API has a port of its own.
#[test]
fn admin_keys_cannot_be_tried_without_end() {
    let port = free_port();
    let shared = Server::start(settings());
    let apart = Server::start(settings().variable("ADMIN_PORT", port.to_string()));
    for address in [shared.gateway.http, loopback(port)] {
        let ask = |key: &str| {
            let request = Request::get("/v1/admin/clients").header("X-Admin-API-Key", key);
            Client::connect(address).send(&request.header("Connection", "close")).status
        };
        // A minute may end in between, so twice the limit and one more.
        let statuses: Vec<u16> = (0..21).map(|_| ask("wrong")).collect();
        assert!(statuses[..10].iter().all(|status| *status == 401) && statuses.contains(&429), "{statuses:?}");
        assert_eq!(ask(ADMIN_KEY), 200);
    }
    drop(apart);
}

/// 14.1, 14: everybody knows its name.
#[test]
fn nobody_uses_up_a_public_clients_requests_for_others() {
    let server = Server::start(settings().variable("TRUST_PROXY", "127.0.0.0/8"));
    let mut form = registration("public");
    form["rate_limit"] = json!(3);
    let client = server.register(&form);
    let app = App { server: &server, client: &client };
    let ask = |address: &str| {
        let request = app.token_request(&[("grant_type", "refresh_token"), ("refresh_token", "tgr_x")]);
        server.send(&request.header("X-Forwarded-For", address)).status
    };
    let statuses: Vec<u16> = (0..7).map(|_| ask("198.51.100.1")).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask("198.51.100.2"), 401);
}

/// 14.1, 14: while chains were asked about devices, so many of them kept the database from everybody else.
#[test]
fn a_devices_exchange_keeps_no_connection_while_the_chain_is_asked() {
    const DEVICES: usize = 24;
    let (node, silent) = (Node::start(), Node::start());
    silent.trouble(Some(Trouble::Silence));
    let database = Database::fresh();
    let on = |node: &Node| Gateway::start(asking(node, settings()).variable("DATABASE_URL", &database.url));
    let server = Server { gateway: on(&node), database: None };
    let waiting = on(&silent);
    let client = server.register(&bittensor("public"));
    let app = App { server: &server, client: &client };
    let wallet = BittensorWallet::new("//Alice//hot");
    let polls: Vec<Request> = (0..DEVICES)
        .map(|_| {
            let (code, user_code) = device::begun(app);
            let message = nonce(&ours(&server, "/v1/device/approve", "", &json!({ "user_code": user_code })));
            let body = json!({
                "user_code": user_code, "nonce": message, "address": wallet.address(), "signature": wallet.sign(&message),
            });
            assert_eq!(ours(&server, "/v1/device/confirm", "", &body).status, 200);
            app.token_request(&[("grant_type", device::GRANT), ("device_code", &code)])
        })
        .collect();
    let mut devices: Vec<Client> = polls.iter().map(|_| waiting.client()).collect();
    for (device, poll) in devices.iter_mut().zip(&polls) {
        device.write(poll.bytes());
    }
    let asked = Request::get("/v1/admin/clients").header("X-Admin-API-Key", ADMIN_KEY);
    for _ in 0..5 {
        assert_eq!(waiting.send(&asked).status, 200, "the database answers meanwhile");
    }
    for device in &mut devices {
        assert_eq!(device.answer("POST").status, 503);
    }
    assert_eq!(server.send(&polls[0]).status, 200, "where the chain answers it is exchanged");
}

/// 14.1, 15.
#[test]
fn nothing_may_be_kept_but_what_everybody_may_know() {
    for settings in [settings(), standard()] {
        let server = Server::start(settings.variable("DEMO_MODE", "true"));
        let client = server.register(&registration("public"));
        let (app, wallet) = (App { server: &server, client: &client }, wallet());
        let page = app.authorize(&[]);
        let opened = sign_in::page(&page);
        let challenge = app.challenge(&opened, Some(&wallet.address()));
        let message = nonce(&challenge);
        let callback = app.callback(&opened, &message, &wallet.address(), &wallet.sign(&message));
        let redeemed = app.redeem(&secret(callback.json()["code"].as_str().unwrap()));
        let access = Request::get("/v1/oauth/userinfo").token(remembered(&redeemed)["access_token"].as_str().unwrap());
        let begun = server.post_json("/v1/device/code", &json!({ "client_id": app.id() }));
        let user_code = begun.json()["user_code"].as_str().unwrap().to_owned();
        let direct = server.post_json("/v1/auth/challenge", &json!({ "address": wallet.address() }));
        let signed = wallet.sign(&nonce(&direct));
        let body = json!({ "nonce": nonce(&direct), "address": wallet.address(), "signature": signed });
        let mut answers = vec![page, challenge, callback, redeemed, begun, direct, server.send(&access)];
        remembered(&server.post_json("/v1/auth/verify", &body));
        answers.push(server.post_json("/v1/auth/verify", &body));
        for path in ["/", "/nothing", "/health", "/v1/device/demo.sh", "/v1/oauth/userinfo", "/v1/device/verify"] {
            answers.push(server.get(path));
        }
        answers.push(server.get(&format!("/v1/device/scopes?user_code={user_code}")));
        answers.push(server.get("/v1/device/scopes?user_code=ABCD-0000"));
        answers.push(device::approve(app, &user_code));
        answers.push(ours(&server, "/v1/device/deny", "", &json!({ "user_code": user_code })));
        answers.push(server.post_form("/v1/oauth/revoke", &[("client_id", app.id()), ("token", "x")]));
        answers.push(server.post_form("/v1/oauth/introspect", &[("client_id", app.id()), ("token", "x")]));
        answers.push(server.send(&Request::get(&link(&app.parameters(), &[("client_id", "nobody")]))));
        let own = format!("/v1/admin/clients/{}", app.id());
        for (method, path) in [
            ("GET", "/v1/admin/clients".to_owned()),
            ("GET", format!("{own}/stats")),
            ("GET", format!("{own}/events")),
            ("GET", "/v1/admin/stats/overview".into()),
            ("POST", format!("{own}/rotate-secret")),
            ("DELETE", own),
        ] {
            answers.push(server.admin(method, &path, None));
        }
        for answer in answers {
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{}\n{}", answer.head, answer.text());
        }
        for path in ["/.well-known/jwks.json", "/.well-known/openid-configuration", "/v1/discovery/scope-config"] {
            assert_eq!(server.get(path).header("cache-control"), Some("public, max-age=3600"), "{path}");
        }
    }
}
