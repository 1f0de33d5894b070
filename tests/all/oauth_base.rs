//! The authorization server's ground: metadata, keys, clients, limits, and how errors are told.

use serde_json::{Value, json};

use crate::support::{
    Reply, Request, Settings, Upstream,
    database::Database,
    eventually,
    gateway::Gateway,
    h2,
    oauth::{ADMIN_KEY, GRANTS, PUBLIC_URL, Server, data, form, settings, standard},
    tls::Authority,
};

/// The keys of an object, sorted.
fn members(document: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn with_the_old_variables_alone_it_serves_metadata_keys_and_health() {
    for server in Server::on_both(&settings()) {
        for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
            let answer = server.get(path);
            assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=3600")), "{path}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            let document = answer.json();
            assert_eq!(document["issuer"], PUBLIC_URL);
            assert_eq!(document["jwks_uri"], format!("{PUBLIC_URL}/.well-known/jwks.json"));
            assert_eq!(document["subject_types_supported"], json!(["public"]));
            assert_eq!(document["sign_methods_supported"], json!(["sr25519", "evm"]));
            assert_eq!(document["id_token_signing_alg_values_supported"], json!(["RS256"]));
            let scopes = document["scopes_supported"].as_array().unwrap();
            assert_eq!(scopes.iter().filter(|scope| *scope == "openid").count(), 1);
            assert_eq!((scopes.len(), &scopes[10]), (13, &json!("staker:{min_tao}")), "two are ours");
        }

        let answer = server.get("/.well-known/jwks.json");
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=3600")));
        let keys = answer.json();
        let [key] = &keys["keys"].as_array().unwrap()[..] else { panic!("{keys}") };
        assert_eq!(members(key), ["alg", "e", "kid", "kty", "n", "use"]);
        assert_eq!(
            (&key["kty"], &key["use"], &key["alg"], &key["e"]),
            (&json!("RSA"), &json!("sig"), &json!("RS256"), &json!("AQAB"))
        );
        assert_eq!(key["kid"].as_str().unwrap().len(), 43);

        let answer = server.get("/health");
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        let health = answer.json();
        assert_eq!(
            (&health["status"], &health["network"], &health["database"]),
            (&json!("ok"), &json!("mainnet"), &json!(true))
        );
        assert!(health["uptime"].as_f64().unwrap() >= 0.0);
    }
}

#[test]
fn the_scope_configuration_is_what_forms_need() {
    let server = Server::start(settings().variable("NETWORK", "mainnet"));
    let document = server.get("/v1/discovery/scope-config").json();
    let ids =
        |list: &str| document[list].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids("scope_categories"), ["subnet_role", "subnet_holder", "tao_holder", "delegator", "staker"]);
    assert_eq!(ids("grant_types"), GRANTS);
    assert_eq!(ids("sign_methods"), ["sr25519", "evm"]);
    assert!(document["evm_scope_restriction"].is_string());
    let role = &document["scope_categories"][0];
    assert_eq!((&role["name"], &role["format"]), (&json!("Subnet Role"), &json!("subnet:{netuid}:{role}")));
    assert_eq!(role["parameters"]["required"], json!(["netuid", "role"]));
    assert_eq!(role["parameters"]["properties"]["netuid"]["maximum"], 32_768);
    assert_eq!(role["allowed_entry_parameters"]["properties"]["role"]["oneOf"][0], json!({ "const": "*" }));
    let redirecting = |grant: &Value| grant["requires_redirect_uri"] == true;
    assert_eq!(document["grant_types"].as_array().unwrap().iter().filter(|grant| redirecting(grant)).count(), 1);
}

#[test]
fn on_testnet_there_are_no_scopes_that_need_an_index() {
    let server = Server::start(settings().variable("NETWORK", "testnet"));
    let document = server.get("/.well-known/openid-configuration").json();
    assert_eq!(document["scopes_supported"].as_array().unwrap().len(), 10);
    assert_eq!(server.get("/health").json()["network"], "testnet");
}

