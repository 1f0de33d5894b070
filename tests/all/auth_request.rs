//! The endpoint of nexus-auth (nexus.md section 1): every vector beside what was measured, and behind Debian's nginx.

mod behind_nginx;
mod policy;
mod started_as;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::support::{
    Answer, Client, Gateway, Request, Settings, eventually,
    neuron::{self, ALICE},
    pylon::Pylon,
};

const GRANTED: &str = "Access granted";
const NO_CERTIFICATE: &str = "Access denied: No client certificate";
const MALFORMED: &str = "Access denied: Invalid certificate";
const NOT_AUTHORIZED: &str = "Access denied: Organization not authorized";
const NOT_VALID: &str = "Access denied: Certificate validation failed";
const EVE: &str = "5HGjWAeFDfFCWPsjFQdVV2Msvz2XtMktvgocEZcCj68kUMaw";

/// What is recorded of a header.
struct Vector {
    name: String,
    header: String,
    /// Status, body and `X-Hotkey` of the replaced system.
    measured: (u16, String, Option<String>),
    accepted: bool,
    reason: String,
}

fn vectors() -> Vec<Vector> {
    let text = std::fs::read(neuron::file("vectors.json")).unwrap();
    let document: Value = serde_json::from_slice(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |vector: &Value| {
        let (measured, recommended) = (&vector["nexus_auth"], &vector["recommended"]);
        Vector {
            name: text(&vector["name"]),
            header: vector["header"].as_str().unwrap_or_default().to_owned(),
            measured: (
                measured["status"].as_u64().unwrap().try_into().unwrap(),
                text(&measured["body"]),
                measured["x_hotkey"].as_str().map(str::to_owned),
            ),
            accepted: recommended["accept"].as_bool().unwrap(),
            reason: recommended["reason"].as_str().unwrap().split(' ').next().unwrap().to_owned(),
        }
    };
    document["vectors"].as_array().unwrap().iter().map(of).collect()
}

fn header(name: &str) -> String {
    vectors().into_iter().find(|vector| vector.name == name).unwrap().header
}

fn asking(header: &str) -> Request {
    let request = Request::get("/auth");
    if header.is_empty() { request } else { request.header("X-Client-Cert", header) }
}

fn ask(gateway: &Gateway, request: &Request) -> Answer {
    Client::connect(gateway.auth_request).send(request)
}

/// Status, body and `X-Hotkey`.
fn verdict(answer: &Answer) -> (u16, String, Option<String>) {
    (answer.status, answer.text(), answer.header("x-hotkey").map(str::to_owned))
}

/// A gateway with the endpoint, which knows the neurons of a Pylon.
fn start(pylon: &Pylon, lines: &str) -> Gateway {
    let settings = Settings::file().open(Ipv4Addr::LOCALHOST.into_address(), "").auth_request(lines);
    let gateway = Gateway::start(pylon.configured(settings, ""));
    knows_neurons(&gateway);
    gateway
}

/// Waits until the table of neurons is there.
#[track_caller]
fn knows_neurons(gateway: &Gateway) {
    let valid = asking(&header("valid"));
    eventually("somebody is admitted", || (ask(gateway, &valid).status == 200).then_some(()));
}

/// An address that nobody asks for.
trait IntoAddress {
    fn into_address(self) -> std::net::SocketAddr;
}

impl IntoAddress for Ipv4Addr {
    fn into_address(self) -> std::net::SocketAddr {
        (self, 9).into()
    }
}

/// What is not as it was measured with `compatibility = "nexus-auth"`, and why.
fn differing(name: &str) -> Option<(u16, &'static str, Option<&'static str>)> {
    match name {
        // Whoever is let in is named by the hotkey's one spelling, whatever the certificate says (W1).
        "org_alias_slash" | "org_alias_dots" | "org_alias_backslash" => Some((200, GRANTED, Some(ALICE))),
        // Pylon may write 0x before a key: it is the same key.
        "registry_0x_prefix" => Some((200, GRANTED, Some(EVE))),
        // The vector's address has a wrong checksum, so nobody is asked about it. Pylon's stub was, and knew it.
        "registry_short_key" => Some((403, NOT_AUTHORIZED, None)),
        _ => None,
    }
}

#[test]
fn every_vector_gets_the_verdict_that_was_measured() {
    let pylon = Pylon::start();
    let gateway = start(&pylon, "compatibility = \"nexus-auth\"");
    let vectors = vectors();
    assert_eq!(vectors.len(), 60);
    for vector in vectors {
        let expected = match differing(&vector.name) {
            Some((status, body, hotkey)) => {
                let expected = (status, body.to_owned(), hotkey.map(str::to_owned));
                assert_ne!(expected, vector.measured, "{} does not differ", vector.name);
                expected
            }
            None => vector.measured,
        };
        assert_eq!(verdict(&ask(&gateway, &asking(&vector.header))), expected, "{}", vector.name);
    }
}

#[test]
fn every_vector_gets_the_verdict_that_is_recommended() {
    let pylon = Pylon::start();
    let gateway = start(&pylon, "");
    for vector in vectors() {
        let name = &vector.name;
        let reason = match vector.reason.as_str() {
            "no_certificate" => "no_credential",
            "registry_unavailable" => "neurons_unavailable",
            "registry_malformed" if name == "registry_short_key" => "invalid_hotkey",
            reason => reason,
        };
        let body = match reason {
            "ok" => GRANTED,
            "no_credential" => NO_CERTIFICATE,
            "malformed_certificate" if name == "bad_percent" => "Access denied: Invalid certificate encoding",
            "malformed_certificate" => MALFORMED,
            "no_organization" => "Access denied: No organization in certificate",
            "ambiguous_identity"
            | "invalid_hotkey"
            | "unknown_hotkey"
            | "registry_malformed"
            | "neurons_unavailable" => NOT_AUTHORIZED,
            _ => NOT_VALID,
        };
        let hotkey = match name.as_str() {
            _ if !vector.accepted => None,
            "valid_uppercase_registry_hex" => Some("5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY".to_owned()),
            "registry_0x_prefix" => Some(EVE.to_owned()),
            _ => Some(ALICE.to_owned()),
        };
        let before = gateway.metric("tollgate_denials_total", &["auth_request", &format!("\"{reason}\"")]);
        let status = if vector.accepted { 200 } else { 403 };
        let answer = ask(&gateway, &asking(&vector.header));
        assert_eq!(verdict(&answer), (status, body.to_owned(), hotkey), "{name}");
        let after = gateway.metric("tollgate_denials_total", &["auth_request", &format!("\"{reason}\"")]);
        assert_eq!(after - before, i64::from(!vector.accepted), "{name} {reason}");
    }
    assert!(gateway.metric("tollgate_requests_total", &["auth_request", "2xx"]) >= 10);
}

#[test]
fn every_method_and_path_is_the_same_question() {
    let pylon = Pylon::start();
    let gateway = start(&pylon, "");
    let (good, bad) = (header("valid"), header("wrong_org"));
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        for path in ["/", "/auth", "/a/b%2f..?x=y", "/healthz/", "//"] {
            for (header, status, body) in [(&good, 200, GRANTED), (&bad, 403, NOT_VALID)] {
                let request = Request { length: method == "POST", ..Request::new(method, path) };
                let answer =
                    ask(&gateway, &request.header("X-Client-Cert", header).header("X-Client-Cert-Subject", "x"));
                assert_eq!(answer.status, status, "{method} {path}");
                assert_eq!(answer.header("x-hotkey"), (status == 200).then_some(ALICE), "{method} {path}");
                assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
                assert!(answer.header("date").is_some());
                let (text, length) = (answer.text(), answer.header("content-length"));
                if method == "HEAD" {
                    assert_eq!((text.as_str(), length), ("", None), "{method} {path}");
                } else {
                    assert_eq!(
                        (text.as_str(), length),
                        (body, Some(body.len().to_string().as_str())),
                        "{method} {path}"
                    );
                }
            }
        }
    }
    // As nginx asks by default, with a body that nobody reads.
    let mut client = Client::connect(gateway.auth_request);
    client.write(format!("POST /auth HTTP/1.0\r\nContent-Length: 3\r\nX-Client-Cert: {good}\r\n\r\nabc"));
    let answer = client.answer("POST");
    assert_eq!(verdict(&answer), (200, GRANTED.to_owned(), Some(ALICE.to_owned())));
    assert!(answer.head.contains("\r\nX-Hotkey: "), "{}", answer.head);
    assert!(client.is_closed());
    // Many questions on one connection.
    let mut client = Client::connect(gateway.auth_request);
    for _ in 0..3 {
        assert_eq!(client.send(&asking(&good)).status, 200);
        assert_eq!(client.send(&asking("")).status, 403);
    }
}

