//! Section 14.2.

use serde_json::json;

use super::{asking, direct, refresh_of, wallet};
use crate::support::{
    Gateway, Request,
    database::Database,
    device::{approve, begun, poll},
    eventually,
    oauth::{ADMIN_KEY, Server, members, refused, settings, standard},
    secret,
    sign_in::{App, nonce, page, registration, remembered},
    subtensor::Node,
    wallet::BittensorWallet,
};

/// 14.2, 3: one look at a page used up a quarter of an address's requests, and whoever looks after the server a share of it too.
#[test]
fn health_keys_and_what_pages_load_are_not_limited() {
    let server = Server::start(standard().variable("RATE_LIMIT_GLOBAL", "1"));
    for _ in 0..4 {
        for path in
            ["/health", "/.well-known/jwks.json", "/.well-known/openid-configuration", "/", "/static/x/style.css"]
        {
            let answer = server.get(path);
            assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (200, None), "{path}");
        }
    }
    let statuses: Vec<u16> = (0..4).map(|_| server.post_form("/v1/oauth/token", &[]).status).collect();
    assert!(statuses.contains(&400) && statuses.contains(&429), "others had none of it: {statuses:?}");
}

/// 14.2, 4.
#[test]
fn a_limit_is_counted_by_two_gateways_together() {
    let first = Server::on_postgres(settings().variable("RATE_LIMIT_GLOBAL", "40"));
    let url = &first.database.as_ref().unwrap().url;
    let second = Gateway::start(settings().variable("RATE_LIMIT_GLOBAL", "40").variable("DATABASE_URL", url));
    let request = Request::get("/v1/admin/clients").header("X-Admin-API-Key", ADMIN_KEY).header("Connection", "close");
    let answers: Vec<_> = (0..100)
        .map(|number| if number % 2 == 0 { first.gateway.send(&request) } else { second.send(&request) })
        .collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    // Forty in a minute, and forty in the next if one ended meanwhile; a share of four may stay with each.
    assert!((34..=80).contains(&passed), "{passed}");
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    let document = refused.json();
    assert_eq!(members(&document), ["error", "message", "statusCode"]);
    assert_eq!(document["error"], "Too Many Requests");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!((refused.header("x-ratelimit-limit"), refused.header("x-ratelimit-remaining")), (Some("40"), Some("0")));
}

/// 14.2, 6: a subnet that there cannot be was our failure.
#[test]
fn an_impossible_subnet_is_refused_as_untrue() {
    let node = Node::start();
    let server = Server::start(asking(&node, settings()));
    for scope in ["subnet:99999:miner", "subnet:65536:holder", "subnet:99999999999999999999999:owner"] {
        let (status, answer) = direct(&server, &BittensorWallet::new("//Alice"), &[scope]);
        assert_eq!((status, &answer["error"]), (403, &json!("Forbidden")), "{scope}: {answer}");
    }
    let (status, answer) = direct(&server, &BittensorWallet::new("//Alice"), &["subnet:65535:miner"]);
    assert_eq!(status, 503, "which there may be: {answer}");
}

/// 14.2, 7.
#[test]
fn a_redirect_address_with_a_query_of_its_own_keeps_it() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let page = app.page(&[("redirect_uri", "https://app.example/cb?x=1")]);
    let nonce = nonce(&app.challenge(&page, Some(&wallet.address())));
    let answer = app.callback(&page, &nonce, &wallet.address(), &wallet.sign(&nonce)).json();
    let code = secret(answer["code"].as_str().unwrap());
    assert_eq!(
        answer["redirect_to"],
        json!(format!("https://app.example/cb?x=1&code={code}&state=xyz+%26%3D&iss=http%3A%2F%2Flocalhost%3A3000"))
    );
    // The same where the user says no.
    let page = app.page(&[("redirect_uri", "https://app.example/cb?x=1")]);
    let denied = app.ours("/v1/oauth/deny", &page.cookie, &json!({ "session_id": page.session })).json();
    let begin = "https://app.example/cb?x=1&error=access_denied&";
    assert!(denied["redirect_to"].as_str().unwrap().starts_with(begin), "{denied}");
}

/// 14.2, 8: OpenID Connect Core section 3.1.2.1.
#[test]
fn an_authorization_request_may_be_posted() {
    for settings in [settings(), standard()] {
        let server = Server::start(settings);
        let client = server.register(&registration("public"));
        let app = App { server: &server, client: &client };
        let parameters = app.parameters();
        let fields: Vec<(&str, &str)> = parameters.iter().map(|(name, value)| (&**name, &**value)).collect();
        let page = page(&server.post_form("/v1/oauth/authorize", &fields));
        let message = nonce(&app.challenge(&page, Some(&wallet().address())));
        let answer = app.callback(&page, &message, &wallet().address(), &wallet().sign(&message));
        assert_eq!(answer.status, 200, "{}", answer.text());
        secret(answer.json()["code"].as_str().unwrap());
        assert_eq!(server.post_form("/v1/oauth/authorize", &[fields[0], fields[0]]).status, 400);
        assert_eq!(server.post_form("/v1/oauth/authorize", &[]).status, 400);
    }
}

/// 14.2, 9.
#[test]
fn an_expired_device_code_is_said_to_have_expired() {
    for server in Server::on_both(&settings().variable("DEVICE_CODE_TTL_SECONDS", "1")) {
        let client = server.register(&registration("public"));
        let app = App { server: &server, client: &client };
        let (code, user_code) = begun(app);
        eventually("a device code expires", || (poll(app, &code).json()["error"] == "expired_token").then_some(()));
        assert_eq!(refused(&poll(app, &code)), (400, "expired_token".into()));
        assert_eq!(approve(app, &user_code).status, 404);
        assert_eq!(server.get(&format!("/v1/device/scopes?user_code={user_code}")).status, 404);
    }
}

