//! Nothing reaches an upstream that was not allowed to: every way around the decision that the replaced system had, and
//! every credential that is none.

use serde_json::{Value, json};
use tollgate::{jose::encrypt_compact, model::clock::Timestamp};

use super::support::{
    Gateway, IN_QUERY, Reply, Request, Settings, Token, Upstream, free_port,
    tls::Authority,
    token::{FAR, HOLDER, PLAN, SERVICE, good_claims, key, mint_json},
};

/// A gateway with a paid route, and a token for everything at the upstream.
fn paid(upstream: &Upstream) -> (Gateway, String) {
    let gateway = Gateway::start(Settings::file().paid(""));
    gateway.grant(&HOLDER, 1000);
    (gateway, Token::covering(upstream.everything()).mint())
}

#[test]
fn malformed_credentials_are_refused_and_never_taken_for_none() {
    let upstream = Upstream::start();
    let (gateway, good) = paid(&upstream);
    let parts: Vec<&str> = good.split('.').collect();
    let with = |index: usize, part: &str| {
        let mut parts = parts.clone();
        parts[index] = part;
        parts.join(".")
    };
    let flipped = |index: usize| {
        let part = parts[index];
        let first = if part.starts_with('A') { 'B' } else { 'A' };
        with(index, &format!("{first}{}", &part[1..]))
    };
    let other_header = |json: &str| {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        with(0, &URL_SAFE_NO_PAD.encode(json))
    };
    for (what, value) in [
        ("empty", String::new()),
        ("a scheme alone", "Bearer".to_owned()),
        ("a scheme and a space", "Bearer ".to_owned()),
        ("two spaces", format!("Bearer  {good}")),
        ("a tab", format!("Bearer\t{good}")),
        ("a word", "Bearer word".to_owned()),
        ("basic", "Basic dXNlcjpwYXNz".to_owned()),
        ("four parts", format!("Bearer {}", parts[..4].join("."))),
        ("six parts", format!("Bearer {good}.x")),
        ("an encrypted key", format!("Bearer {}", with(1, "AAAA"))),
        ("another tag", format!("Bearer {}", flipped(4))),
        ("another ciphertext", format!("Bearer {}", flipped(3))),
        ("another iv", format!("Bearer {}", flipped(2))),
        ("no tag", format!("Bearer {}", with(4, ""))),
        ("not base64", format!("Bearer {}", with(3, "!!!!"))),
        ("padding", format!("Bearer {good}==")),
        ("another algorithm", format!("Bearer {}", other_header(r#"{"alg":"RSA-OAEP","enc":"A128CBC-HS256"}"#))),
        ("another encryption", format!("Bearer {}", other_header(r#"{"alg":"dir","enc":"A256GCM"}"#))),
        ("compressed", format!("Bearer {}", other_header(r#"{"alg":"dir","enc":"A128CBC-HS256","zip":"DEF"}"#))),
        ("none", format!("Bearer {}", other_header(r#"{"alg":"none"}"#))),
        ("a signed token", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA".to_owned()),
        ("too long", format!("Bearer {}", "a.".repeat(12_000))),
        ("an upper-case token", format!("Bearer {}", good.to_uppercase())),
    ] {
        let answer = gateway.send(&Request::get("/x").header("Authorization", &value));
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert_eq!(answer.error(), "invalid_token", "{what}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(
            challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""),
            "{what}: {challenge}"
        );
    }
    for bytes in [b"Bearer \xc3\xa9.b".as_slice(), b"Bearer \xff"] {
        assert!(matches!(gateway.send(&Request::get("/x").header("Authorization", bytes)).status, 400 | 401));
    }
    let none = gateway.send(&Request::get("/x"));
    assert_eq!((none.status, none.error().as_str()), (401, "no_credential"));
    assert!(
        !none.header("www-authenticate").unwrap().contains("error"),
        "RFC 6750 §3: no code where nothing was presented"
    );
    assert_eq!(upstream.requests(), 0);
    // The scheme's word never mattered.
    for value in [format!("Bearer {good}"), format!("bearer {good}"), format!("foo {good}"), good.clone()] {
        assert_eq!(gateway.send(&Request::get("/x").header("Authorization", value)).status, 200);
    }
}

#[test]
fn two_authorization_headers_are_refused() {
    let upstream = Upstream::start();
    let (gateway, good) = paid(&upstream);
    for (first, second) in [(good.as_str(), good.as_str()), (&good, "other"), ("other", &good), ("", &good)] {
        let request = Request::get("/x").header("Authorization", format!("Bearer {first}"));
        let answer = gateway.send(&request.header("authorization", format!("Bearer {second}")));
        assert_eq!((answer.status, answer.error().as_str()), (400, "two_credentials"));
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn claims_that_are_none_are_refused() {
    let upstream = Upstream::start();
    let (gateway, _) = paid(&upstream);
    let endpoint = upstream.everything();
    let spoiled = |spoil: &dyn Fn(&mut Value)| {
        let mut claims = good_claims(&endpoint);
        spoil(&mut claims);
        mint_json(&claims, &key())
    };
    let set = |name: &'static str, value: Value| spoiled(&move |claims| claims[name] = value.clone());
    let without = |name: &'static str| spoiled(&move |claims| drop(claims.as_object_mut().unwrap().remove(name)));
    for (what, token) in [
        ("no did", without("did")),
        ("no plan", without("subscriptionDid")),
        ("no user", without("userId")),
        ("no endpoints", without("endpoints")),
        ("no headers", without("headers")),
        ("old headers", set("headers", json!([{"authorization": "Bearer x"}]))),
        ("a did that is none", set("did", json!("did:nv:11"))),
        ("a user that is none", set("userId", json!("0x12"))),
        ("a wrong checksum", set("userId", json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293bC"))),
        ("endpoints that are no list", set("endpoints", json!(endpoint))),
        ("a time that is text", set("exp", json!("4102444800"))),
        (
            "a line break in the credential",
            set("headers", json!({"authentication": {"type": "bearer", "token": "a\r\nX: y"}})),
        ),
        ("an array", mint_json(&json!([]), &key())),
        ("no JSON", super::support::secret(encrypt_compact(b"{", &key()).unwrap())),
    ] {
        let answer = gateway.send(&Request::get("/x").token(&token));
        assert_eq!((answer.status, answer.error().as_str()), (401, "invalid_token"), "{what}");
    }
    for (what, token, error) in [
        ("expired", set("exp", json!(1_700_000_000)), "expired"),
        ("not yet valid", set("nbf", json!(FAR.0)), "invalid_token"),
    ] {
        let answer = gateway.send(&Request::get("/x").token(&token));
        assert_eq!((answer.status, answer.error().as_str()), (401, error), "{what}");
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.send(&Request::get("/x").token(&without("exp"))).status, 200, "a token without an end has none");
}

#[test]
fn a_token_is_looked_at_again_every_time() {
    let upstream = Upstream::start();
    let (gateway, _) = paid(&upstream);
    let soon = Timestamp::now().plus(std::time::Duration::from_secs(2));
    let token = Token::covering(upstream.everything()).expiring(soon).mint();
    let mut client = gateway.client();
    assert_eq!(client.send(&Request::get("/x").token(&token)).status, 200);
    super::support::eventually("it has expired", || {
        let answer = client.send(&Request::get("/x").token(&token));
        (answer.status == 401 && answer.error() == "expired").then_some(())
    });
}

#[test]
fn only_what_an_endpoint_covers_is_forwarded() {
    let upstream = Upstream::start();
    let (gateway, _) = paid(&upstream);
    let token = Token::covering(upstream.url("/x/(.*)"))
        .and(upstream.url("/exact"))
        .and("http://[not a url")
        .and(upstream.url("/users/:id"))
        .mint();
    for (path, covered) in [
        ("/x/", true),
        ("/x/a", true),
        ("/X/a", true),
        ("/exact", true),
        ("/exact/", true),
        ("/users/5", true),
        ("/x/a%2Fb", true),
        ("/", false),
        ("/x", false),
        ("/y", false),
        ("/exact/more", false),
        ("/users/5/6", false),
        ("//x/a", false),
        ("/admin", false),
    ] {
        let answer = gateway.send(&Request::get(path).token(&token));
        let expected = if covered { 200 } else { 403 };
        assert_eq!(answer.status, expected, "{path}: {}", answer.text());
        if covered {
            assert_eq!(upstream.only().target, path);
        }
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn a_path_with_two_readings_is_refused() {
    let upstream = Upstream::start();
    let (gateway, _) = paid(&upstream);
    let token = Token::covering(upstream.url("/x/(.*)")).mint();
    for path in [
        "/x/../admin",
        "/x/..",
        "/x/./a",
        "/x/%2e%2e/admin",
        "/x/.%2e/admin",
        "/x/%2E%2E/admin",
        "/x/..%2fadmin",
        "/x/..%2Fadmin",
        "/x/%2e%2e%2fadmin",
        "/x/..;/admin",
        "/x/..;a=b/admin",
        "/x/%252e%252e/admin",
        "/x/..%252fadmin",
        "/x/..%5cadmin",
        "/x/..\\admin",
        "/x/a%0d%0aX-Inj:%201",
        "/x/a%0a",
        "/x/a%00b",
        "/x/a%7f",
        "/x/%zz",
        "/x/%",
        "/x/%4",
        "/x/a\tb",
        "/x/a\x7fb",
    ] {
        let answer = gateway.send(&Request::get(path).token(&token));
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(upstream.requests(), 0, "{path}");
    }
    // What has one reading is sent as it was read: a raw space as an escape, and without a fragment.
    for (path, forwarded) in
        [("/x/a%3Fz=1", "/x/a%3Fz=1"), ("/x/a%23z", "/x/a%23z"), ("/x/a#frag", "/x/a"), ("/x/a /b", "/x/a%20/b")]
    {
        assert_eq!(gateway.send(&Request::get(path).token(&token)).status, 200);
        assert_eq!(upstream.only().target, forwarded);
    }
}

#[test]
fn nobody_can_lower_the_scheme_of_the_upstream() {
    let authority = Authority::new();
    let secure = Upstream::tls(authority.leaf(&["127.0.0.1"]).server(&["http/1.1"]));
    let directory = tempfile::tempdir().unwrap();
    let ca = authority.write(directory.path());
    let gateway = Gateway::start(
        Settings::file()
            .egress(&format!("extra_ca = \"{}\"", ca.display()))
            .server("trusted_proxies = [\"127.0.0.0/8\"]")
            .paid(""),
    );
    gateway.grant(&HOLDER, 1000);
    let token = Token::covering(secure.everything()).mint();
    for proto in ["http", "https", "HTTP", "ftp", "httpfoo", "https,http", ""] {
        let answer = gateway.send(&Request::get("/x").token(&token).header("X-Forwarded-Proto", proto));
        assert_eq!(answer.status, 200, "{proto}: {}", answer.text());
    }
    assert_eq!(secure.received().len(), 7, "all of them came by TLS, or this server would not have understood them");
}

#[test]
fn an_upstream_cannot_steer_the_gateway() {
    let upstream = Upstream::answering(|_| {
        Reply::ok("mine")
            .header("X-Accel-Redirect", "/introspect")
            .header("X-Accel-Buffering", "no")
            .header("X-Sendfile", "/etc/passwd")
            .header("Proxy-Authenticate", "Basic")
    });
    let (gateway, token) = paid(&upstream);
    let answer = gateway.send(&Request::get("/x").token(&token));
    assert_eq!((answer.status, answer.text().as_str()), (200, "mine"));
    for name in ["x-accel-redirect", "x-accel-buffering", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None);
    }
}

#[test]
fn nobody_can_say_who_they_are_by_a_header() {
    let upstream = Upstream::start();
    let (gateway, token) = paid(&upstream);
    let evil = "0xEvil";
    for name in [
        "NVM-User-id",
        "nvm-user-id",
        "NVM_USER_ID",
        "NVM_User-id",
        "nvm-scope",
        "NVM-Owner",
        "nvm_owner",
        "X-Real-IP",
        "X_Real_IP",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "Forwarded",
        "X-Request-Id",
        "X-Hotkey",
        "X_HOTKEY",
    ] {
        let request = Request::get("/x").token(&token).header(name, evil).header(name, evil);
        let answer = gateway.send(&request);
        assert_eq!(answer.status, 200, "{name}");
        let received = upstream.only();
        assert!(!String::from_utf8_lossy(&received.head).contains(evil), "{name}: {:?}", received.headers);
        assert_eq!(received.header("nvm-user-id"), Some(HOLDER.checksummed().as_str()), "{name}");
    }
    // Naming a header in Connection would have the next hop drop ours.
    for named in ["nvm-user-id", "NVM-User-id, NVM-Scope", "close, nvm-owner", "authorization", "x-real-ip"] {
        let answer = gateway.send(&Request::get("/x").token(&token).header("Connection", named));
        if answer.status == 400 {
            continue;
        }
        assert_eq!(answer.status, 200, "{named}: {}", answer.text());
        let received = upstream.only();
        for (name, value) in [
            ("nvm-user-id", HOLDER.checksummed()),
            ("nvm-scope", SERVICE.to_string()),
            ("authorization", "Bearer svc-secret".to_owned()),
        ] {
            assert_eq!(received.header(name), Some(value.as_str()), "{named}: {:?}", received.headers);
        }
        assert!(received.header("x-real-ip").is_some(), "{named}");
        assert_eq!(received.header("connection"), None, "{named}");
    }
    // On an open route nobody is anybody.
    drop(gateway);
    let gateway = Gateway::start(Settings::file().open(upstream.address, ""));
    gateway.send(&Request::get("/x").header("NVM-User-id", evil).header("nvm_scope", evil));
    let received = upstream.only();
    assert!(!String::from_utf8_lossy(&received.head).contains(evil), "{:?}", received.headers);
}

#[test]
fn the_clients_own_token_never_reaches_the_upstream() {
    let upstream = Upstream::start();
    let (gateway, token) = paid(&upstream);
    gateway.send(&Request::get(&format!("/x?{IN_QUERY}")).token(&token));
    assert!(!String::from_utf8_lossy(&upstream.only().head).contains(&token));
}

#[test]
fn upgrades_and_unusual_methods_are_authorised_like_everything() {
    let upstream = Upstream::start();
    let (gateway, token) = paid(&upstream);
    for (method, headers) in [
        ("GET", vec![("Connection", "Upgrade"), ("Upgrade", "websocket")]),
        (
            "GET",
            vec![
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("Upgrade", "h2c"),
                ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
            ],
        ),
        ("OPTIONS", vec![]),
        ("OPTIONS", vec![("Origin", "https://page.example"), ("Access-Control-Request-Method", "POST")]),
        ("HEAD", vec![]),
        ("FOO", vec![]),
        ("DELETE", vec![]),
        ("PROPFIND", vec![]),
    ] {
        let request =
            headers.iter().fold(Request::new(method, "/x"), |request, (name, value)| request.header(name, value));
        assert_eq!(gateway.send(&request).status, 401, "{method} {headers:?}");
        assert_eq!(upstream.requests(), 0, "{method}");
    }
    assert_eq!(gateway.send(&Request::new("FOO", "/x").token(&token)).status, 200);
    assert_eq!(upstream.only().method, "FOO");
}

#[test]
fn a_preflight_is_answered_where_the_route_says_so() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid(
        "[[route]]\nname = \"pages\"\npath = \"/pages\"\nupstream = \"token\"\n[route.cors]\nallow_origins = [\"https://page.example\"]\nallow_credentials = true\nexpose_headers = [\"NVMCreditsConsumed\"]\n",
    ));
    gateway.grant(&HOLDER, 10);
    let preflight = |origin: &str| {
        Request::new("OPTIONS", "/pages/x")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "PUT")
            .header("Access-Control-Request-Headers", "authorization,x-y")
    };
    let answer = gateway.send(&preflight("https://page.example"));
    assert_eq!(answer.status, 204, "{}", answer.text());
    for (name, value) in [
        ("access-control-allow-origin", "https://page.example"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "authorization,x-y"),
        ("access-control-allow-credentials", "true"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{}", answer.head);
    }
    let stranger = gateway.send(&preflight("https://evil.example"));
    assert_eq!(stranger.header("access-control-allow-origin"), None);
    assert_eq!(upstream.requests(), 0);
    // A page may read what it is refused.
    let refused = gateway.send(&Request::get("/pages/x").header("Origin", "https://page.example"));
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://page.example"));
    // Any OPTIONS that asks no such question is a request.
    assert_eq!(gateway.send(&Request::new("OPTIONS", "/pages/x")).status, 401);
}

#[test]
fn upstreams_of_tokens_must_be_public_unless_allowed() {
    let upstream = Upstream::start();
    let port = upstream.address.port();
    let gateway = Gateway::start(Settings::file().nothing_allowed().paid(""));
    gateway.grant(&HOLDER, 1000);
    for origin in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://127.1.2.3:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://0.0.0.0:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0x7f.1:{port}"),
        "http://169.254.169.254".to_owned(),
        "http://10.0.0.1".to_owned(),
        "http://[fe80::1]".to_owned(),
        "http://[fd00::1]".to_owned(),
    ] {
        let token = Token::covering(format!("{origin}/(.*)")).mint();
        let answer = gateway.send(&Request::get("/latest/meta-data").token(&token));
        assert_eq!((answer.status, answer.error().as_str()), (502, "upstream_failed"), "{origin}");
    }
    assert_eq!((upstream.requests(), upstream.connections()), (0, 0));
    assert!(gateway.metric("tollgate_upstream_errors_total", &["forbidden_address"]) >= 12);
    assert!(gateway.usage().iter().all(|row| row["charged"] == 0));
}

#[test]
fn an_upstream_the_operator_names_needs_no_leave() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().nothing_allowed().open(upstream.address, ""));
    assert_eq!(gateway.send(&Request::get("/")).status, 200);
}

#[test]
fn an_upstreams_certificate_is_verified() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let ca = known.write(directory.path());
    let good = Upstream::tls(known.leaf(&["127.0.0.1", "localhost"]).server(&["h2", "http/1.1"]));
    let wrong_name = Upstream::tls(known.leaf(&["other.example"]).server(&["h2", "http/1.1"]));
    let stranger = Upstream::tls(unknown.leaf(&["127.0.0.1"]).server(&["h2", "http/1.1"]));
    let gateway = Gateway::start(Settings::file().egress(&format!("extra_ca = \"{}\"", ca.display())).paid(""));
    gateway.grant(&HOLDER, 1000);
    let named = good.everything().replace("127.0.0.1", "localhost");
    for (what, endpoint, status) in [
        ("a known authority, by address", good.everything(), 200),
        ("a known authority, by name", named, 200),
        ("another name", wrong_name.everything(), 502),
        ("an unknown authority", stranger.everything(), 502),
    ] {
        let answer = gateway.send(&Request::get("/x").token(&Token::covering(endpoint).mint()));
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
    }
    assert_eq!((wrong_name.requests(), stranger.requests()), (0, 0));
    assert!(gateway.metric("tollgate_upstream_errors_total", &["kind=\"tls\""]) >= 2);
}

#[test]
fn a_static_route_takes_the_tokens_of_its_services_alone() {
    let upstream = Upstream::start();
    let (id, plan) = (SERVICE, PLAN);
    let gateway = Gateway::start(Settings::file().with(&format!(
        "[[service]]\nid = \"{id}\"\nplan = \"{plan}\"\n[[service]]\nid = \"{plan}\"\nplan = \"{plan}\"\n\
         [[upstream]]\nname = \"fixed\"\naddresses = [\"{}\"]\n\
         [[route]]\nname = \"fixed\"\nupstream = \"fixed\"\naccepts = [\"nevermined\"]\nservices = [\"{id}\"]\n",
        upstream.address
    )));
    gateway.grant(&HOLDER, 10);
    let elsewhere = format!("http://127.0.0.1:{}/(.*)", free_port());
    let token = Token::covering(elsewhere.clone()).mint();
    assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 200);
    let received = upstream.only();
    assert_eq!(received.header("nvm-user-id"), Some(HOLDER.checksummed().as_str()));
    let other = Token::covering(elsewhere).service(PLAN).mint();
    assert_eq!(gateway.send(&Request::get("/x").token(&other)).status, 403);
    assert_eq!(gateway.send(&Request::get("/x")).status, 401);
    assert_eq!(upstream.requests(), 0);
}