#[test]
fn of_several_headers_the_first_counts_or_none() {
    let pylon = Pylon::start();
    let (good, bad) = (header("valid"), header("wrong_org"));
    let several = |values: &[&str]| {
        values.iter().fold(Request::get("/"), |request, value| request.header("X-Client-Cert", value))
    };
    for (lines, expected) in [
        ("", [(403, MALFORMED), (403, MALFORMED), (200, GRANTED), (403, MALFORMED), (403, NO_CERTIFICATE)]),
        (
            "compatibility = \"nexus-auth\"",
            [(200, GRANTED), (403, NOT_VALID), (200, GRANTED), (403, NO_CERTIFICATE), (403, NO_CERTIFICATE)],
        ),
    ] {
        let gateway = start(&pylon, lines);
        let cases = [&[&*good, &*bad][..], &[&bad, &good], &[&good, &good], &["", &good], &["", " "]];
        for (values, (status, body)) in cases.into_iter().zip(expected) {
            let answer = ask(&gateway, &several(values));
            assert_eq!((answer.status, answer.text().as_str()), (status, body), "{lines} {}", values.len());
        }
    }
}

#[test]
fn only_named_peers_are_believed() {
    let pylon = Pylon::start();
    let settings = Settings::file().open(Ipv4Addr::LOCALHOST.into_address(), "");
    let settings = settings.auth_request("trusted_peers = [\"127.0.0.2\", \"10.0.0.0/8\"]");
    let gateway = Gateway::start(pylon.configured(settings, ""));
    let valid = asking(&header("valid"));
    let from = |last: u8, request: &Request| {
        Client::connect_from(IpAddr::from([127, 0, 0, last]), gateway.auth_request).send(request)
    };
    eventually("somebody is admitted", || (from(2, &valid).status == 200).then_some(()));
    let before = gateway.metric("tollgate_denials_total", &["auth_request", "untrusted_peer"]);
    for peer in [1, 3] {
        let answer = from(peer, &valid);
        assert_eq!(verdict(&answer), (403, "Access denied: Peer not trusted".to_owned(), None));
    }
    assert_eq!(gateway.metric("tollgate_denials_total", &["auth_request", "untrusted_peer"]), before + 2);
    // What somebody says of himself is worth nothing.
    let answer = from(3, &valid.header("X-Forwarded-For", "127.0.0.2").header("X-Real-IP", "127.0.0.2"));
    assert_eq!(answer.status, 403);
    assert_eq!(from(3, &Request::get("/healthz")).status, 200);
}

