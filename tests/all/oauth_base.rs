//! The authorization server's ground: listeners, keys, limits, the command line.

use serde_json::{Value, json};

use crate::support::{
    Reply, Request, Settings, Upstream,
    database::Database,
    eventually,
    gateway::Gateway,
    h2,
    oauth::{ADMIN_KEY, Server, data, settings},
    tls::Authority,
};

#[test]
fn without_an_admin_key_nobody_is_an_administrator() {
    let server = Server::start(settings().unset("ADMIN_API_KEY").variable("RATE_LIMIT_GLOBAL", "1000"));
    for key in ["", ADMIN_KEY, "undefined"] {
        let answer = server.send(&Request::get("/v1/admin/clients").header("X-Admin-API-Key", key));
        assert_eq!(answer.status, 401, "{key}");
    }
}

#[test]
fn the_admin_port_has_the_admin_api_alone() {
    let port = crate::support::free_port();
    let server = Server::start(settings().variable("ADMIN_PORT", port.to_string()));
    assert_eq!(server.admin("GET", "/v1/admin/clients", None).status, 404);
    let ask = |path: &str| {
        let mut client = crate::support::Client::connect(crate::support::loopback(port));
        client.send(&Request::get(path).header("X-Admin-API-Key", ADMIN_KEY).header("Connection", "close")).status
    };
    for path in ["/v1/admin/clients", "/.well-known/openid-configuration", "/v1/discovery/scope-config"] {
        assert_eq!(ask(path), 200, "{path}");
    }
    assert_eq!(ask("/health"), 503, "there, and without a chain");
    assert_eq!(ask("/v1/nothing"), 404);
}

#[test]
fn the_address_behind_a_trusted_proxy_is_what_is_limited() {
    let server = Server::start(settings().variable("RATE_LIMIT_GLOBAL", "3").variable("TRUST_PROXY", "127.0.0.0/8"));
    let ask = |address: &str| {
        let request = Request::get("/v1/admin/clients").header("X-Admin-API-Key", ADMIN_KEY);
        server.send(&request.header("X-Forwarded-For", address)).status
    };
    let statuses: Vec<u16> = (0..7).map(|_| ask("198.51.100.1")).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask("198.51.100.2"), 200);

    let trusting = Server::start(settings().variable("RATE_LIMIT_GLOBAL", "3"));
    let statuses: Vec<u16> = (0..7)
        .map(|number| {
            let request = Request::get("/v1/admin/clients").header("X-Admin-API-Key", ADMIN_KEY);
            trusting.send(&request.header("X-Forwarded-For", format!("198.51.100.{number}"))).status
        })
        .collect();
    assert!(statuses.contains(&429), "a header chose the address: {statuses:?}");
}

#[test]
fn pages_of_active_clients_may_read_answers() {
    for server in Server::on_both(&settings().variable("NODE_ENV", "production")) {
        let preflight = |origin: &str| {
            let request = Request::new("OPTIONS", "/v1/admin/clients").header("Origin", origin);
            server.send(
                &request
                    .header("Access-Control-Request-Method", "POST")
                    .header("Access-Control-Request-Headers", "content-type"),
            )
        };
        assert_eq!(preflight("https://app.example").status, 404);
        let client = server.register(&json!({
            "client_name": "x", "client_type": "public", "redirect_uris": ["https://app.example/cb"],
            "allowed_origins": ["https://app.example"],
        }));
        let answer = preflight("https://app.example");
        assert_eq!(answer.status, 204, "a new client's origin counts at once");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("content-type"));
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET,HEAD,POST"));
        let read = server.send(&Request::get("/.well-known/jwks.json").header("Origin", "https://app.example"));
        assert_eq!((read.status, read.header("vary")), (200, Some("Origin")));
        for origin in [
            "https://evil.example",
            "https://app.example.evil.example",
            "http://app.example",
            "null",
            "http://localhost:3000",
        ] {
            let answer = server.send(&Request::get("/.well-known/jwks.json").header("Origin", origin));
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{origin}");
            assert_eq!(preflight(origin).status, 404, "{origin}");
        }
        server.admin("DELETE", &format!("/v1/admin/clients/{}", client["client_id"].as_str().unwrap()), None);
        eventually("the origin is forgotten", || (preflight("https://app.example").status == 404).then_some(()));
    }
    let development = Server::start(settings());
    let answer = development.send(&Request::get("/.well-known/jwks.json").header("Origin", "http://localhost:5173"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:5173"));
}

#[test]
fn it_starts_only_with_a_key_that_it_can_use() {
    let gateway = |settings| Gateway::prepare(settings);
    let fails = |gateway: &Gateway, text: &str| {
        let output = gateway.command().arg("serve").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(text), "{text}: {said}");
        assert!(!said.contains("BEGIN"), "{said}");
    };
    let path = |name: &str| data(name).to_str().unwrap().to_owned();
    fails(&gateway(settings().variable("RSA_PRIVATE_KEY_PATH", path("rsa1024.pem"))), "at least 2048 bits");
    fails(
        &gateway(settings().variable("RSA_PRIVATE_KEY_PATH", path("p256.pem"))),
        "the public key is not the private key's",
    );
    fails(&gateway(settings().variable("RSA_PRIVATE_KEY_PATH", path("rsa.pub.pem"))), "no private key");
    fails(&gateway(settings().unset("RSA_PRIVATE_KEY_PATH")), "there is no signing key");
    fails(&gateway(settings().variable("TOLLGATE_SIGNING_KEYS", "/nowhere")), "tollgate key generate");
}

