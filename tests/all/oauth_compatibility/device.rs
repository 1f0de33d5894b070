//! Section 1.4: devices without a browser.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{malformed, told};
use crate::support::{
    Request,
    device::{GRANT, approve, begun, confirm, poll, signed_for, wallet},
    oauth::{Server, members, settings},
    sign_in::{App, claims, nonce, ours, registration, remembered},
    subtensor::Node,
    wallet::{BittensorWallet, EthereumWallet},
};

#[test]
fn a_device_gets_tokens_once_somebody_has_signed() {
    let form = regex::Regex::new(r"^[A-HJ-NP-Z]{4}-\d{4}$").unwrap();
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("public"));
        let app = App { server: &server, client: &client };
        let answer = server.post_json("/v1/device/code", &json!({ "client_id": app.id(), "scopes": ["openid"] }));
        let document = answer.json();
        let names = ["device_code", "expires_in", "interval", "user_code", "verification_uri"];
        assert_eq!(members(&document), names, "no verification_uri_complete");
        assert!(form.is_match(document["user_code"].as_str().unwrap()), "{document}");
        assert_eq!(document["verification_uri"], "http://localhost:3000/v1/device/verify");
        assert_eq!((&document["expires_in"], &document["interval"]), (&json!(300), &json!(5)));
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
        assert_eq!(told(&poll(app, &code)), (400, "authorization_pending".into()));
        assert_eq!(told(&poll(app, &code)), (400, "slow_down".into()));
        assert_eq!(members(&approve(app, &user_code).json()), ["nonce"], "no expires_in");
        signed_for(app, &user_code);
        assert_eq!(told(&approve(app, &user_code)), (404, "Not Found".into()), "over");
        let answer = poll(app, &code);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = remembered(&answer);
        assert_eq!(claims(&tokens["access_token"])["sub"], json!(wallet().address()));
        assert!(claims(&tokens["id_token"])["auth_time"].is_i64());
        assert_eq!(told(&poll(app, &code)), (404, "Not Found".into()), "once");
        assert_eq!(app.refresh(tokens["refresh_token"].as_str().unwrap()).status, 200);
    }
}

#[test]
fn no_wrong_request_begins_a_device() {
    let server = Server::start(settings());
    let public = server.register(&registration("public"));
    let confidential = server.register(&registration("confidential"));
    let mut other = registration("public");
    other["grant_types"] = json!(["authorization_code"]);
    let other = server.register(&other);
    let mut narrow = registration("public");
    narrow["allowed_sign_methods"] = json!(["sr25519"]);
    narrow["allowed_scopes"] = json!(["subnet:1:miner"]);
    let narrow = server.register(&narrow);
    let id = |client: &Value| client["client_id"].clone();
    for (body, expected) in [
        (json!({}), (401, "invalid_client")),
        (json!({ "client_id": "nobody" }), (401, "invalid_client")),
        (json!({ "client_id": id(&confidential) }), (401, "invalid_client")),
        (json!({ "client_id": id(&confidential), "client_secret": "wrong" }), (401, "invalid_client")),
        (json!({ "client_id": id(&other) }), (400, "Bad Request")),
        (json!({ "client_id": id(&public), "scopes": ["nonsense"] }), (400, "Bad Request")),
        (json!({ "client_id": id(&public), "scopes": ["subnet:1:miner"] }), (400, "Bad Request")),
        (json!({ "client_id": id(&narrow), "scopes": ["subnet:2:miner"] }), (403, "Forbidden")),
    ] {
        let answer = server.post_json("/v1/device/code", &body);
        assert_eq!(told(&answer), (expected.0, expected.1.to_owned()), "{body}: {}", answer.text());
    }
    let from_a_page = Request::post("/v1/device/code", json!({ "client_id": id(&public) }).to_string())
        .header("Content-Type", "application/json")
        .header("Origin", "https://evil.example");
    assert_eq!(told(&server.send(&from_a_page)), (403, "Forbidden".into()));
    for body in [json!({ "client_id": id(&public), "scopes": "openid" }), json!({ "client_id": 1 })] {
        malformed(&server.post_json("/v1/device/code", &body));
    }
    let public = public["client_id"].as_str().unwrap();
    malformed(&server.post_form("/v1/device/code", &[("client_id", public), ("scopes", "openid")]));
    let two = server.post_form("/v1/device/code", &[("client_id", public), ("scopes", "openid"), ("scopes", "openid")]);
    assert_eq!(two.status, 200, "two of them are a list");
    let scope = server.post_form("/v1/device/code", &[("client_id", public), ("scope", "nonsense")]);
    assert_eq!(scope.status, 200, "nobody looked at `scope`");
    assert_eq!(server.get("/v1/device/scopes").status, 404);
    let unknown = server.get("/v1/device/scopes?user_code=ABCD-1234");
    assert_eq!((unknown.status, unknown.json().as_object().unwrap().len()), (404, 1), "the error alone");
}

