//! Devices: RFC 8628, and the replaced server's forms of it.

use serde_json::{Value, json};

use crate::support::{
    Answer, Request, eventually,
    oauth::{Server, settings, standard},
    secret,
    sign_in::{App, claims, ours, registration, remembered},
    wallet::{BittensorWallet, EthereumWallet},
};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

fn wallet() -> EthereumWallet {
    EthereumWallet::new(13)
}

#[track_caller]
fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
}

#[track_caller]
fn begun(app: App<'_>) -> (String, String) {
    let answer = app.server.post_json("/v1/device/code", &json!({ "client_id": app.id(), "scopes": ["openid"] }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    (secret(document["device_code"].as_str().unwrap()), document["user_code"].as_str().unwrap().to_owned())
}

fn poll(app: App<'_>, code: &str) -> Answer {
    app.token(&[("grant_type", GRANT), ("device_code", code)])
}

fn approve(app: App<'_>, user_code: &str) -> Answer {
    ours(app.server, "/v1/device/approve", "", &json!({ "user_code": user_code, "address": wallet().address() }))
}

fn confirm(app: App<'_>, user_code: &str, nonce: &str, signature: &str) -> Answer {
    let body = json!({ "user_code": user_code, "address": wallet().address(), "nonce": nonce, "signature": signature });
    ours(app.server, "/v1/device/confirm", "", &body)
}

#[track_caller]
fn signed_for(app: App<'_>, user_code: &str) {
    let nonce = approve(app, user_code).json()["nonce"].as_str().unwrap().to_owned();
    let answer = confirm(app, user_code, &nonce, &wallet().sign(&nonce));
    assert_eq!((answer.status, answer.json()), (200, json!({ "status": "approved" })), "{}", answer.text());
}

#[test]
fn a_device_gets_tokens_once_somebody_has_signed() {
    let form = regex::Regex::new(r"^[A-HJ-NP-Z]{4}-\d{4}$").unwrap();
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("public"));
        let app = App { server: &server, client: &client };
        let answer = server.post_json("/v1/device/code", &json!({ "client_id": app.id(), "scopes": ["openid"] }));
        let document = answer.json();
        assert!(form.is_match(document["user_code"].as_str().unwrap()), "{document}");
        assert_eq!(document["verification_uri"], "http://localhost:3000/v1/device/verify");
        assert_eq!((&document["expires_in"], &document["interval"]), (&json!(300), &json!(5)));
        assert!(document.get("verification_uri_complete").is_none(), "the replaced server had none");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let (code, user_code) = begun(app);
        let shown = server.get(&format!("/v1/device/scopes?user_code={user_code}")).json();
        for (name, value) in [
            ("scopes", json!(["openid"])),
            ("descriptions", json!(["openid"])),
            ("sign_method", json!("evm")),
            ("signing_key", json!("any")),
            ("client_name", json!("Weather <App>")),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        assert_eq!(refused(&poll(app, &code)), (400, "authorization_pending".into()));
        assert_eq!(refused(&poll(app, &code)), (400, "slow_down".into()));
        signed_for(app, &user_code);
        assert_eq!(approve(app, &user_code).status, 404, "over");
        let answer = poll(app, &code);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = remembered(&answer);
        assert_eq!(claims(&tokens["access_token"])["sub"], json!(wallet().address()));
        assert!(claims(&tokens["id_token"])["auth_time"].is_i64());
        assert_eq!(refused(&poll(app, &code)), (404, "Not Found".into()), "once");
        assert_eq!(app.refresh(tokens["refresh_token"].as_str().unwrap()).status, 200);
    }
}

/// 14.2, 8.
#[test]
fn a_device_is_served_as_rfc_8628_has_it() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let answer = server.post_form("/v1/device/code", &[("client_id", app.id()), ("scope", "openid")]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    let user_code = document["user_code"].as_str().unwrap();
    let complete = format!("http://localhost:3000/v1/device/verify?user_code={user_code}");
    assert_eq!(document["verification_uri_complete"], complete);
    let shown = server.get(&format!("/v1/device/scopes?user_code={user_code}"));
    assert_eq!(shown.json()["scopes"], json!(["openid"]));
    let page = server.get(&format!("/v1/device/verify?user_code={user_code}"));
    assert!(page.status == 200 && page.text().contains(user_code));
    let odd = server.get("/v1/device/verify?user_code=%22%3E%3Cscript%3E");
    assert!(!odd.text().contains("\"><script>"), "{}", odd.text());
    let code = secret(document["device_code"].as_str().unwrap());
    assert_eq!(refused(&poll(app, &code)), (400, "authorization_pending".into()));
    assert_eq!(refused(&poll(app, &code)), (400, "slow_down".into()));
    assert_eq!(refused(&poll(app, "tgd_nonsense")), (400, "invalid_grant".into()));
    let bad = server.post_form("/v1/device/code", &[("client_id", app.id()), ("scope", "nonsense")]);
    assert_eq!(refused(&bad), (400, "invalid_scope".into()));
    let bad = server.post_form("/v1/device/code", &[("client_id", app.id()), ("resource", "https://x.example")]);
    assert_eq!(refused(&bad), (400, "invalid_target".into()));
    let message = approve(app, user_code).json()["nonce"].as_str().unwrap().to_owned();
    assert!(message.contains("wants you to sign in") && message.contains(app.id()), "{message}");
    assert_eq!(confirm(app, user_code, &message, &wallet().sign(&message)).status, 200);
    assert_eq!(poll(app, &code).status, 200, "however soon");
}

#[test]
fn a_user_can_say_no_and_the_device_is_told() {
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("public"));
        let app = App { server: &server, client: &client };
        let (code, user_code) = begun(app);
        let deny = || ours(&server, "/v1/device/deny", "", &json!({ "user_code": user_code }));
        assert_eq!(deny().status, 200);
        assert_eq!(deny().status, 404);
        assert_eq!(approve(app, &user_code).status, 404);
        assert_eq!(refused(&poll(app, &code)), (400, "access_denied".into()));
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

#[test]
fn a_device_code_is_exchanged_by_its_own_client() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let foreign = server.register(&registration("public"));
    let (app, theirs) = (App { server: &server, client: &client }, App { server: &server, client: &foreign });
    let (code, user_code) = begun(app);
    assert_eq!(refused(&poll(theirs, &code)), (401, "invalid_client".into()));
    signed_for(app, &user_code);
    assert_eq!(refused(&poll(theirs, &code)), (401, "invalid_client".into()));
    assert_eq!(refused(&app.token(&[("grant_type", GRANT)])), (400, "invalid_request".into()));
    for nonsense in ["nonsense", &user_code, &code.replacen("tgd_", "tgc_", 1)] {
        assert_eq!(refused(&poll(app, nonsense)), (404, "Not Found".into()));
    }
    assert_eq!(poll(app, &code).status, 200);
}

