//! Neurons that sign their requests: nothing reaches the service before it is known whose it is, and all of it does then.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Frame;
use serde_json::json;

use super::support::{
    Answer, Gate, Gateway, Part, Reply, Request, Settings, Upstream,
    cluster::Cluster,
    database::Database,
    eventually,
    gateway::storm,
    h2,
    pylon::Pylon,
    signer::{GATEWAY, Signer, Signing, sha256},
    tls::Authority,
};

const SECOND: i128 = 1_000_000_000;
/// The first length that Pingora's buffer for retries has no room for.
const LONG: usize = (64 << 10) + 1;

/// Everything that is signed is taken at `/signed`, for Alice and for `//Alice` of the other scheme; the rest is open.
fn settings(upstream: &Upstream, terms: &str) -> Settings {
    let hotkeys = [Signer::alice().hotkey(), Signer::ed25519("//Alice").hotkey()];
    // This machine may be busy: only a test that says how old a request may be has to be quick.
    let ages = if terms.contains("max_age") { "" } else { "max_age = \"60s\"\nepistula_max_age = \"60s\"\n" };
    Settings::file()
        .with(&format!("[signed_requests]\nreceiver = \"{GATEWAY}\"\nmax_skew = \"0s\"\n{ages}{terms}\n"))
        .with(&format!("[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n", upstream.address))
        .with(&route("signed", "\"btauth\", \"epistula\", \"epistula-lite\"", &hotkeys))
        .with("[[route]]\nname = \"open\"\nupstream = \"miner\"\n")
}

fn route(name: &str, accepts: &str, hotkeys: &[String]) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"miner\"\naccepts = [{accepts}]\n\
         [route.neurons]\nregistered = false\nhotkeys = {hotkeys:?}\n"
    )
}

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(settings(upstream, ""))
}

