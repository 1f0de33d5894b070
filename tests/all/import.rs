//! `tollgate import auth-gateway`: the program, against a database as the auth gateway left it; and then the real server,
//! over both of our databases.

mod refused;
mod repeated;
mod tokens;

use std::process::Output;

use serde_json::{Value, json};

use crate::support::{
    Gateway, Settings,
    auth_gateway::{OldDatabase, SECRET, SECRET_HASH},
    database::Database,
    oauth::{Server, settings},
    secret,
    sign_in::{App, claims, remembered},
    wallet::EthereumWallet,
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(31)
}

/// Servers over each of our databases that have not been started yet.
fn both() -> [Server; 2] {
    let database = Database::fresh();
    let postgres = Gateway::prepare(settings().variable("DATABASE_URL", &database.url));
    [
        Server { gateway: Gateway::prepare(settings()), database: None },
        Server { gateway: postgres, database: Some(database) },
    ]
}

/// One over the replaced server's own database.
fn in_its_place(old: &OldDatabase) -> Server {
    prepared(settings().variable("DATABASE_URL", old.url()))
}

fn prepared(settings: Settings) -> Server {
    Server { gateway: Gateway::prepare(settings), database: None }
}

fn start(server: &mut Server) {
    server.gateway.launch();
    server.gateway.ready();
}

