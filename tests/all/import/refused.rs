//! What is left out, and databases that are refused.

use serde_json::json;

use super::{arguments, attempt, both, client, import, numbers, prepared, public, start, wallet};
use crate::support::{auth_gateway::OldDatabase, database::Database, free_port, oauth::settings, secret, sign_in::App};

/// Rows that the auth gateway's own command line could write, and rows that nobody should have written.
#[test]
fn what_would_be_refused_here_is_left_out_and_told() {
    let old = OldDatabase::fresh();
    old.client(
        "links",
        "redirect_uris = array['https://app.example/callback', 'https://app.example/#x', 'javascript:alert(1)',
                               'myapp://callback', 'https://me:pw@app.example/', 'nonsense', null]",
    );
    old.client("nowhere", "redirect_uris = '{myapp://callback}'");
    old.client("grants", "grant_types = '{authorization_code,device_code,password,authorization_code}'");
    old.client("scopes", "allowed_scopes = '{profile}'");
    old.client("origins", "allowed_origins = '{HTTPS://App.Example:443,null,https://app.example}'");
    old.client("bare", "client_type = 'confidential'");
    old.client("strange", "client_type = 'confidential', client_secret_hash = '$2b$10$hash'");
    old.client("unknown", "allowed_sign_methods = '{bitcoin}'");
    old.client("several", "allowed_sign_methods = '{evm,sr25519}'");
    old.client("early", "allowed_sign_methods = '{}'");
    let address = wallet().address();
    old.refresh_token("bare", &address);
    old.refresh_token("links", "0x1111");
    let scopes = old.refresh_token("links", &address);
    old.event("bare", 1, "authorize", "success", "");
    old.event("links", 1, "authorize", "odd", "");
    old.event("links", 1, "authorize", "success", "");
    old.database.execute(&format!(
        "update refresh_tokens set scopes = '{{openid,profile}}' where jti = '{}';
         insert into oauth_events (client_id, event_type, outcome, subject_hash) values ('links', 'x', 'success', '\\x00');
         insert into oauth_events (client_id, event_type, outcome, metadata) values ('links', 'x', 'success', '[]')",
        scopes.jti
    ));
    for mut server in both() {
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [8, 0, 0, 0, 2], "{report}");
        assert_eq!(numbers(&report, "refresh tokens"), [0, 0, 0, 0, 3], "{report}");
        assert_eq!(numbers(&report, "events"), [1, 0, 0, 0, 4], "{report}");
        for told in [
            "clients left out: 1 confidential, and no secret is known",
            "client \"bare\" is left out",
            "clients left out: 1 for wallets of an unknown kind",
            "refresh tokens left out: 1 of a client that is not here",
            "refresh tokens left out: 1 of an address that is none",
            "refresh tokens left out: 1 with scopes that there are not",
            "events left out: 1 of a client that is not here",
            "events left out: 1 with an unknown outcome",
            "events left out: 1 with a malformed subject",
            "events left out: 1 with malformed metadata",
            "client \"links\": the redirect URI \"javascript:alert(1)\" is left out",
            "client \"links\": the redirect URI \"myapp://callback\" is left out",
            "client \"links\": the redirect URI \"\" is left out",
            "client \"nowhere\": it has no redirect URI",
            "client \"grants\": the grant type \"password\" is left out",
            "client \"scopes\": the allowed scope \"profile\" stays, and allows nothing",
            "client \"origins\": the origin \"\" is left out",
            "client \"strange\": its secret is kept in a form that cannot be checked",
        ] {
            assert!(report.contains(told), "{told}\n{report}");
        }
        assert!(!report.contains("$2b$"), "{report}");
        start(&mut server);
        for (id, field, value) in [
            ("links", "redirect_uris", json!(["https://app.example/callback"])),
            ("nowhere", "redirect_uris", json!([])),
            ("grants", "grant_types", json!(["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"])),
            ("scopes", "allowed_scopes", json!(["profile"])),
            ("origins", "allowed_origins", json!(["https://app.example"])),
            ("several", "allowed_sign_methods", json!(["evm"])),
            ("early", "allowed_sign_methods", json!(["sr25519"])),
        ] {
            assert_eq!(client(&server, id)[field], value, "{id}");
        }
        assert_eq!(client(&server, "bare"), json!(null), "it must not become a public client");
        for (id, redirect) in [("links", "javascript:alert(1)"), ("links", ""), ("nowhere", "myapp://callback")] {
            let registration = public(id);
            let app = App { server: &server, client: &registration };
            assert_eq!(app.authorize(&[("redirect_uri", redirect)]).status, 400, "{id} {redirect}");
        }
        let scopes = public("scopes");
        let widened = App { server: &server, client: &scopes }.authorize(&[("scope", "tao:holder")]);
        assert_eq!(widened.status, 403, "a list of nothing that is known allows nothing: {}", widened.text());
        let strange = json!({ "client_id": "strange", "client_secret": "$2b$10$hash" });
        assert_eq!(App { server: &server, client: &strange }.refresh("x").json()["error"], "invalid_client");
    }
}