fn body(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// The same request in chunks.
fn chunked(request: &Request, sizes: usize) -> Vec<u8> {
    let head = Request { length: false, body: Vec::new(), ..request.clone() }.header("Transfer-Encoding", "chunked");
    let mut bytes = head.bytes();
    for piece in request.body.chunks(sizes) {
        bytes.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// The head alone.
fn head(request: &Request) -> Vec<u8> {
    let bytes = request.bytes();
    bytes[..bytes.len() - request.body.len()].to_vec()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (status, error), "{}", answer.head);
}

fn nothing_is_held(gateway: &Gateway) {
    eventually("nothing is held", || (gateway.metric("tollgate_held_body_bytes", &[]) == 0).then_some(()));
}

#[test]
fn whoever_signs_is_known_to_the_service() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let (alice, ed25519) = (Signer::alice(), Signer::ed25519("//Alice"));
    let post = || Request::post("/signed/generate?stream=1&q=a%20b", "{\"prompt\": 1}").header("X-Hotkey", "forged");
    for (what, signer, request) in [
        ("btauth", &alice, Signing::by(&alice).btauth(post())),
        ("btauth with Ed25519", &ed25519, Signing::by(&ed25519).btauth(post())),
        ("Epistula", &alice, Signing::by(&alice).epistula(post())),
        ("Epistula lite", &alice, Signing::by(&alice).epistula_lite(post())),
    ] {
        let answer = gateway.send(&request);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let received = upstream.only();
        assert_eq!(received.header("x-hotkey"), Some(signer.hotkey().as_str()), "{what}");
        assert_eq!(received.body, request.body, "{what}");
        assert_eq!(received.target, request.target, "{what}");
        for (name, value) in request.headers.iter().filter(|(name, _)| name != "X-Hotkey") {
            assert_eq!(received.header(name).map(str::as_bytes), Some(value.as_slice()), "{what}: {name}");
        }
    }
    for request in [Request::get("/signed"), Request::new("DELETE", "/signed/a%2Fb"), Request::new("HEAD", "/signed")] {
        assert_eq!(gateway.send(&Signing::by(&alice).btauth(request)).status, 200);
        assert_eq!(upstream.only().body, b"");
    }
    let hotkey = alice.hotkey();
    let line = gateway.logged(|line| line["proof"] == "epistula_lite");
    assert_eq!(
        (line["subject"].as_str(), line["decision"].as_str()),
        (Some(hotkey.as_str()), Some("permit")),
        "{line}"
    );
    nothing_is_held(&gateway);
}

#[test]
fn what_was_not_signed_so_goes_nowhere() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let (alice, stranger) = (Signer::alice(), Signer::sr25519("//Mallory"));
    let (small, long) = (Request::post("/signed", body(100)), Request::post("/signed", body(300 << 10)));
    let by = || Signing::by(&alice);
    let with_body = |request: Request, body: Vec<u8>| Request { body, ..request };
    let tampered = |length: usize| {
        let mut body = body(length);
        body[length / 2] ^= 1;
        body
    };
    let with_target = |request: Request, target: &str| Request { target: target.into(), ..request };
    let asked = "/signed?a=%20b";
    for (what, request, error) in [
        ("a tampered body", with_body(by().btauth(small.clone()), tampered(100)), "bad_signature"),
        ("a long tampered body", with_body(by().btauth(long.clone()), tampered(300 << 10)), "bad_signature"),
        ("Epistula's tampered body", with_body(by().epistula(long.clone()), tampered(300 << 10)), "bad_signature"),
        ("lite's tampered body", with_body(by().epistula_lite(small.clone()), tampered(100)), "bad_signature"),
        ("another query", with_target(by().btauth(Request::get(asked)), "/signed?a=%20c"), "bad_signature"),
        ("the same, normalised", with_target(by().btauth(Request::get(asked)), "/signed?a=+b"), "bad_signature"),
        ("another path", with_target(by().btauth(Request::get("/signed/x")), "/signed/%78"), "bad_signature"),
        ("another method", Request { method: "PUT".into(), ..by().btauth(small.clone()) }, "bad_signature"),
        ("somebody else's", by().receiver(Some(&alice.hotkey())).btauth(small.clone()), "wrong_receiver"),
        ("nobody's", by().receiver(None).btauth(small.clone()), "wrong_receiver"),
        ("nobody's by Epistula", by().receiver(Some("")).epistula(small.clone()), "wrong_receiver"),
        ("an old one", by().shifted(-61 * SECOND).btauth(small.clone()), "stale"),
        ("Epistula's old one", by().shifted(-61 * SECOND).epistula(small.clone()), "stale"),
        ("one of tomorrow", by().shifted(60 * SECOND).btauth(small.clone()), "from_the_future"),
        ("Epistula's of tomorrow", by().shifted(60 * SECOND).epistula(small.clone()), "from_the_future"),
        ("half", small.clone().header("X-Bittensor-Hotkey", alice.hotkey()), "malformed_signature_headers"),
        ("version 2", small.clone().header("X-Bittensor-Version", "2"), "unsupported_version"),
        ("twice", by().btauth(small.clone()).header("X-Bittensor-Crypto", "sr25519"), "malformed_signature_headers"),
    ] {
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.error().as_str()), (401, error), "{what}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("realm=") && challenge.contains(error), "{what}: {challenge}");
        assert_eq!(upstream.requests(), 0, "{what}");
    }
    let mut client = gateway.client();
    let signed = by().btauth(Request::post("/signed", body(5_000)));
    client.write(chunked(&with_body(signed, tampered(5_000)), 1_000));
    refused(&client.answer("POST"), 401, "bad_signature");

    refused(&gateway.send(&small), 401, "no_credential");
    refused(&gateway.send(&Signing::by(&stranger).btauth(small.clone())), 403, "not_entitled");
    gateway.logged(|line| line["reason"] == "hotkey_not_listed" && line["subject"] == stranger.hotkey().as_str());
    assert_eq!(upstream.requests(), 0);
    nothing_is_held(&gateway);
}