#[test]
fn beside_services_it_answers_on_its_own_routes_in_both_versions_of_http() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.leaf(&["gate.test"]).write(directory.path(), "gate");
    let keys = directory.path().join("keys");
    let upstream = Upstream::start();
    upstream.on("/service", Reply::ok("a service"));
    upstream.on("/v1/other", Reply::ok("another host"));
    let sections = format!(
        "[oauth]\npublic_url = \"https://gate.test\"\nsigning_keys = {keys:?}\nadmin_key = \"{ADMIN_KEY}\"\n\
         [[route]]\nname = \"sign-in\"\nhosts = [\"gate.test\"]\npath = \"/v1\"\nupstream = \"authorization-server\"\n\
         [[route]]\nname = \"metadata\"\npath = \"/.well-known\"\nupstream = \"authorization-server\"\n"
    );
    let settings = Settings::file().tls(&certificate, &key).with(&sections).open(upstream.address, "");
    let mut gateway = Gateway::prepare(settings);
    gateway.cli(&["key", "generate", "--algorithm", "ES256"]);
    gateway.launch();
    gateway.ready();

    let mut h2 = h2::Client::connect(gateway.tls, "gate.test", authority.http2());
    let answer = h2.get("https://gate.test/.well-known/oauth-authorization-server", None);
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &document["issuer"]), (200, &json!("https://gate.test")));
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let body = json!({ "client_name": "x", "client_type": "public", "redirect_uris": ["https://app.example/cb"] });
    let request = http::Request::post("https://gate.test/v1/admin/clients")
        .header("x-admin-api-key", ADMIN_KEY)
        .header("content-type", "application/json");
    let text = body.to_string();
    let (first, rest) = text.split_at(20);
    let frames = [first, rest].map(|part| hyper::body::Frame::data(bytes::Bytes::from(part.to_owned())));
    assert_eq!(h2.send(request, frames.into()).status, 201);

    // The same connection may be used again after an answer of ours, and a client may wait for leave to send.
    let mut client = gateway.client();
    let waiting = Request { body: Vec::new(), ..Request::post("/v1/admin/clients", text.clone()) };
    let head = Request { length: false, ..waiting }
        .header("Content-Length", text.len().to_string())
        .header("Content-Type", "application/json")
        .header("X-Admin-API-Key", ADMIN_KEY)
        .header("Expect", "100-continue");
    client.write(head.bytes());
    assert_eq!(client.head().unwrap().status, 100);
    client.write(&text);
    assert_eq!(client.answer("POST").status, 201);
    let chunked = Request { length: false, body: Vec::new(), ..Request::post("/v1/admin/clients", "") }
        .header("Transfer-Encoding", "chunked")
        .header("Content-Type", "application/json")
        .header("X-Admin-API-Key", ADMIN_KEY);
    client.write(chunked.bytes());
    client.write(format!("5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &text[..5], text.len() - 5, &text[5..]));
    assert_eq!(client.answer("POST").status, 201);
    let known = client.send(&Request::get("/.well-known/jwks.json?query"));
    assert_eq!((known.status, known.json()["keys"][0]["alg"].as_str()), (200, Some("ES256")));
    let head = client.send(&Request::new("HEAD", "/.well-known/jwks.json"));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(client.send(&Request::get("/service")).text(), "a service");
    assert_eq!(client.send(&Request::get("/v1/other").host("other.test")).text(), "another host");

    // Nobody else says who is calling; a name in another case and dots in a path are seen through.
    let answer = client.send(&Request::get("/v1/./admin/../admin/clients").header("X-Admin-API-Key", ADMIN_KEY));
    assert_eq!(answer.status, 400, "{}", answer.text());
    let line = gateway.logged(|line| line["route"] == "sign-in" && line["status"] == 201);
    assert_eq!((&line["method"], &line["path"]), (&json!("POST"), &json!("/v1/admin/clients")));

    // What it counts is where the proxy's own numbers are.
    let counted = |labels: &[&str]| gateway.metric("tollgate_oauth_request_seconds_count", labels);
    assert!(counted(&["\"/v1/admin/clients\"", "\"2xx\""]) >= 3 && counted(&["\"/.well-known/jwks.json\""]) == 2);

    // Too long, with and without saying so: refused, and the connection is not used again.
    let mut client = gateway.client();
    let request = Request::post("/v1/admin/clients", "x".repeat(70_000)).header("Content-Type", "application/json");
    let answer = client.send(&request.header("X-Admin-API-Key", ADMIN_KEY));
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["error"], "Payload Too Large");
}