#[test]
fn no_wrong_request_begins_a_device() {
    let server = Server::start(settings());
    let public = server.register(&registration("public"));
    let confidential = server.register(&registration("confidential"));
    let mut other = registration("public");
    other["grant_types"] = json!(["authorization_code"]);
    let other = server.register(&other);
    let id = |client: &Value| client["client_id"].clone();
    for (body, expected) in [
        (json!({}), (401, "invalid_client")),
        (json!({ "client_id": "nobody" }), (401, "invalid_client")),
        (json!({ "client_id": id(&confidential) }), (401, "invalid_client")),
        (json!({ "client_id": id(&confidential), "client_secret": "wrong" }), (401, "invalid_client")),
        (json!({ "client_id": id(&other) }), (400, "unsupported_grant_type")),
        (json!({ "client_id": id(&public), "scopes": ["nonsense"] }), (400, "Bad Request")),
        (json!({ "client_id": id(&public), "scopes": ["subnet:1:miner"] }), (400, "Bad Request")),
        (json!({ "client_id": id(&public), "scopes": "openid" }), (400, "Bad Request")),
    ] {
        let answer = server.post_json("/v1/device/code", &body);
        assert_eq!(refused(&answer), (expected.0, expected.1.to_owned()), "{body}: {}", answer.text());
    }
    let from_a_page = Request::post("/v1/device/code", json!({ "client_id": id(&public) }).to_string())
        .header("Content-Type", "application/json")
        .header("Origin", "https://evil.example");
    assert_eq!(server.send(&from_a_page).status, 403);
    assert_eq!(server.get("/v1/device/scopes").status, 404);
    let unknown = server.get("/v1/device/scopes?user_code=ABCD-1234");
    assert_eq!((unknown.status, unknown.json().as_object().unwrap().len()), (404, 1), "the error alone");
    assert_eq!(server.get("/v1/device/demo.sh").status, 404);
}

#[test]
fn a_device_s_challenge_is_answered_for_that_device() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let ((_, one), (_, two)) = (begun(app), begun(app));
    let nonce = |user_code: &str| approve(app, user_code).json()["nonce"].as_str().unwrap().to_owned();
    let wallet = wallet();
    let of_another = nonce(&two);
    let answer = confirm(app, &one, &of_another, &wallet.sign(&of_another));
    assert_eq!(refused(&answer), (400, "Bad Request".into()));
    assert!(answer.text().contains("user_code mismatch"));
    let direct = server.post_json("/v1/auth/challenge", &json!({})).json()["nonce"].as_str().unwrap().to_owned();
    assert_eq!(confirm(app, &one, &direct, &wallet.sign(&direct)).status, 400);
    let badly = nonce(&one);
    assert_eq!(confirm(app, &one, &badly, &EthereumWallet::new(1).sign(&badly)).status, 401);
    assert_eq!(confirm(app, &one, &badly, &wallet.sign(&badly)).status, 401, "burned");
    let alice = BittensorWallet::new("//Alice").address();
    let body = json!({ "user_code": one, "address": alice });
    assert_eq!(ours(&server, "/v1/device/approve", "", &body).status, 400);
    for code in ["ABCD-0000", &one.to_lowercase(), &format!("{one} "), "", "é", "ABCD\u{0}1234"] {
        assert_eq!(approve(app, code).status, 404, "{code}");
    }
    signed_for(app, &one);
}

#[test]
fn tries_on_one_user_code_are_limited_wherever_they_come_from() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let (_, user_code) = begun(app);
    let statuses: Vec<u16> = (0..25).map(|_| confirm(app, &user_code, "x", "00").status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().filter(|status| **status == 401).count() <= 20, "ten in each of two minutes: {statuses:?}");
}