/// 14.2, 11: addresses and scopes, which anybody chooses, each made a time series.
#[test]
fn no_metric_has_a_label_that_strangers_choose() {
    let node = Node::start();
    let database = Database::fresh();
    let on = || Gateway::start(asking(&node, settings()).variable("DATABASE_URL", &database.url));
    let server = Server { gateway: on(), database: None };
    let client = server.register(&registration("confidential"));
    let (app, alice) = (App { server: &server, client: &client }, BittensorWallet::new("//Alice"));
    remembered(&app.refresh(refresh_of(&app.tokens(&wallet()))));
    app.redeem("tgc_x");
    app.authorize(&[("scope", "subnet:123:nobody")]);
    app.authorize(&[("scope", "subnet:123:miner")]);
    app.authorize(&[("client_id", "mallory")]);
    direct(&server, &alice, &["signer:coldkey"]);
    server.get("/v1/nothing-at-all");
    server.admin("GET", &format!("/v1/admin/clients/{}/stats", app.id()), None);
    let named = [("client_id", app.id()), ("client_secret", "mallory"), ("grant_type", "mallory")];
    let statuses: Vec<u16> = (0..21).map(|_| server.post_form("/v1/oauth/token", &named).status).collect();
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");

    let text = server.gateway.admin("/metrics").unwrap().text();
    for chosen in [app.id(), &wallet().address(), &alice.address(), "subnet:", "nothing-at-all", "mallory", "Weather"] {
        assert!(!text.contains(chosen), "{chosen}");
    }
    for (family, labels, least) in [
        ("tollgate_oauth_events_total", &["\"authorize\"", "\"success\"", "\"evm\""][..], 1),
        ("tollgate_oauth_events_total", &["\"authorize\"", "\"invalid_scope\""], 2),
        ("tollgate_oauth_events_total", &["\"authorize\"", "\"invalid_client\""], 1),
        ("tollgate_oauth_events_total", &["\"challenge_issued\"", "\"sr25519\""], 1),
        ("tollgate_oauth_events_total", &["\"challenge_verified\"", "\"success\"", "\"sr25519\""], 1),
        ("tollgate_oauth_events_total", &["\"token_exchange\"", "\"success\"", "\"authorization_code\""], 1),
        ("tollgate_oauth_events_total", &["\"token_exchange\"", "\"failure\"", "\"invalid_grant\""], 1),
        ("tollgate_oauth_events_total", &["\"token_exchange\"", "\"failure\"", "\"invalid_client\""], 1),
        ("tollgate_oauth_events_total", &["\"token_refresh\"", "\"success\"", "\"refresh_token\""], 1),
        ("tollgate_oauth_scopes_total", &["\"openid\"", "\"granted\""], 1),
        ("tollgate_oauth_scopes_total", &["\"subnet_role\"", "\"rejected\""], 1),
        ("tollgate_oauth_scopes_total", &["\"unknown\"", "\"rejected\""], 1),
        ("tollgate_oauth_limited_total", &["\"secrets\""], 1),
        ("tollgate_oauth_request_seconds_count", &["\"/v1/oauth/token\"", "\"2xx\""], 2),
        ("tollgate_oauth_request_seconds_count", &["\"/v1/oauth/token\"", "\"4xx\""], 1),
        ("tollgate_oauth_request_seconds_count", &["\"/v1/admin/clients/{id}/stats\"", "\"2xx\""], 1),
        ("tollgate_oauth_request_seconds_count", &["\"-\"", "\"4xx\""], 1),
        ("tollgate_oauth_secret_seconds_count", &[], 2),
        ("tollgate_chain_connected", &["\"owners\""], 1),
        ("tollgate_database_connections", &[], 1),
    ] {
        let found = server.gateway.metric(family, labels);
        assert!(found >= least, "{family} {labels:?}: {found} in\n{text}");
    }
    assert!(text.contains("tollgate_lookup_seconds{dependency=\"owners\"}"), "{text}");
    // What is kept is counted in the background, first when a gateway starts.
    let second = on();
    eventually("clients and refresh tokens are counted", || {
        let counted =
            (second.metric("tollgate_oauth_clients", &["true"]), second.metric("tollgate_oauth_refresh_tokens", &[]));
        (counted == (1, 1)).then_some(())
    });
}

/// 14.2, 12: one way to start it sent users to a page that there was not.
#[test]
fn the_address_that_devices_show_is_there() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let begun = server.post_json("/v1/device/code", &json!({ "client_id": client["client_id"] })).json();
    let address = url::Url::parse(begun["verification_uri"].as_str().unwrap()).unwrap();
    let answer = server.get(address.path());
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
}

/// 14.2, 13: libraries say `application/json` of nothing too.
#[test]
fn a_body_that_is_empty_has_no_fields() {
    let server = Server::start(settings());
    let client = server.register(&registration("confidential"));
    let own = format!("/v1/admin/clients/{}", client["client_id"].as_str().unwrap());
    for (method, path, status) in [
        ("POST", "/v1/auth/challenge", 200),
        ("POST", &*format!("{own}/rotate-secret"), 200),
        ("PATCH", &own, 400),
        ("DELETE", &own, 200),
        ("POST", "/v1/admin/clients", 400),
        ("POST", "/v1/oauth/token", 400),
        ("POST", "/v1/device/code", 401),
    ] {
        let request = Request::new(method, path).header("X-Admin-API-Key", ADMIN_KEY);
        let answer = server.send(&request.header("Content-Type", "application/json").header("Content-Length", "0"));
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_ne!(answer.json()["error"], "Internal Server Error", "{method} {path}");
    }
}
