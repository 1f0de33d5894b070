//! Imports that are repeated, overtaken and interrupted.

use std::process::Stdio;

use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};

use super::{arguments, both, client, import, in_its_place, numbers, ordinary, public, start, wallet};
use crate::support::{
    auth_gateway::OldDatabase,
    eventually,
    oauth::Server,
    run,
    sign_in::{App, remembered},
};

/// The old server goes on serving after a first import: what happened there meanwhile comes, what happened here stays.
#[test]
fn a_second_import_brings_what_is_new_and_undoes_nothing() {
    for mut server in both() {
        let old = OldDatabase::fresh();
        ordinary(&old);
        old.client("renamed", "");
        let address = wallet().address();
        let [used, rotated, forgotten, kept] = [(); 4].map(|()| old.refresh_token("device", &address));
        import(&server, &old);
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [0, 0, 4, 0, 0], "{report}");
        assert_eq!(numbers(&report, "refresh tokens"), [0, 0, 4, 0, 0], "{report}");
        assert_eq!(numbers(&report, "events"), [0, 0, 4, 0, 0], "{report}");
        start(&mut server);

        // Here:
        let device = public("device");
        let device = App { server: &server, client: &device };
        let tokens = remembered(&device.refresh(&used.jwt));
        let renamed = server.admin("PATCH", "/v1/admin/clients/renamed", Some(&json!({ "client_name": "Ours" })));
        assert_eq!(renamed.status, 200, "{}", renamed.text());
        // There:
        let fresh = old.refresh_token("device", &address);
        old.client("new", "");
        old.event("new", 1, "authorize", "success", "");
        old.database.execute(&format!(
            "update refresh_tokens set revoked = true where jti = '{}';
             delete from refresh_tokens where jti = '{}';
             update oauth_clients set client_name = 'Theirs', updated_at = now() where client_id in ('renamed', 'device');
             update oauth_clients set active = false where client_id = 'app'",
            rotated.jti, forgotten.jti
        ));
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [1, 2, 2, 0, 0], "{report}");
        assert_eq!(numbers(&report, "refresh tokens"), [1, 0, 2, 2, 1], "{report}");
        assert_eq!(numbers(&report, "events"), [1, 0, 4, 0, 0], "{report}");
        assert!(report.contains("\"renamed\" stays as it is here"), "{report}");
        assert_eq!(client(&server, "renamed")["client_name"], "Ours");
        assert_eq!(client(&server, "device")["client_name"], "Theirs");
        assert_eq!(client(&server, "app")["active"], false);

        for (token, status, what) in [
            (&rotated, 401, "used there meanwhile"),
            (&forgotten, 401, "used and swept there meanwhile"),
            (&kept, 200, "still good there"),
            (&fresh, 200, "new there"),
        ] {
            let answer = device.refresh(&token.jwt);
            assert_eq!(answer.status, status, "{what}: {}", answer.text());
        }
        let answer = device.refresh(tokens["refresh_token"].as_str().unwrap());
        assert_eq!(answer.status, 200, "what was used here goes on: {}", answer.text());
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [0, 0, 5, 0, 0], "{report}");
        assert_eq!(numbers(&report, "refresh tokens"), [0, 0, 3, 0, 1], "{report}");
    }
}

/// A secret that was changed here is not changed back, and one that was changed there comes.
#[test]
fn secrets_follow_the_side_that_changed_them() {
    let old = OldDatabase::fresh();
    for id in ["here", "there"] {
        let hash = crate::support::auth_gateway::SECRET_HASH;
        old.client(id, &format!("client_type = 'confidential', client_secret_hash = '{hash}'"));
    }
    let mut server = in_its_place(&old);
    import(&server, &old);
    start(&mut server);
    let rotated = server.gateway.cli(&["client", "rotate-secret", "here"]);
    let theirs = "scrypt$16384$8$1$AAECAwQFBgcICQoLDA0ODw$AAECAwQFBgcICQoLDA0ODwABAgMEBQYHCAkKCwwNDg8";
    old.database.execute(&format!("update oauth_clients set client_secret_hash = '{theirs}', updated_at = now()"));
    let report = import(&server, &old);
    assert_eq!(numbers(&report, "clients"), [0, 1, 1, 0, 0], "{report}");
    let ours = rotated.lines().find_map(|line| line.strip_prefix("client_secret")).unwrap().trim();
    let ours = crate::support::secret(ours);
    let example = crate::support::auth_gateway::SECRET;
    for (id, secret, good) in
        [("here", &*ours, true), ("here", example, false), ("there", example, false), ("there", &ours, false)]
    {
        let registration = json!({ "client_id": id, "client_secret": secret });
        let error = App { server: &server, client: &registration }.refresh("nonsense").json()["error"].clone();
        assert_eq!(error, if good { "invalid_grant" } else { "invalid_client" }, "{id}");
    }
}

/// Killed in the middle, and run again: all of it is there, once.
#[test]
fn an_interrupted_import_is_finished_by_the_next_one() {
    const ROWS: u64 = 6000;
    for mut server in both() {
        let old = OldDatabase::fresh();
        old.client("app", "");
        let token = old.refresh_token("app", &wallet().address());
        old.database.execute(&format!(
            "insert into refresh_tokens (jti, client_id, address, scopes, expires_at)
             select gen_random_uuid(), 'app', '{address}', '{{openid}}', now() + interval '1 hour'
               from generate_series(2, {ROWS});
             insert into oauth_events (client_id, event_type, outcome, subject_hash)
             select 'app', 'token_refresh', 'success', sha256('{address}'::bytea) from generate_series(1, {ROWS})",
            address = wallet().address()
        ));
        // So that its tables are there to be looked at.
        server.gateway.cli(&["migrate"]);
        let mut command = server.gateway.command();
        let mut child = command.args(arguments(&old, &[])).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the import has begun", || (taken_over(&server) > 0).then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
        let done = taken_over(&server);
        assert!(done < ROWS, "it was interrupted");
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "refresh tokens"), [ROWS - done, 0, done, 0, 0], "{report}");
        assert_eq!(numbers(&report, "events"), [ROWS, 0, 0, 0, 0], "{report}");
        assert_eq!(taken_over(&server), ROWS);
        start(&mut server);
        let app = public("app");
        assert_eq!(App { server: &server, client: &app }.refresh(&token.jwt).status, 200);
        let stats = server.admin("GET", "/v1/admin/clients/app/stats", None).json();
        assert!(stats["totals"]["exchanges"].as_u64().unwrap() >= ROWS, "{stats}");
    }
}

/// How many refresh tokens are in the server's store.
fn taken_over(server: &Server) -> u64 {
    if let Some(database) = &server.database {
        let count = database.value("select count(*)::text from oauth_refresh_token where taken_over");
        return count.parse().unwrap();
    }
    let file = format!("sqlite://{}?mode=ro", server.gateway.directory().join("data/tollgate.db").display());
    let count: i64 = run(async {
        let mut connection = SqliteConnection::connect(&file).await.unwrap();
        let count = sqlx::query_scalar("select count(*) from oauth_refresh_token where taken_over");
        count.fetch_one(&mut connection).await.unwrap()
    });
    count.try_into().unwrap()
}
