//! Devices, as RFC 8628 has them.

use serde_json::json;

use crate::support::{
    device::{approve, begun, confirm, poll, wallet},
    oauth::{Server, refused, settings, standard},
    secret,
    sign_in::{App, nonce, ours, registration},
};

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
    let message = nonce(&approve(app, user_code));
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