#[test]
fn only_registered_neurons_are_admitted_unless_the_route_says_otherwise() {
    let (upstream, pylon) = (Upstream::start(), Pylon::start());
    let (alice, stranger) = (Signer::alice(), Signer::sr25519("//Mallory"));
    let registered = |signer: &Signer| {
        let stakes = json!({"alpha": 1.0, "tao": 2.0, "total": 3.0});
        let hotkey = signer.hotkey();
        pylon.neurons(&json!({&hotkey: {"uid": 0, "hotkey": hotkey, "validator_permit": false, "stakes": stakes}}));
    };
    registered(&alice);
    let settings = Settings::file()
        .with(&format!("[signed_requests]\nreceiver = \"{GATEWAY}\"\nmax_skew = \"0s\"\n"))
        .with(&format!("[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n", upstream.address))
        .with("[[route]]\nname = \"signed\"\nupstream = \"miner\"\naccepts = [\"btauth\"]\n");
    let gateway = Gateway::start(pylon.configured(settings, "refresh = \"1s\"\n"));
    let ask = |signer: &Signer| gateway.send(&Signing::by(signer).btauth(Request::post("/x", body(10))));
    eventually("the table is there", || (ask(&alice).status == 200).then_some(()));
    let answer = ask(&stranger);
    refused(&answer, 403, "not_entitled");
    assert_eq!(answer.header("www-authenticate"), None);
    gateway.logged(|line| line["reason"] == "not_registered" && line["proof"] == "btauth");
    let requests = upstream.requests();
    registered(&stranger);
    eventually("the table follows the chain", || (ask(&alice).status == 403).then_some(()));
    assert_eq!(ask(&stranger).status, 200);
    assert!(upstream.requests() > requests);
    let remembered = gateway.metric("tollgate_replay_remembered", &[]);
    assert_eq!(ask(&alice).status, 403);
    assert_eq!(gateway.metric("tollgate_replay_remembered", &[]), remembered, "who may not call takes no room");
}

#[test]
fn a_request_is_admitted_once() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let alice = Signer::alice();
    let by = || Signing::by(&alice);
    let post = || Request::post("/signed", body(1_000));
    for request in [by().btauth(post()), by().epistula(post()), by().epistula_lite(post())] {
        assert_eq!(gateway.send(&request).status, 200);
        refused(&gateway.send(&request), 401, "replayed");
        assert_eq!(upstream.only().body, request.body);
    }
    // A refused signature uses nothing.
    let signed = by().btauth(post());
    refused(&gateway.send(&Request { body: body(999), ..signed.clone() }), 401, "bad_signature");
    assert_eq!(gateway.send(&signed).status, 200);
    upstream.only();

    let request = by().btauth(post());
    let answers = storm(gateway.http, &request, 100, 10);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert!(answers.iter().filter(|answer| answer.status != 200).all(|answer| answer.error() == "replayed"));
    assert_eq!(upstream.only().body, request.body);
    assert_eq!(gateway.metric("tollgate_replay_checks", &["new"]), 5);
    assert_eq!(gateway.metric("tollgate_replay_remembered", &[]), 5);
}

#[test]
fn bodies_of_every_length_arrive_whole() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.leaf(&["gate.test"]).write(directory.path(), "gate");
    let alice = Signer::alice();
    let (upstream, h2c) = (Upstream::start(), Upstream::h2c());
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // The first address refuses: the body goes to the second.
    let second = format!("[[upstream]]\nname = \"second\"\naddresses = [\"{dead}\", \"{}\"]\n", upstream.address);
    let http2 = format!("[[upstream]]\nname = \"http2\"\naddresses = [\"{}\"]\nhttp2 = \"always\"\n", h2c.address);
    let other = |name: &str| route(name, "\"btauth\"", &[alice.hotkey()]).replace("\"miner\"", &format!("{name:?}"));
    let settings = Settings::file().tls(&certificate, &key);
    let gateway = Gateway::start(
        settings
            .with(&format!(
                "[signed_requests]\nreceiver = \"{GATEWAY}\"\nmax_skew = \"0s\"\nmax_body_bytes = \"2MiB\"\n"
            ))
            .with(&format!("[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n{second}{http2}", upstream.address))
            .with(&route("miner", "\"btauth\"", &[alice.hotkey()]))
            .with(&other("second"))
            .with(&other("http2")),
    );
    let lengths = [0, 1, LONG - 2, LONG - 1, LONG, LONG + 1, 2 * LONG, 300 << 10, 2 << 20];
    let mut client = gateway.client();
    let config = authority.http2();
    let mut client2 = h2::Client::connect(gateway.tls, "gate.test", config);
    for (path, service) in [("/miner", &upstream), ("/second", &upstream), ("/http2", &h2c)] {
        for length in lengths {
            let what = format!("{path} {length}");
            let request = || Signing::by(&alice).btauth(Request::post(path, body(length)));
            let arrived = |answer: u16, over: &str| {
                assert_eq!(answer, 200, "{what} {over}");
                let received = service.only();
                assert!(received.complete, "{what} {over}");
                assert_eq!(
                    (received.body.len(), sha256(&received.body)),
                    (length, sha256(&body(length))),
                    "{what} {over}"
                );
            };
            arrived(client.send(&request()).status, "with a length");
            let answer = client2.send(builder(&request(), true), frames(length));
            arrived(answer.status, "with a length over HTTP/2");

            client.write(chunked(&request(), 10_000));
            let answer = client.answer("POST");
            if length < LONG {
                arrived(answer.status, "in chunks");
            } else {
                refused(&answer, 411, "length_required");
                client = gateway.client();
            }
            let answer = client2.send(builder(&request(), false), frames(length));
            if length < LONG {
                arrived(answer.status, "without a length over HTTP/2");
            } else {
                assert_eq!((answer.status, service.requests()), (411, 0), "{what}");
            }
        }
    }
    nothing_is_held(&gateway);
}