#[test]
fn what_makes_no_sense_about_it_is_said_before_it_starts() {
    let route = "[[route]]\nname = \"a\"\nupstream = \"authorization-server\"\n";
    let oauth = "[oauth]\npublic_url = \"https://auth.example\"\n";
    for (sections, message) in [
        (route.to_owned(), "needs an [oauth] section"),
        (oauth.to_owned(), "needs a [[route]] with `upstream = \"authorization-server\"`"),
        (format!("[oauth]\n{route}"), "oauth.public_url"),
        (format!("[oauth]\npublic_url = \"http://auth.example\"\n{route}"), "https:// in production"),
        (format!("{oauth}issuer = \"https://other.example\"\n{route}"), "must be the public URL"),
        (format!("{oauth}{route}accepts = [\"nevermined\"]\n"), "has no effect with"),
        (format!("{oauth}{route}max_body_bytes = \"1MiB\"\n"), "has no effect with"),
        (format!("{oauth}{route}forward = true\n"), "has no effect with"),
        (format!("{oauth}{route}[route.cors]\n"), "has no effect with"),
    ] {
        let gateway = Gateway::prepare(Settings::file().with(&sections));
        let output = gateway.command().arg("check").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{sections}");
        assert!(said.contains(message), "{sections}: {said}");
    }
}

/// A folder of keys and the server that uses it.
fn with_key_folder() -> (tempfile::TempDir, Gateway) {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let mut settings = settings().variable("TOLLGATE_SIGNING_KEYS", keys.to_str().unwrap());
    for name in ["RSA_PRIVATE_KEY_PATH", "RSA_PUBLIC_KEY_PATH"] {
        settings = settings.unset(name);
    }
    (directory, Gateway::prepare(settings))
}

fn kids(gateway: &Gateway) -> Vec<String> {
    let keys = gateway.send(&Request::get("/.well-known/jwks.json").header("Connection", "close")).json();
    keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn signing_keys_are_rotated_with_an_overlap_while_serving() {
    let (directory, mut gateway) = with_key_folder();
    gateway.cli(&["key", "generate"]);
    let folder = directory.path().join("keys");
    for name in ["current.pem", "next.pem"] {
        let about = std::fs::metadata(folder.join(name)).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&about) & 0o777, 0o600, "{name}");
    }
    let again = gateway.command().args(["key", "generate"]).output().unwrap();
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("is there already"));
    gateway.launch();
    gateway.ready();
    let before = kids(&gateway);
    assert_eq!(before.len(), 2);
    let list = gateway.cli(&["key", "list"]);
    let line =
        |role: &str| list.lines().find(|line| line.contains(role)).unwrap_or_else(|| panic!("{list}")).to_owned();
    assert!(line("current").contains(&before[0]) && line("current").contains("RS256"), "{list}");
    assert!(line("next").contains(&before[1]), "{list}");

    // What was published a moment ago, not everybody knows yet.
    let early = gateway.command().args(["key", "rotate"]).output().unwrap();
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(!early.status.success() && said.contains("--now"), "{said}");
    assert_eq!(kids(&gateway), before);

    gateway.cli(&["key", "rotate", "--now"]);
    let after = eventually("the new key is used", || Some(kids(&gateway)).filter(|kids| kids[0] == before[1]));
    assert_eq!((after.len(), &after[2]), (3, &before[0]), "the old key is still published");
    gateway.cli(&["key", "rotate", "--now"]);
    let final_set = eventually("the next key is used", || Some(kids(&gateway)).filter(|kids| kids[0] == after[1]));
    assert_eq!((final_set.len(), final_set.contains(&before[0])), (3, false), "the oldest is gone");

    // A key that others can read is not taken up, and the one in use stays.
    gateway.expect_error("changed signing keys cannot be used");
    let current = folder.join("current.pem");
    std::fs::set_permissions(&current, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    eventually("the log says so", || {
        gateway.log().iter().any(|line| line.contains("can be read by others")).then_some(())
    });
    assert_eq!(kids(&gateway), final_set);
    gateway.stop();
    let output = gateway.command().arg("serve").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"), "it does not start either");
}