/// In production codes travel encrypted or not at all.
#[test]
fn plain_http_is_left_out_in_production() {
    let old = OldDatabase::fresh();
    old.client("app", "redirect_uris = '{http://app.example/cb,http://127.0.0.1:8080/cb,https://app.example/cb}'");
    let server = prepared(
        settings()
            .variable("NODE_ENV", "production")
            .variable("PUBLIC_URL", "https://auth.example")
            .variable("DATABASE_URL", old.url()),
    );
    let report = import(&server, &old);
    assert!(report.contains("\"http://app.example/cb\" is left out: it must begin with https://"), "{report}");
    let uris = old.database.value("select array_to_string(redirect_uris, ' ') from oauth_client");
    assert_eq!(uris, "http://127.0.0.1:8080/cb https://app.example/cb");
}

#[test]
fn schemas_of_every_age_are_read_and_others_refused() {
    for (migrations, tokens, events) in [(1, 0, 0), (2, 1, 0), (8, 1, 0), (9, 1, 0), (12, 1, 0), (13, 1, 1)] {
        let old = OldDatabase::migrated(migrations);
        old.database
            .execute("insert into oauth_clients (client_id, client_name, client_type) values ('app', 'A', 'public')");
        if migrations >= 2 {
            old.refresh_token("app", &wallet().address());
        }
        if migrations >= 13 {
            old.event("app", 1, "authorize", "success", "");
        }
        let server = prepared(settings());
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [1, 0, 0, 0, 0], "{migrations}: {report}");
        assert_eq!(numbers(&report, "refresh tokens")[0], tokens, "{migrations}: {report}");
        assert_eq!(numbers(&report, "events")[0], events, "{migrations}: {report}");
    }
    for (change, told) in [
        (
            "insert into _migrations (name) values ('014_new.sql')",
            "has the migration 014_new.sql, which the import does not know",
        ),
        ("insert into _migrations (name) values ('initial.sql')", "has the migration initial.sql"),
        ("delete from _migrations", "has no table oauth_clients"),
        ("drop table _migrations", "has no table _migrations"),
        ("alter table refresh_tokens rename to tokens", "has no table refresh_tokens"),
        ("alter table oauth_clients rename column client_secret_hash to secret", "has no column client_secret_hash"),
        ("alter table oauth_events drop column subject_hash", "has no column subject_hash"),
        ("alter table refresh_tokens rename column jti to id", "has no column jti"),
    ] {
        let old = OldDatabase::fresh();
        old.client("app", "");
        old.database.execute(change);
        let server = prepared(settings());
        let (done, told_so) = attempt(&server, &arguments(&old, &[]));
        assert!(!done && told_so.contains(told), "{change}: {told_so}");
        assert!(!told_so.contains("TAKEN OVER"), "{told_so}");
    }
}

#[test]
fn databases_that_are_not_there_or_not_open_are_said_to_be() {
    let empty = Database::fresh();
    let server = prepared(settings());
    let nobody = format!("postgres://me:a-password-of-mine@127.0.0.1:{}/auth", free_port());
    let password = secret("a-password-of-mine");
    for (url, told) in [
        ("", "--from"),
        ("auth_gateway", "it must be the URL of a Postgres database"),
        ("mysql://me@localhost/auth", "it must be the URL of a Postgres database"),
        ("sqlite://auth.db", "it must be the URL of a Postgres database"),
        ("postgres://me:a-password-of-mine@host:port/auth", "it must be the URL of a Postgres database"),
        (&*nobody, "the database auth at 127.0.0.1"),
        (&format!("{}_missing", empty.url), "cannot be opened"),
        (&*empty.url, "it is not an auth gateway's database"),
    ] {
        let mut arguments = vec!["import", "auth-gateway"];
        if !url.is_empty() {
            arguments.extend(["--from", url]);
        }
        let (done, told_so) = attempt(&server, &arguments);
        assert!(!done && told_so.contains(told), "{url}: {told_so}");
        assert!(!told_so.contains(&password), "{told_so}");
    }
    let (done, told) = attempt(
        &prepared(crate::support::Settings::file().paid("")),
        &["import", "auth-gateway", "--from", &empty.url],
    );
    assert!(!done && told.contains("no authorization server is configured"), "{told}");
    let old = OldDatabase::fresh();
    let server = prepared(settings().variable("DATABASE_URL", old.url()).variable("RUN_MIGRATIONS", "false"));
    let (done, told) = attempt(&server, &["import", "auth-gateway"]);
    assert!(!done && told.contains("tollgate migrate"), "{told}");
}

/// A role that may read is enough, one that may not is told what it lacks.
#[test]
fn reading_rights_are_all_that_is_needed() {
    let old = OldDatabase::fresh();
    old.client("app", "");
    old.refresh_token("app", &wallet().address());
    let role = old.url().rsplit_once('/').unwrap().1.replace("tollgate_gate", "reader");
    old.database.execute(&format!("create role {role} login password 'reader'"));
    let host = old.url().rsplit_once('@').unwrap().1;
    let url = format!("postgres://{role}:reader@{host}");
    let server = prepared(settings());
    let read = ["import", "auth-gateway", "--from", &url];
    for table in ["_migrations", "oauth_clients", "refresh_tokens", "oauth_events"] {
        let (done, told) = attempt(&server, &read);
        assert!(!done && told.contains(&format!("grant select on {table} to {role}")), "{told}");
        old.database.execute(&format!("grant select on {table} to {role}"));
    }
    let (done, told) = attempt(&server, &read);
    assert!(done, "{told}");
    assert_eq!(numbers(&told, "refresh tokens"), [1, 0, 0, 0, 0], "{told}");
    old.database.execute(&format!("drop owned by {role}; drop role {role}"));
}
