//! Section 1.5: the admin API.

use serde_json::{Value, json};

use super::{malformed, told};
use crate::support::{
    eventually,
    oauth::{GRANTS, Server, members, refused, settings},
    sign_in::{App, registration, remembered},
    wallet::EthereumWallet,
};

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
        for (method, path) in [
            ("PATCH", path.clone()),
            ("POST", format!("{path}/rotate-secret")),
            ("GET", format!("{path}/stats")),
            ("GET", format!("{path}/events")),
            ("PATCH", "/v1/admin/clients/nobody".into()),
            ("DELETE", "/v1/admin/clients/nobody".into()),
            ("POST", "/v1/admin/clients/nobody/rotate-secret".into()),
            ("GET", "/v1/admin/clients/nobody/stats".into()),
            ("GET", "/v1/admin/clients/nobody/events".into()),
        ] {
            let answer = server.admin(method, &path, Some(&change));
            assert_eq!(told(&answer), (404, "Not Found".into()), "{method} {path}");
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
        assert_eq!(refused(&answer), (400, "Bad Request".into()), "{name} {value}");
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
fn the_admin_api_tells_what_happened() {
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("public"));
        let quiet = server.register(&registration("public"));
        let (app, wallet) = (App { server: &server, client: &client }, EthereumWallet::new(11));
        let tokens = app.tokens(&wallet);
        remembered(&app.refresh(tokens["refresh_token"].as_str().unwrap()));
        app.redeem("nonsense");
        let path = format!("/v1/admin/clients/{}", app.id());
        let stats = eventually("three events are written", || {
            let stats = server.admin("GET", &format!("{path}/stats"), None).json();
            (stats["totals"]["exchanges"] == 3).then_some(stats)
        });
        let totals =
            json!({ "exchanges": 3, "successes": 2, "failures": 1, "distinct_users": 1, "success_rate": 2.0 / 3.0 });
        assert_eq!(stats["totals"], totals, "{stats}");
        assert_eq!(stats["failures_by_reason"], json!({ "invalid_grant": 1 }));
        assert_eq!(stats["scopes_requested"], json!([{ "scope": "openid", "count": 1 }]));
        let names =
            ["client_id", "failures_by_reason", "generated_at", "scopes_requested", "timeseries", "totals", "window"];
        assert_eq!(members(&stats), names);
        let names = ["bucket", "distinct_users", "exchanges", "failures", "successes"];
        assert_eq!(members(&stats["timeseries"][0]), names);
        assert_eq!((&stats["window"], &stats["client_id"]), (&json!("24h"), &json!(app.id())));
        let sum: u64 =
            stats["timeseries"].as_array().unwrap().iter().map(|bucket| bucket["exchanges"].as_u64().unwrap()).sum();
        assert_eq!(sum, 3);
        for (window, ends) in [("24h", ":00:00Z"), ("7d", ":00:00Z"), ("30d", "T00:00:00Z")] {
            let stats = server.admin("GET", &format!("{path}/stats?window={window}"), None).json();
            let bucket = stats["timeseries"][0]["bucket"].as_str().unwrap().to_owned();
            assert!(stats["window"] == window && bucket.ends_with(ends), "{window}: {bucket}");
        }

        let mut kinds = Vec::new();
        let mut before = String::new();
        loop {
            let page = server.admin("GET", &format!("{path}/events?limit=2{before}"), None).json();
            assert_eq!(members(&page), ["events", "has_more", "next_cursor"]);
            let names = [
                "error_reason",
                "event_type",
                "id",
                "metadata",
                "occurred_at",
                "outcome",
                "scopes",
                "sign_method",
                "subject_prefix",
            ];
            assert_eq!(members(&page["events"][0]), names);
            kinds.extend(page["events"].as_array().unwrap().iter().map(|event| event["event_type"].clone()));
            assert!(!page.to_string().contains(&wallet.address()), "accounts are kept as digests");
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            let cursor: String = url::form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
            before = format!("&before={cursor}");
        }
        let expected = [
            "token_exchange",
            "token_refresh",
            "token_exchange",
            "challenge_verified",
            "challenge_issued",
            "authorize",
        ];
        assert_eq!(kinds, expected);
        for query in [
            "events?limit=0",
            "events?limit=201",
            "events?limit=x",
            "events?limit=",
            "events?before=x",
            "events?before=2026-01-01T00:00:00Z|x",
            "events?before=2026-01-01|00000000-0000-4000-8000-000000000000",
            "stats?window=1y",
            "stats?window=24h&window=7d",
        ] {
            malformed(&server.admin("GET", &format!("{path}/{query}"), None));
        }
        malformed(&server.admin("GET", "/v1/admin/stats/overview?window=x", None));
        for path in [format!("{path}/stats"), format!("{path}/events"), "/v1/admin/stats/overview".into()] {
            assert_eq!(told(&server.get(&path)), (401, "Unauthorized".into()), "{path}");
        }
        let overview = server.admin("GET", "/v1/admin/stats/overview", None).json();
        assert_eq!(members(&overview), ["by_client", "generated_at", "totals", "window"]);
        assert_eq!((&overview["totals"]["exchanges"], &overview["window"]), (&json!(3), &json!("7d")));
        let lines = overview["by_client"].as_array().unwrap();
        let names = [
            "active",
            "client_id",
            "client_name",
            "client_type",
            "distinct_users",
            "exchanges",
            "failures",
            "successes",
        ];
        assert_eq!(members(&lines[0]), names);
        assert_eq!(
            (lines.len(), &lines[0]["client_id"], &lines[1]["client_id"]),
            (2, &client["client_id"], &quiet["client_id"])
        );
    }
}