#[test]
fn what_is_not_there_is_told_in_the_old_words() {
    let server = Server::start(settings());
    for (method, path) in [("GET", "/v1/nothing"), ("POST", "/health"), ("GET", "/v1/admin/clients/x/rotate-secret")] {
        let answer = server.send(&Request::new(method, path));
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
    let path = "/v1/admin/clients";
    let long = format!("{{\"client_name\":\"{}\"}}", "x".repeat(1024));
    for (kind, body, status, phrase) in [
        ("application/json", "{", 400, "Bad Request"),
        ("application/json", "", 400, "Bad Request"),
        ("application/json", &long, 413, "Payload Too Large"),
        ("text/plain", "{}", 415, "Unsupported Media Type"),
        ("application/jsonx", "{}", 415, "Unsupported Media Type"),
    ] {
        let request = Request::post(path, body).header("Content-Type", kind).header("X-Admin-API-Key", ADMIN_KEY);
        let answer = server.send(&request);
        assert_eq!(answer.status, status, "{kind} {body}");
        let document = answer.json();
        assert_eq!(members(&document), ["error", "message", "statusCode"], "{document}");
        assert_eq!(document["error"], "Internal Server Error", "{kind}");
        let document = rfc.send(&request).json();
        assert_eq!((&document["error"], &document["statusCode"]), (&json!(phrase), &json!(status)), "{kind}");
        assert_eq!(document["error_description"], document["message"]);
    }
    // A form will do as well; what is there twice is a list.
    let fields = [("client_name", "x"), ("client_type", "public"), ("redirect_uris", "https://a.example")];
    let with_key =
        |fields: &[(&str, &str)]| server.send(&form(path, fields).header("X-Admin-API-Key", ADMIN_KEY)).status;
    assert_eq!(with_key(&fields), 400, "one is a text, and no list");
    assert_eq!(with_key(&[fields[0], fields[1], fields[2], ("redirect_uris", "https://b.example")]), 201);
    assert_eq!(with_key(&[fields[0], fields[0], fields[1]]), 400, "a name that is there twice");
    assert_eq!(server.post_form(path, &fields).status, 401);
    assert_eq!(server.post_json(path, &json!({})).status, 401);
    // A field of the wrong kind, as its schema's answer was.
    for body in [json!({}), json!({ "client_name": 1, "client_type": "public" }), json!([]), json!("x")] {
        let answer = server.admin("POST", path, Some(&body));
        let document = answer.json();
        assert_eq!((answer.status, &document["error"]), (400, &json!("Bad Request")), "{body}");
        assert!(document.get("error_description").is_none(), "{document}");
    }
}

#[test]
fn clients_are_registered_changed_and_deactivated() {
    for server in Server::on_both(&settings()) {
        let made = server.register(&json!({
            "client_name": "Weather",
            "client_type": "confidential",
            "redirect_uris": ["https://app.example/callback"],
            "grant_types": GRANTS,
            "allowed_scopes": ["subnet:*:miner", "openid"],
            "allowed_origins": ["https://APP.example:443/"],
            "unknown": 1,
        }));
        assert_eq!(
            members(&made),
            [
                "allowed_origins",
                "allowed_scopes",
                "allowed_sign_methods",
                "client_id",
                "client_name",
                "client_secret",
                "client_type",
                "grant_types",
                "rate_limit",
                "redirect_uris"
            ]
        );
        assert_eq!(made["allowed_origins"], json!(["https://app.example"]));
        assert_eq!((&made["rate_limit"], &made["allowed_sign_methods"]), (&json!(60), &json!(["sr25519"])));
        let secret = made["client_secret"].as_str().unwrap();
        assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let id = made["client_id"].as_str().unwrap();
        server.confidential_client("Another");
        let public = server.public_client("Second");
        assert!(public.get("client_secret").is_none());

        let list = server.admin("GET", "/v1/admin/clients", None).json();
        let [second, _, first] = &list.as_array().unwrap()[..] else { panic!("{list}") };
        assert_eq!((&second["client_name"], &first["client_name"]), (&json!("Second"), &json!("Weather")));
        assert_eq!((&first["active"], &first["client_type"]), (&json!(true), &json!("confidential")));
        assert!(first["created_at"].as_str().unwrap().ends_with('Z') && first.get("client_secret").is_none());

        let path = format!("/v1/admin/clients/{id}");
        let change = json!({ "client_name": "Rain", "allowed_scopes": [], "rate_limit": 0, "client_type": "public" });
        let changed = server.admin("PATCH", &path, Some(&change));
        assert_eq!(changed.status, 200, "{}", changed.text());
        let changed = changed.json();
        assert_eq!((&changed["client_name"], &changed["rate_limit"]), (&json!("Rain"), &json!(0)));
        assert_eq!((&changed["client_type"], &changed["allowed_scopes"]), (&json!("confidential"), &json!([])));
        assert_eq!(changed["redirect_uris"], json!(["https://app.example/callback"]));
        assert_eq!(members(&changed), members(first));

        let rotated = server.admin("POST", &format!("{path}/rotate-secret"), Some(&json!({}))).json();
        assert_eq!(members(&rotated), ["client_id", "client_name", "client_secret", "message"]);
        assert_ne!(rotated["client_secret"], made["client_secret"]);
        let public_path = format!("/v1/admin/clients/{}", public["client_id"].as_str().unwrap());
        assert_eq!(server.admin("POST", &format!("{public_path}/rotate-secret"), Some(&json!({}))).status, 404);

        for _ in 0..2 {
            let gone = server.admin("DELETE", &path, None);
            assert_eq!((gone.status, gone.json()), (200, json!({ "status": "deactivated", "client_id": id })));
        }
        let list = server.admin("GET", "/v1/admin/clients", None).json();
        assert_eq!((list.as_array().unwrap().len(), &list[2]["active"]), (3, &json!(false)));
        assert_eq!(server.admin("PATCH", &path, Some(&change)).status, 404);
        assert_eq!(server.admin("POST", &format!("{path}/rotate-secret"), Some(&json!({}))).status, 404);
        for (method, path) in [("PATCH", "/v1/admin/clients/nobody"), ("DELETE", "/v1/admin/clients/nobody")] {
            let answer = server.admin(method, path, Some(&change));
            assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("Not Found")), "{method} {path}");
        }
    }
}

