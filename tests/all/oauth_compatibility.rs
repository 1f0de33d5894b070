//! What clients of the replaced server rely on, with its environment alone: auth-gateway.md sections 1 to 6 endpoint by
//! endpoint, and the checklist of its section 14.4 item by item.
//!
//! | 14.4 | Where |
//! | --- | --- |
//! | the message | `direct`; `src/oauth/message.rs` |
//! | raw and `<Bytes>` | `oauth_bittensor`; `src/wallet/sign_in.rs` |
//! | EIP-191, EIP-55 | `direct`; `src/oauth/account.rs`, `src/wallet/evm.rs` |
//! | paths, fields, status numbers, `error` | here (1.0), `direct` (1.1), `authorize` (1.2), `token` (1.3), `device` (1.4), `admin` (1.5), `discovery` (1.6) |
//! | `error_description` and `message` | [`told`] and [`malformed`], used by all of them |
//! | claims and explicit nulls | `token`; `src/oauth/claims.rs` |
//! | `kid` | `discovery`; `src/jose/jwk.rs` |
//! | hashes of secrets | `src/oauth/secret.rs` |
//! | scopes: grammar, descriptions, wildcards | `src/model/scope/tests.rs` |
//! | discovery | `discovery` |
//! | variables | `src/config/tests/auth_gateway.rs` |

mod admin;
mod authorize;
mod device;
mod direct;
mod discovery;
mod token;

use serde_json::{Value, json};

use crate::support::{
    Answer, Request,
    oauth::{ADMIN_KEY, Server, form, members, refused, settings, standard},
};

/// Status and `error` of a refusal that the replaced server described twice, with the same text.
#[track_caller]
fn told(answer: &Answer) -> (u16, String) {
    let document = answer.json();
    assert_eq!(members(&document), ["error", "error_description", "message", "statusCode"], "{document}");
    refused(answer)
}

/// What was sent does not have its form: described once, and called an error of HTTP whatever the endpoint.
#[track_caller]
fn malformed(answer: &Answer) {
    let document = answer.json();
    assert_eq!(members(&document), ["error", "message", "statusCode"], "{document}");
    assert_eq!(refused(answer), (400, "Bad Request".into()));
}

#[test]
fn no_path_has_methods_that_it_did_not_have() {
    let server = Server::start(settings());
    for (method, path) in [
        ("GET", "/v1/nothing"),
        ("POST", "/health"),
        ("GET", "/v1/auth/challenge"),
        ("GET", "/v1/auth/verify"),
        ("PUT", "/v1/oauth/authorize"),
        ("GET", "/v1/oauth/challenge"),
        ("GET", "/v1/oauth/callback"),
        ("GET", "/v1/oauth/token"),
        ("GET", "/v1/oauth/refresh"),
        ("GET", "/v1/device/code"),
        ("POST", "/v1/device/scopes"),
        ("GET", "/v1/device/approve"),
        ("GET", "/v1/device/confirm"),
        ("GET", "/v1/device/demo.sh"),
        ("GET", "/v1/admin/clients/x"),
        ("GET", "/v1/admin/clients/x/rotate-secret"),
        ("POST", "/.well-known/jwks.json"),
    ] {
        let answer = server.send(&Request::new(method, path).header("X-Admin-API-Key", ADMIN_KEY));
        assert_eq!(answer.status, 404, "{method} {path}");
        let message = format!("Route {method}:{path} not found");
        assert_eq!(answer.json(), json!({ "message": message, "error": "Not Found", "statusCode": 404 }));
    }
    let standard = Server::start(standard());
    assert_eq!(standard.get("/v1/nothing").status, 404);
    let answer = standard.send(&Request::new("POST", "/health"));
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
}

#[test]
fn a_body_that_cannot_be_read_is_told_so() {
    let server = Server::start(settings().variable("JSON_BODY_LIMIT_BYTES", "1024"));
    let rfc = Server::start(standard().variable("JSON_BODY_LIMIT_BYTES", "1024"));
    let long = format!("{{\"client_name\":\"{}\"}}", "x".repeat(1024));
    for path in ["/v1/admin/clients", "/v1/oauth/token", "/v1/device/code", "/v1/auth/verify"] {
        for (kind, body, status, phrase) in [
            ("application/json", "{", 400, "Bad Request"),
            ("application/json", &long, 413, "Payload Too Large"),
            ("text/plain", "{}", 415, "Unsupported Media Type"),
            ("application/jsonx", "{}", 415, "Unsupported Media Type"),
        ] {
            let request = Request::post(path, body).header("Content-Type", kind).header("X-Admin-API-Key", ADMIN_KEY);
            let answer = server.send(&request);
            assert_eq!(refused(&answer), (status, "Internal Server Error".into()), "{path} {kind} {body}");
            assert_eq!(members(&answer.json()), ["error", "message", "statusCode"]);
            assert_eq!(told(&rfc.send(&request)), (status, phrase.into()), "{path} {kind}");
        }
    }
}

#[test]
fn a_form_will_do_for_json_and_what_is_there_twice_is_a_list() {
    let server = Server::start(settings());
    let path = "/v1/admin/clients";
    let fields = [("client_name", "x"), ("client_type", "public"), ("redirect_uris", "https://a.example")];
    let with_key = |fields: &[(&str, &str)]| server.send(&form(path, fields).header("X-Admin-API-Key", ADMIN_KEY));
    malformed(&with_key(&fields));
    assert_eq!(with_key(&[fields[0], fields[1], fields[2], ("redirect_uris", "https://b.example")]).status, 201);
    malformed(&with_key(&[fields[0], fields[0], fields[1]]));
    for body in [json!({}), json!({ "client_name": 1, "client_type": "public" }), json!([]), json!("x"), Value::Null] {
        malformed(&server.admin("POST", path, Some(&body)));
    }
}
