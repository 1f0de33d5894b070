//! What an operator sees: health, readiness, metrics, logs, and the end.

use rustix::process::Signal;
use serde_json::Value;

use super::support::{
    Gate, Gateway, IN_QUERY, Part, Reply, Request, Settings, Token, Upstream, client, eventually, token::HOLDER,
};

#[test]
fn health_readiness_and_metrics_are_answered() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().open(upstream.address, ""));
    gateway.send(&Request::get("/"));
    for (path, body) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = gateway.admin(path).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, body));
    }
    assert_eq!(gateway.admin("/other").unwrap().status, 404);
    let output = gateway.command().arg("health").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let answer = gateway.admin("/metrics").unwrap();
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    let text = answer.text();
    let sample = regex::Regex::new(r#"^[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? ([0-9.e+-]+|NaN|\+Inf)$"#).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(sample.is_match(line), "{line}");
    }
    eventually("the request is counted", || {
        (gateway.metric("tollgate_requests_total", &["route=\"open\"", "2xx"]) == 1).then_some(())
    });
}

#[test]
fn an_access_log_line_is_json_whatever_the_url_holds() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().open(upstream.address, ""));
    let mut sent = 0;
    for byte in 1..=255_u8 {
        if matches!(byte, b'\r' | b'\n') {
            continue;
        }
        let mut client = gateway.client();
        let mut bytes = b"GET /a".to_vec();
        bytes.push(byte);
        bytes.extend_from_slice(
            format!("z?{IN_QUERY} HTTP/1.1\r\nHost: h\"\\x\r\nUser-Agent: \"}}\\\r\n\r\n").as_bytes(),
        );
        client.write(bytes);
        let status = client.answer("GET").status;
        assert!(matches!(status, 200 | 400), "{byte}: {status}");
        sent += usize::from(status == 200);
    }
    for path in ["/%22%5C%0d%0a", "/%e2%80%a8", "/\"},{\"forged\":\"yes\"", "/%00"] {
        gateway.send(&Request::get(path));
    }
    // `access_log` parses every line.
    eventually("all lines are there", || (gateway.access_log().len() > sent).then_some(()));
    for line in gateway.access_log() {
        assert_eq!(line["forged"], Value::Null, "{line}");
        for field in ["time", "request_id", "listener", "route", "method", "path", "decision", "status", "duration_us"]
        {
            assert_ne!(line[field], Value::Null, "{field}: {line}");
        }
    }
}

#[test]
fn an_access_log_line_says_who_what_and_how_much() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid("charge = \"dynamic\"\nmaximum = 9"));
    gateway.grant(&HOLDER, 9);
    let token = Token::covering(upstream.everything()).mint();
    upstream.on("/x", Reply::ok("12345").credits("4"));
    let answer = gateway.send(&Request::post(&format!("/x?{IN_QUERY}"), "123").token(&token).host("shop.example"));
    let id = answer.header("x-request-id").unwrap().to_owned();
    let line = gateway.logged(|line| line["request_id"] == *id);
    for (field, value) in [
        ("listener", "plain"),
        ("route", "paid"),
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "shop.example"),
        ("path", "/x"),
        ("decision", "permit"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    for (field, value) in
        [("status", 200), ("upstream_status", 200), ("charged", 4), ("bytes_sent", 5), ("bytes_received", 3)]
    {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(line["subject"].as_str().unwrap().to_lowercase(), HOLDER.to_string().to_lowercase());
}

#[test]
fn told_to_stop_it_finishes_what_is_in_flight() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Settings::file().paid(""));
    gateway.grant(&HOLDER, 9);
    let token = Token::covering(upstream.everything()).mint();
    let (waiting, streaming) = (Gate::closed(), Gate::closed());
    upstream.on("/waiting", Reply::after(&waiting, Reply::ok("served")));
    upstream.on(
        "/streaming",
        Reply::parts([Part::Data(b"one".to_vec()), Part::Wait(streaming.clone()), Part::Data(b"two".to_vec())]),
    );
    let mut idle = gateway.client();
    assert_eq!(idle.send(&Request::get("/x").token(&token)).status, 200);
    let mut first = gateway.client();
    first.write(Request::get("/waiting").token(&token).bytes());
    let mut second = gateway.client();
    second.write(Request::get("/streaming").token(&token).bytes());
    let head = second.head().unwrap();
    assert_eq!(second.chunk().unwrap(), b"one");
    eventually("both are on their way", || (upstream.requests() == 3).then_some(()));

    gateway.signal(Signal::TERM);
    eventually("it says that it is stopping", || gateway.admin("/readyz").filter(|answer| answer.status == 503));
    waiting.open();
    assert_eq!(first.answer("GET").text(), "served");
    streaming.open();
    assert_eq!(second.chunk().unwrap(), b"two");
    assert_eq!(second.chunk().unwrap(), b"");
    let status = gateway.wait();
    assert!(status.success(), "{status}");
    let usage = gateway.usage();
    assert_eq!(usage.len(), 3, "what was served is in the store when it ends");
    let id = head.header("x-request-id").unwrap();
    assert!(usage.iter().any(|row| row["request_id"] == id));
    assert!(gateway.log().iter().any(|line| line.contains("stopped")));
}

#[test]
fn idle_connections_do_not_delay_the_end() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Settings::file().open(upstream.address, ""));
    let mut idle = gateway.client();
    assert_eq!(idle.send(&Request::get("/")).status, 200);
    let begun = std::time::Instant::now();
    assert!(gateway.stop().success());
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn a_port_that_is_taken_stops_the_start() {
    let upstream = Upstream::start();
    let gateway = Gateway::prepare(Settings::file().open(upstream.address, ""));
    let taken = std::net::TcpListener::bind(gateway.http).unwrap();
    let output = gateway.command().arg("serve").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains(&taken.local_addr().unwrap().to_string()) && message.contains("\"plain\""), "{message}");
}

#[test]
fn too_many_connections_are_turned_away() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().server("max_connections = 3").open(upstream.address, ""));
    let mut held: Vec<client::Client> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut held {
        assert_eq!(client.send(&Request::get("/")).status, 200);
    }
    let mut fourth = gateway.client();
    let _ = fourth.try_write(Request::get("/").bytes());
    assert!(fourth.try_answer("GET").is_err());
    assert_eq!(gateway.metric("tollgate_connections_refused_total", &["too_many"]), 1);
    held.clear();
    eventually("there is room again", || {
        let mut client = gateway.client();
        client.try_write(Request::get("/").bytes()).ok()?;
        client.try_answer("GET").ok()
    });
}