fn arguments<'a>(old: &'a OldDatabase, more: &[&'a str]) -> Vec<&'a str> {
    [&["import", "auth-gateway", "--from", old.url()], more].concat()
}

#[track_caller]
fn import(server: &Server, old: &OldDatabase) -> String {
    let text = server.gateway.cli(&arguments(old, &[]));
    assert!(!text.contains(SECRET_HASH) && !text.contains("scrypt"), "{text}");
    text
}

fn attempt(server: &Server, arguments: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = server.gateway.command().args(arguments).output().unwrap();
    (status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// The numbers of a line: taken over, updated, here already, taken back, left out.
#[track_caller]
fn numbers(report: &str, line: &str) -> [u64; 5] {
    let found = report.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_else(|| panic!("{line}: {report}"));
    let numbers: Vec<u64> = found.split_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

fn client(server: &Server, id: &str) -> Value {
    let all = server.admin("GET", "/v1/admin/clients", None).json();
    all.as_array().unwrap().iter().find(|client| client["client_id"] == id).cloned().unwrap_or_default()
}

/// What an app knows of its registration.
fn public(id: &str) -> Value {
    json!({ "client_id": id })
}

fn confidential(id: &str) -> Value {
    json!({ "client_id": id, "client_secret": secret(SECRET) })
}

fn ordinary(old: &OldDatabase) {
    let hash = format!("client_type = 'confidential', client_secret_hash = '{SECRET_HASH}'");
    old.client("app", &format!("{hash}, allowed_origins = '{{https://app.example}}'"));
    old.client("device", "client_name = 'Wetter für alle'");
    old.client("gone", "active = false");
    let address = wallet().address();
    for (minutes, kind, outcome, subject) in [
        (5, "token_exchange", "success", &*address),
        (6, "token_refresh", "success", &address),
        (90, "token_refresh", "failure", ""),
        (60 * 24 * 20, "token_exchange", "success", &address),
        (60 * 24 * 31, "token_exchange", "success", &address),
    ] {
        old.event("app", minutes, kind, outcome, subject);
    }
}

/// The whole way of somebody who moves: into each of our databases, and beside the old tables.
#[test]
fn what_the_auth_gateway_knew_is_taken_over() {
    let old = OldDatabase::fresh();
    ordinary(&old);
    let token = old.refresh_token("app", &wallet().address());
    let before = old.contents();
    let [sqlite, postgres] = both();
    for mut server in [sqlite, postgres, in_its_place(&old)] {
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [3, 0, 0, 0, 0], "{report}");
        assert_eq!(numbers(&report, "refresh tokens"), [1, 0, 0, 0, 0], "{report}");
        assert_eq!(numbers(&report, "events"), [4, 0, 0, 0, 0], "those of the last thirty days: {report}");
        assert!(report.contains("migrations up to 013"), "{report}");
        assert_eq!(old.contents(), before, "it is only read");
        start(&mut server);

        let app = client(&server, "app");
        for (name, value) in [
            ("client_name", json!("Weather app")),
            ("client_type", json!("confidential")),
            ("redirect_uris", json!(["https://app.example/callback"])),
            ("grant_types", json!(crate::support::oauth::GRANTS)),
            ("allowed_scopes", json!(["openid"])),
            ("allowed_origins", json!(["https://app.example"])),
            ("allowed_sign_methods", json!(["evm"])),
            ("rate_limit", json!(0)),
            ("active", json!(true)),
        ] {
            assert_eq!(app[name], value, "{name}: {app}");
        }
        assert!(app["created_at"].as_str().unwrap().starts_with("2026-01-02T03:04:05.678"), "{app}");
        assert_eq!(client(&server, "device")["client_name"], "Wetter für alle");
        assert_eq!(client(&server, "gone")["active"], false);

        let stats = server.admin("GET", "/v1/admin/clients/app/stats?window=30d", None).json();
        let totals =
            json!({ "exchanges": 4, "successes": 3, "failures": 1, "distinct_users": 1, "success_rate": 0.75 });
        assert_eq!(stats["totals"], totals, "{stats}");
        assert_eq!(stats["failures_by_reason"], json!({ "invalid_grant": 1 }));
        let events = server.admin("GET", "/v1/admin/clients/app/events?limit=1", None).json();
        assert_eq!(events["events"][0]["metadata"], json!({ "flow": "oauth" }), "{events}");

        let registration = confidential("app");
        let app = App { server: &server, client: &registration };
        let wrong = App { server: &server, client: &json!({ "client_id": "app", "client_secret": "wrong" }) };
        assert_eq!(wrong.refresh(&token.jwt).status, 401);
        let answer = app.refresh(&token.jwt);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = remembered(&answer);
        assert!(tokens["refresh_token"].as_str().unwrap().starts_with("tgr_"));
        let access = claims(&tokens["access_token"]);
        assert_eq!((&access["sub"], &access["client_id"]), (&json!(wallet().address()), &json!("app")));
        assert_eq!(claims(&tokens["id_token"])["auth_time"], token.claims["auth_time"], "when the wallet signed");
        let again = app.refresh(tokens["refresh_token"].as_str().unwrap());
        assert_eq!(again.status, 200, "{}", again.text());
        assert_eq!(claims(&remembered(&again)["id_token"])["auth_time"], token.claims["auth_time"]);
        // Whoever was signed in to another app signs in as before.
        let device = public("device");
        App { server: &server, client: &device }.tokens(&wallet());
    }
}

/// The auth gateway's environment with its database: the server brings tables of its own and leaves the others alone.
#[test]
fn the_server_serves_beside_the_old_tables_and_imports_while_it_serves() {
    let old = OldDatabase::fresh();
    ordinary(&old);
    let token = old.refresh_token("app", &wallet().address());
    let before = old.contents();
    let mut server = in_its_place(&old);
    start(&mut server);
    let new = server.public_client("New");
    assert_eq!(client(&server, "app"), Value::Null, "nothing comes without being asked for");
    assert_eq!(old.contents(), before);
    let registration = confidential("app");
    let app = App { server: &server, client: &registration };
    assert_eq!(app.refresh(&token.jwt).status, 401, "nobody knows it yet");
    // Without --from it is the configured database.
    let report = server.gateway.cli(&["import", "auth-gateway"]);
    assert_eq!(numbers(&report, "clients"), [3, 0, 0, 0, 0], "{report}");
    assert_eq!(old.contents(), before);
    remembered(&app.refresh(&token.jwt));
    assert_eq!(client(&server, new["client_id"].as_str().unwrap())["client_name"], "New");
    server.gateway.stop();
    server.gateway.restart();
    assert_eq!(client(&server, "device")["active"], true, "and it starts again beside them");
    old.database.execute("insert into oauth_clients (client_name, client_type) values ('Late', 'public')");
}

/// Nothing is made, changed or migrated; the numbers are those of the real run.
#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let old = OldDatabase::fresh();
    ordinary(&old);
    old.refresh_token("app", &wallet().address());
    old.refresh_token("gone", &wallet().address());
    let tables =
        "select string_agg(relname, ' ' order by relname) from pg_class where relnamespace = 'public'::regnamespace";
    let before = old.database.value(tables);
    let [sqlite, postgres] = both();
    for server in [sqlite, postgres, in_its_place(&old)] {
        for _ in 0..2 {
            let report = server.gateway.cli(&arguments(&old, &["--dry-run"]));
            assert_eq!(numbers(&report, "clients"), [3, 0, 0, 0, 0], "{report}");
            assert_eq!(numbers(&report, "refresh tokens"), [1, 0, 0, 0, 1], "{report}");
            assert_eq!(numbers(&report, "events"), [4, 0, 0, 0, 0], "{report}");
            assert!(
                report.contains("dry run") && report.contains("refresh tokens left out: 1 of a deactivated client"),
                "{report}"
            );
            assert_eq!(old.database.value(tables), before);
            assert!(!server.gateway.directory().join("data/tollgate.db").exists());
        }
        import(&server, &old);
        let report = server.gateway.cli(&arguments(&old, &["--dry-run"]));
        assert_eq!(numbers(&report, "clients"), [0, 0, 3, 0, 0], "{report}");
        assert_eq!(numbers(&report, "events"), [0, 0, 4, 0, 0], "{report}");
        old.database.execute("update oauth_clients set client_name = 'Other' where client_id = 'device'");
        let report = server.gateway.cli(&arguments(&old, &["--dry-run"]));
        assert_eq!(numbers(&report, "clients"), [0, 1, 2, 0, 0], "{report}");
        old.database.execute("update oauth_clients set client_name = 'Wetter für alle' where client_id = 'device'");
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [0, 0, 3, 0, 0], "the dry run has changed nothing: {report}");
    }
}