#[test]
fn a_registration_that_breaks_a_rule_is_refused() {
    let server = Server::start(settings());
    let good = json!({ "client_name": "x", "client_type": "public", "redirect_uris": ["http://app.example/cb"] });
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    assert_eq!(server.admin("POST", "/v1/admin/clients", Some(&good)).status, 201);
    for (name, value) in [
        ("client_type", json!("secret")),
        ("client_type", json!(null)),
        ("client_name", json!(7)),
        ("client_name", json!("\u{0}")),
        ("redirect_uris", json!([])),
        ("redirect_uris", json!("http://app.example")),
        ("redirect_uris", json!(["/cb"])),
        ("redirect_uris", json!(["app://cb"])),
        ("redirect_uris", json!(["javascript:alert(1)"])),
        ("redirect_uris", json!(["https://u:p@app.example"])),
        ("redirect_uris", json!(["https://app.example/#x"])),
        ("redirect_uris", json!(["https://app.example/a b"])),
        ("grant_types", json!(["password"])),
        ("grant_types", json!(["device_code"])),
        ("allowed_scopes", json!(["profile"])),
        ("allowed_scopes", json!(["*"])),
        ("allowed_scopes", json!(["subnet:*:miner:*"])),
        ("allowed_origins", json!(["https://app.example/x"])),
        ("allowed_origins", json!(["null"])),
        ("allowed_sign_methods", json!([])),
        ("allowed_sign_methods", json!(["sr25519", "evm"])),
        ("allowed_sign_methods", json!(["ed25519"])),
        ("allowed_sign_methods", json!(["evm"])),
        ("rate_limit", json!(1.5)),
        ("rate_limit", json!("60")),
        ("rate_limit", json!(3_000_000_000_u64)),
    ] {
        let answer = server.admin("POST", "/v1/admin/clients", Some(&with(name, value.clone())));
        let document = answer.json();
        assert_eq!((answer.status, &document["error"]), (400, &json!("Bad Request")), "{name} {value} {document}");
    }
    let mut evm = with("allowed_sign_methods", json!(["evm"]));
    evm["allowed_scopes"] = json!(["openid"]);
    let client = server.register(&evm);
    let path = format!("/v1/admin/clients/{}", client["client_id"].as_str().unwrap());
    for change in [
        json!({}),
        json!({ "unknown": 1 }),
        json!({ "redirect_uris": [] }),
        json!({ "allowed_scopes": ["subnet:1:miner"] }),
        json!({ "allowed_scopes": [] }),
        json!({ "grant_types": ["implicit"] }),
        json!({ "rate_limit": "x" }),
    ] {
        assert_eq!(server.admin("PATCH", &path, Some(&change)).status, 400, "{change}");
    }
    assert_eq!(server.admin("PATCH", &path, Some(&json!({ "grant_types": [], "redirect_uris": [] }))).status, 200);
}