/// A request for the HTTP/2 client.
fn builder(request: &Request, length: bool) -> http::request::Builder {
    let url = format!("https://gate.test{}", request.target);
    let mut builder = http::Request::builder().method(request.method.as_str()).uri(url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value.as_slice());
    }
    if length { builder.header("content-length", request.body.len()) } else { builder }
}

fn frames(length: usize) -> Vec<Frame<Bytes>> {
    body(length).chunks(7_000).map(|piece| Frame::data(Bytes::copy_from_slice(piece))).collect()
}

#[test]
fn a_body_over_the_limit_is_not_waited_for() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(settings(&upstream, "max_body_bytes = 1000"));
    let alice = Signer::alice();
    let over = Signing::by(&alice).btauth(Request::post("/signed", body(1_001)));
    let mut client = gateway.client();
    client.write(head(&over));
    refused(&client.answer("POST"), 413, "body_too_large");
    let mut client = gateway.client();
    client.write(chunked(&over, 100));
    refused(&client.answer("POST"), 413, "body_too_large");
    assert_eq!(upstream.requests(), 0);
    // Elsewhere nothing is held.
    assert_eq!(gateway.send(&Request::post("/open", body(300 << 10))).status, 200);
    assert_eq!(upstream.only().body.len(), 300 << 10);
    let most = Signing::by(&alice).btauth(Request::post("/signed", body(1_000)));
    assert_eq!(gateway.send(&most).status, 200);
}

#[test]
fn a_body_that_does_not_come_in_time_is_stale() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(settings(&upstream, "max_age = \"4s\""));
    let alice = Signer::alice();
    let request = Signing::by(&alice).btauth(Request::post("/signed", body(10_000)));
    let mut client = gateway.client();
    let begun = Instant::now();
    client.write(head(&request));
    client.write(&request.body[..5_000]);
    eventually("half of it is held", || (gateway.metric("tollgate_held_body_bytes", &[]) == 5_000).then_some(()));
    let answer = client.answer("POST");
    refused(&answer, 401, "stale");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(begun.elapsed() >= Duration::from_secs(3), "not before its time");
    assert_eq!(upstream.requests(), 0);
    nothing_is_held(&gateway);
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let alice = Signer::alice();
    let request = Signing::by(&alice).btauth(Request::post("/signed", body(200_000)));
    let mut client = gateway.client();
    client.write(head(&request));
    client.write(&request.body[..100_000]);
    eventually("half of it is held", || (gateway.metric("tollgate_held_body_bytes", &[]) == 100_000).then_some(()));
    drop(client);
    nothing_is_held(&gateway);
    gateway.logged(|line| line["path"] == "/signed" && line["reason"] == "client_gone");
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.send(&request).status, 200, "it has not been used");
}

#[test]
fn held_bodies_share_a_bounded_memory() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(settings(&upstream, "max_body_bytes = \"200KiB\"\nmax_held_bytes = \"300KiB\""));
    let alice = Signer::alice();
    let by = || Signing::by(&alice).btauth(Request::post("/signed", body(200 << 10)));
    let first = by();
    let mut slow = gateway.client();
    slow.write(head(&first));
    slow.write(&first.body[..180_000]);
    eventually("it is held", || (gateway.metric("tollgate_held_body_bytes", &[]) == 180_000).then_some(()));
    let second = by();
    let answer = gateway.send(&second);
    refused(&answer, 503, "unavailable");
    assert!(answer.header("retry-after").is_some());
    gateway.logged(|line| line["reason"] == "body_memory_unavailable");
    slow.write(&first.body[180_000..]);
    assert_eq!(slow.answer("POST").status, 200);
    nothing_is_held(&gateway);
    assert_eq!(gateway.send(&second).status, 200);
    assert_eq!(upstream.requests(), 2);
}