#[test]
fn keys_of_every_kind_are_made_and_named_by_their_thumbprint() {
    for (algorithm, kty) in [("RS256", "RSA"), ("ES256", "EC"), ("EdDSA", "OKP")] {
        let (_directory, mut gateway) = with_key_folder();
        gateway.cli(&["key", "generate", "--algorithm", algorithm]);
        gateway.launch();
        gateway.ready();
        let key = gateway.send(&Request::get("/.well-known/jwks.json")).json()["keys"][0].clone();
        assert_eq!((&key["kty"], &key["alg"]), (&json!(kty), &json!(algorithm)));
        assert!(["d", "p", "q", "dp", "dq", "qi", "k"].iter().all(|name| key.get(name).is_none()), "{key}");
        let document = gateway.send(&Request::get("/.well-known/openid-configuration")).json();
        assert_eq!(document["id_token_signing_alg_values_supported"], json!([algorithm]));
    }
}

#[test]
fn clients_are_kept_from_the_command_line_too() {
    for settings in [None, Some(Database::fresh())] {
        let variables = super::support::oauth::settings();
        let variables =
            settings.as_ref().map_or(variables.clone(), |database| variables.variable("DATABASE_URL", &database.url));
        let gateway = Gateway::start(variables);
        let made = gateway.cli(&[
            "client",
            "create",
            "Weather",
            "--confidential",
            "--redirect-uri",
            "https://app.example/cb",
            "--scope",
            "subnet:*:miner",
            "--grant",
            "authorization_code",
            "--grant",
            "refresh_token",
        ]);
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
            line.trim().to_owned()
        };
        let (id, secret) = (field(&made, "client_id"), field(&made, "client_secret"));
        assert_eq!((id.len(), secret.len()), (36, 64));
        let rotated = gateway.cli(&["client", "rotate-secret", &id]);
        assert_ne!(field(&rotated, "client_secret"), secret);
        let shown = gateway.cli(&["client", "list"]);
        assert!(
            shown.lines().any(|line| line.contains(&id) && line.contains("Weather") && line.contains("active")),
            "{shown}"
        );
        assert!(!shown.contains(&secret));
        gateway.cli(&["client", "deactivate", &id]);
        let listed: Value = serde_json::from_str(&gateway.cli(&["client", "list", "--json"])).unwrap();
        assert_eq!((&listed[0]["client_id"], &listed[0]["active"]), (&json!(id), &json!(false)));
        let named = ["client", "create", "x", "--public", "--redirect-uri", "https://a.example", "--id", "my-app_1.0"];
        assert_eq!(field(&gateway.cli(&named), "client_id"), "my-app_1.0");
        for arguments in [
            &named[..],
            &["client", "deactivate", "nobody"],
            &["client", "rotate-secret", &id],
            &["client", "create", "x", "--public"],
            &["client", "create", "x", "--public", "--redirect-uri", "not a url"],
            &["client", "create", "x", "--public", "--redirect-uri", "https://a.example", "--scope", "profile"],
        ] {
            let output = gateway.command().args(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        }
        for id in ["", "a b", "a/b", "é", &"x".repeat(101)] {
            let arguments = ["client", "create", "x", "--public", "--redirect-uri", "https://a.example", "--id", id];
            let output = gateway.command().args(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{id}");
        }
    }
}