#[test]
fn strangers_cannot_take_the_places_of_proxies() {
    let pylon = Pylon::start();
    let settings = Settings::file().open(Ipv4Addr::LOCALHOST.into_address(), "");
    let settings = settings.auth_request("trusted_peers = [\"127.0.0.1\"]");
    let gateway = Gateway::start(pylon.configured(settings, ""));
    knows_neurons(&gateway);
    let stranger = || Client::connect_from(IpAddr::from([127, 0, 0, 3]), gateway.auth_request);
    let open: Vec<Client> = std::iter::repeat_with(stranger).take(80).collect();
    eventually("some are turned away", || {
        (gateway.metric("tollgate_connections_refused_total", &["auth_request", "too_many"]) > 0).then_some(())
    });
    assert_eq!(ask(&gateway, &asking(&header("valid"))).status, 200);
    drop(open);
}

#[test]
fn one_line_tells_of_a_question_and_a_client_cannot_write_another() {
    let pylon = Pylon::start();
    let settings = Settings::file().open(Ipv4Addr::LOCALHOST.into_address(), "").auth_request("");
    let gateway = Gateway::start(pylon.configured(settings, "").variable("TOLLGATE_LOG", "debug"));
    knows_neurons(&gateway);
    let path = format!("/%0aforged?{}", super::support::IN_QUERY);
    let request = Request { target: path, ..asking(&header("org_newline")) };
    assert_eq!(ask(&gateway, &request).text(), NOT_AUTHORIZED);
    let line = eventually("a line about it", || {
        gateway.log().into_iter().find(|line| line.contains("auth request") && line.contains("invalid_hotkey"))
    });
    let fields = serde_json::from_str::<Value>(&line).unwrap()["fields"].clone();
    assert_eq!(fields["unverified_organization"], format!("{ALICE}\\nforged log line"));
    assert_eq!((&fields["status"], &fields["peer"]), (&Value::from(403), &Value::from("127.0.0.1")));
    assert!(!line.contains("%0a"), "{line}");
    assert!(gateway.log().iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn health_is_asked_at_a_path_of_its_own_and_never_answers_for_a_client() {
    let pylon = Pylon::start();
    let gateway = start(&pylon, "health_path = \"/alive\"");
    for (request, status, body) in [
        (Request::get("/alive"), 200, "OK"),
        (Request::get("/alive?x"), 200, "OK"),
        (Request::get("/healthz"), 403, NO_CERTIFICATE),
        // A proxy that asks with the client's own path must not be told that all is well.
        (Request::get("/alive").header("X-Client-Cert", ""), 403, NO_CERTIFICATE),
        (Request::get("/alive").header("X-Original-URI", "/alive"), 403, NO_CERTIFICATE),
        (Request::get("/alive").header("X-Forwarded-For", "10.0.0.1"), 403, NO_CERTIFICATE),
        (Request::get("/alive").header("X-Client-Cert", header("expired")), 403, NOT_VALID),
    ] {
        assert_eq!(verdict(&ask(&gateway, &request)), (status, body.to_owned(), None), "{}", request.target);
    }
    pylon.answer_instead(Some(super::support::Reply::status(500, "")));
    assert_eq!(ask(&gateway, &Request::get("/alive")).status, 200);
}

#[test]
fn heads_are_bounded_and_large_certificates_fit() {
    let pylon = Pylon::start();
    let gateway = start(&pylon, "");
    // Every character escaped, as no proxy does: three times as long.
    let escaped =
        neuron::certificate_pem("valid").bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
    assert_eq!(ask(&gateway, &asking(&escaped)).status, 200);
    let padded = format!("{}%0A", "x".repeat(100_000)) + &header("valid");
    assert_eq!(ask(&gateway, &asking(&padded)).status, 200);
    let mut client = Client::connect(gateway.auth_request);
    // What is too much may be cut off while it is being sent.
    let _ = client.try_write(asking(&"x".repeat(4 << 20)).bytes());
    if let Ok(answer) = client.try_answer("GET") {
        assert_eq!(answer.status, 431);
    }
    assert!(client.is_closed());
    assert_eq!(ask(&gateway, &asking(&header("valid"))).status, 200);
}

#[test]
fn a_rotated_key_is_known_at_once_and_what_is_unknown_is_not_let_in() {
    let pylon = Pylon::start();
    let gateway = start(&pylon, "");
    let (alice, another) = (header("valid"), header("wrong_org"));
    pylon.publish("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty", &neuron::public_key("valid"));
    pylon.publish(ALICE, &neuron::public_key("gateway"));
    // This certificate says that it is Bob's, with the key that is now Bob's.
    eventually("the new key counts", || (ask(&gateway, &asking(&another)).status == 200).then_some(()));
    let answer = eventually("the old key counts no longer", || {
        Some(ask(&gateway, &asking(&alice))).filter(|answer| answer.status == 403)
    });
    assert_eq!(answer.text(), NOT_VALID);
}