#[test]
fn a_device_s_challenge_is_answered_for_that_device() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let (wallet, alice) = (wallet(), BittensorWallet::new("//Alice").address());
    // How often one code may be tried is limited.
    let fresh = || {
        let (_, user_code) = begun(app);
        let message = nonce(&approve(app, &user_code));
        (user_code, message)
    };
    let ((one, of_one), (_, of_another)) = (fresh(), fresh());
    let direct = nonce(&server.post_json("/v1/auth/challenge", &json!({})));
    for (message, text) in [(of_another, "user_code mismatch"), (direct, "different authentication flow")] {
        let answer = confirm(app, &one, &message, &wallet.sign(&message));
        assert_eq!(told(&answer), (400, "Bad Request".into()), "{message}");
        assert!(answer.text().contains(text), "{}", answer.text());
    }
    for (message, signature) in [
        (&*of_one, EthereumWallet::new(1).sign(&of_one)),
        (&*of_one, wallet.sign(&of_one)),
        ("never handed out", wallet.sign("never handed out")),
    ] {
        assert_eq!(told(&confirm(app, &one, message, &signature)), (401, "Unauthorized".into()), "{message}");
    }
    let (two, _) = fresh();
    let other = EthereumWallet::new(1).address();
    let bound = nonce(&ours(&server, "/v1/device/approve", "", &json!({ "user_code": two, "address": other })));
    assert_eq!(told(&confirm(app, &two, &bound, &wallet.sign(&bound))), (401, "Unauthorized".into()));
    signed_for(app, &two);
    for path in ["/v1/device/approve", "/v1/device/confirm"] {
        let told_of = |code: &str, address: &str| {
            let body = json!({ "user_code": code, "address": address, "nonce": "x", "signature": "00" });
            told(&ours(&server, path, "", &body))
        };
        for address in [&*alice, "5Grw"] {
            assert_eq!(told_of(&one, address), (400, "Bad Request".into()), "{path} {address}");
        }
        for code in ["ABCD-0000", &one.to_lowercase(), &format!("{one} "), "", "é", "ABCD\u{0}1234", &two] {
            assert_eq!(told_of(code, &wallet.address()), (404, "Not Found".into()), "{path} {code}");
        }
        malformed(&ours(&server, path, "", &json!({})));
    }
}

#[test]
fn a_device_code_is_exchanged_by_its_own_client() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let foreign = server.register(&registration("public"));
    let (app, theirs) = (App { server: &server, client: &client }, App { server: &server, client: &foreign });
    let (code, user_code) = begun(app);
    assert_eq!(told(&poll(theirs, &code)), (401, "invalid_client".into()));
    signed_for(app, &user_code);
    assert_eq!(told(&poll(theirs, &code)), (401, "invalid_client".into()));
    assert_eq!(told(&app.token(&[("grant_type", GRANT)])), (400, "invalid_request".into()));
    for nonsense in ["nonsense", &user_code, &code.replacen("tgd_", "tgc_", 1)] {
        assert_eq!(told(&poll(app, nonsense)), (404, "Not Found".into()));
    }
    assert_eq!(poll(app, &code).status, 200);
}

/// Run as its users do.
#[test]
fn the_demonstration_s_script_signs_in_from_a_command_line() {
    let node = Node::start();
    let demo = settings().variable("DEMO_MODE", "true").variable("DEVICE_CODE_POLL_INTERVAL", "1");
    let server = Server::start(demo.variable("SUBTENSOR_WS_URL", node.url()));
    let answer = server.get("/v1/device/demo.sh");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(answer.header("content-disposition"), Some("inline; filename=\"demo.sh\""));
    assert!(answer.text().contains("\nserver='http://localhost:3000'\n"), "{}", answer.text());
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("demo.sh");
    std::fs::write(&script, answer.body).unwrap();
    let mut device = Command::new("bash")
        .arg(&script)
        .arg(format!("http://{}", server.gateway.http))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut says = BufReader::new(device.stdout.take().unwrap()).lines();
    assert_eq!(says.next().unwrap().unwrap(), "Open http://localhost:3000/v1/device/verify");
    let user_code = says.next().unwrap().unwrap().replace("and enter ", "");
    let wallet = BittensorWallet::new("//Alice");
    let message = nonce(&ours(&server, "/v1/device/approve", "", &json!({ "user_code": user_code })));
    let body = json!({
        "user_code": user_code, "nonce": message, "address": wallet.address(), "signature": wallet.sign_wrapped(&message),
    });
    assert_eq!(ours(&server, "/v1/device/confirm", "", &body).status, 200);
    let tokens: Value = serde_json::from_str(&says.next().unwrap().unwrap()).unwrap();
    assert_eq!(claims(&tokens["access_token"])["sub"], json!(wallet.address()));
    assert!(device.wait().unwrap().success());
}