#[test]
fn in_production_redirects_go_by_https() {
    let server = Server::start(settings().variable("NODE_ENV", "production"));
    for (uri, status) in [
        ("http://app.example/cb", 400),
        ("https://app.example/cb", 201),
        ("http://localhost:8080/cb", 201),
        ("http://127.0.0.1/cb", 201),
        ("http://[::1]:1/cb", 201),
        ("http://localhost.example/cb", 400),
    ] {
        let registration = json!({ "client_name": "x", "client_type": "public", "redirect_uris": [uri] });
        assert_eq!(server.admin("POST", "/v1/admin/clients", Some(&registration)).status, status, "{uri}");
    }
}

#[test]
fn the_admin_key_is_looked_at_before_the_body() {
    let server = Server::start(settings().variable("RATE_LIMIT_GLOBAL", "1000"));
    for key in [None, Some(""), Some("wrong"), Some("an-admin-key-for-tests-onlY")] {
        for body in ["{}", "not json"] {
            let request = Request::post("/v1/admin/clients", body).header("Content-Type", "application/json");
            let request = key.map_or(request.clone(), |key| request.header("X-Admin-API-Key", key));
            let answer = server.send(&request);
            assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("Unauthorized")), "{key:?}");
        }
    }
}

#[test]
fn without_an_admin_key_nobody_is_an_administrator() {
    let server = Server::start(settings().unset("ADMIN_API_KEY").variable("RATE_LIMIT_GLOBAL", "1000"));
    for key in ["", ADMIN_KEY, "undefined"] {
        let answer = server.send(&Request::get("/v1/admin/clients").header("X-Admin-API-Key", key));
        assert_eq!(answer.status, 401, "{key}");
    }
}

#[test]
fn admin_keys_cannot_be_tried_without_end() {
    let server = Server::start(settings());
    // A minute may end in between, so twice the limit and one more.
    let statuses: Vec<u16> = (0..21)
        .map(|_| server.send(&Request::get("/v1/admin/clients").header("X-Admin-API-Key", "wrong")).status)
        .collect();
    assert!(statuses[..10].iter().all(|status| *status == 401) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(server.admin("GET", "/v1/admin/clients", None).status, 200);
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
    for path in ["/v1/admin/clients", "/health", "/.well-known/openid-configuration", "/v1/discovery/scope-config"] {
        assert_eq!(ask(path), 200, "{path}");
    }
    assert_eq!(ask("/v1/nothing"), 404);
}

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
    // What everybody reads is not limited, and costs nobody his share.
    for path in ["/health", "/.well-known/jwks.json", "/.well-known/openid-configuration"] {
        assert_eq!(first.get(path).status, 200, "{path}");
    }
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
        let read = server.send(&Request::get("/health").header("Origin", "https://app.example"));
        assert_eq!((read.status, read.header("vary")), (200, Some("Origin")));
        for origin in [
            "https://evil.example",
            "https://app.example.evil.example",
            "http://app.example",
            "null",
            "http://localhost:3000",
        ] {
            let answer = server.send(&Request::get("/health").header("Origin", origin));
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{origin}");
            assert_eq!(preflight(origin).status, 404, "{origin}");
        }
        server.admin("DELETE", &format!("/v1/admin/clients/{}", client["client_id"].as_str().unwrap()), None);
        eventually("the origin is forgotten", || (preflight("https://app.example").status == 404).then_some(()));
    }
    let development = Server::start(settings());
    let answer = development.send(&Request::get("/health").header("Origin", "http://localhost:5173"));
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