#[test]
fn a_held_body_is_let_go_when_the_answer_begins() {
    let upstream = Upstream::start();
    let gate = Gate::closed();
    let parts = [Part::Data(b"first".to_vec()), Part::Wait(gate.clone()), Part::Data(b"last".to_vec())];
    upstream.on("/signed", Reply::parts(parts));
    let gateway = gateway(&upstream);
    let alice = Signer::alice();
    let request = Signing::by(&alice).btauth(Request::post("/signed", body(300 << 10)));
    let mut client = gateway.client();
    client.write(request.bytes());
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.chunk().unwrap(), b"first");
    nothing_is_held(&gateway);
    gate.open();
    assert_eq!(client.chunk().unwrap(), b"last");
}

#[test]
fn a_client_may_wait_for_leave_to_send() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let alice = Signer::alice();
    let by = || Signing::by(&alice);
    for length in [10, 300 << 10] {
        let request = by().btauth(Request::post("/signed", body(length)).header("Expect", "100-continue"));
        let mut client = gateway.client();
        client.write(head(&request));
        assert_eq!(client.head().unwrap().status, 100);
        assert_eq!(upstream.requests(), 0);
        client.write(&request.body);
        let answer = client.answer("POST");
        assert_eq!(answer.status, 200, "{}", answer.head);
        let received = upstream.only();
        assert_eq!((received.body.len(), received.header("expect")), (length, None));
    }
    // What is refused by its header is refused without the body, and what is refused by its body is refused after it.
    let request =
        by().shifted(-61 * SECOND).btauth(Request::post("/signed", body(10)).header("Expect", "100-continue"));
    let mut client = gateway.client();
    client.write(head(&request));
    refused(&client.answer("POST"), 401, "stale");
    let request = by().btauth(Request::post("/signed", body(10)).header("Expect", "100-continue"));
    let mut client = gateway.client();
    client.write(head(&request));
    assert_eq!(client.head().unwrap().status, 100);
    client.write(body(11).split_at(1).1);
    refused(&client.answer("POST"), 401, "bad_signature");
    // Who leaves after the leave has not been answered.
    let request = by().btauth(Request::post("/signed?gone", body(10)).header("Expect", "100-continue"));
    let mut client = gateway.client();
    client.write(head(&request));
    assert_eq!(client.head().unwrap().status, 100);
    drop(client);
    let line = gateway.logged(|line| line["reason"] == "client_gone");
    assert_eq!(line["status"], 0, "{line}");
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn what_follows_a_refused_request_is_a_request_of_its_own() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let alice = Signer::alice();
    let by = || Signing::by(&alice);
    // On a connection that is kept, one after the other.
    let mut client = gateway.client();
    for length in [10, 100_000] {
        let signed = by().btauth(Request::post("/signed", body(length)));
        let mut tampered = signed.clone();
        tampered.body[3] ^= 1;
        refused(&client.send(&tampered), 401, "bad_signature");
        assert_eq!(client.send(&signed).status, 200, "{length}");
        assert_eq!(upstream.only().body, signed.body);
    }
    // All at once: what comes behind is read as a request, or not at all.
    let smuggled = Request::post("/signed/smuggled", "x").bytes();
    let signed = by().btauth(Request::post("/signed", body(10)));
    for first in [Request { body: smuggled.clone(), ..signed.clone() }, Request { body: body(9), ..signed }] {
        let mut client = gateway.client();
        client.write([first.bytes(), smuggled.clone()].concat());
        refused(&client.answer("POST"), 401, "bad_signature");
        if let Ok(second) = client.try_answer("POST") {
            refused(&second, 401, "no_credential");
        }
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn an_upgrade_is_signed_like_any_request() {
    let upstream = Upstream::start();
    upstream.on("/ws", Reply::WebSocket);
    let alice = Signer::alice();
    let ws = route("ws", "\"btauth\"", &[alice.hotkey()]);
    let gateway = Gateway::start(
        Settings::file()
            .with(&format!("[signed_requests]\nreceiver = \"{GATEWAY}\"\nmax_skew = \"0s\"\n"))
            .with(&format!("[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n", upstream.address))
            .with(&ws),
    );
    let upgrade = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    refused(&gateway.send(&upgrade), 401, "no_credential");
    assert_eq!(upstream.requests(), 0);
    let mut client = gateway.client();
    client.write(Signing::by(&alice).btauth(upgrade).bytes());
    assert_eq!(client.head().unwrap().status, 101);
    for frame in ["\x01\x05hello", "any bytes at all"] {
        client.write(frame);
        assert_eq!(client.bytes(frame.len()), frame.as_bytes());
    }
    assert_eq!(upstream.only().header("x-hotkey"), Some(alice.hotkey().as_str()));
    client.finish();
}

#[test]
fn two_gateways_on_one_database_admit_a_request_once() {
    let (upstream, database) = (Upstream::start(), Database::fresh());
    let start = || Gateway::start(settings(&upstream, "").database(&format!("url = \"{}\"", database.url)));
    let gateways = [start(), start()];
    let alice = Signer::alice();
    let request = Signing::by(&alice).btauth(Request::post("/signed", body(1_000)));
    let answers = std::thread::scope(|scope| {
        let storms = gateways.each_ref().map(|gateway| scope.spawn(|| storm(gateway.http, &request, 100, 20)));
        storms.into_iter().flat_map(|storm| storm.join().unwrap()).collect::<Vec<_>>()
    });
    let mut counts = std::collections::BTreeMap::<_, usize>::new();
    for answer in &answers {
        let word = if answer.status == 200 { "admitted".to_owned() } else { answer.error() };
        *counts.entry(word).or_default() += 1;
    }
    assert_eq!(counts, [("admitted".to_owned(), 1), ("replayed".to_owned(), 199)].into());
    assert_eq!(upstream.only().body, request.body);
    let rows = database.rows("select count(*)::text, min(octet_length(id))::text from request_nonces");
    assert_eq!(rows, [[Some("1".to_owned()), Some("32".to_owned())]]);
}

#[test]
fn used_requests_outlive_the_gateway_where_they_are_in_the_database() {
    let upstream = Upstream::start();
    let alice = Signer::alice();
    let used = |gateway: &Gateway| {
        let request = Signing::by(&alice).epistula(Request::post("/signed", "x"));
        assert_eq!(gateway.send(&request).status, 200);
        request
    };
    let mut gateway = Gateway::start(settings(&upstream, "epistula_max_age = \"2m\"\nreplay = \"store\""));
    let request = used(&gateway);
    gateway.stop();
    gateway.restart();
    refused(&gateway.send(&request), 401, "replayed");
    drop(gateway);

    // In memory it is not known any more what was used before the start.
    let mut gateway = Gateway::start(settings(&upstream, "epistula_max_age = \"2m\""));
    let request = used(&gateway);
    gateway.stop();
    gateway.restart();
    refused(&gateway.send(&request), 503, "unavailable");
    gateway.logged(|line| line["reason"] == "replay_memory_unavailable");
    used(&gateway);
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn nobody_is_admitted_while_the_database_is_away() {
    let (upstream, mut cluster) = (Upstream::start(), Cluster::start());
    let database = format!("url = \"{}\"\ntimeout = \"1s\"", cluster.url());
    let mut gateway = Gateway::start(settings(&upstream, "").database(&database));
    gateway.expect_error("database");
    let alice = Signer::alice();
    let post = || Signing::by(&alice).btauth(Request::post("/signed", body(100)));
    assert_eq!(gateway.send(&post()).status, 200);
    cluster.stop();
    refused(&gateway.send(&post()), 503, "unavailable");
    gateway.logged(|line| line["reason"] == "store_unavailable");
    assert_eq!(gateway.send(&Request::get("/open")).status, 200, "others do not need it");
    assert_eq!(upstream.requests(), 2);
    cluster.again();
    eventually("it is there again", || (gateway.send(&post()).status == 200).then_some(()));
}

#[test]
fn a_reused_connection_that_breaks_is_tried_again_with_the_whole_body() {
    let upstream = Upstream::answering(|received| {
        let fine = format!("HTTP/1.1 200 Fine\r\nContent-Length: {}\r\n\r\n", received.body.len().to_string().len());
        Reply::raw(format!("{fine}{}", received.body.len()))
    });
    let gateway = gateway(&upstream);
    let alice = Signer::alice();
    for _ in 0..10 {
        let request =
            Signing::by(&alice).btauth(Request { method: "PUT".into(), ..Request::post("/signed", body(LONG)) });
        let answer = gateway.send(&request);
        assert_eq!((answer.status, answer.text()), (200, LONG.to_string()));
    }
    assert!(upstream.received().iter().all(|received| received.complete && received.body == body(LONG)));
}
