//! Refresh tokens of the auth gateway at our token endpoint: each once, and nothing else.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use serde_json::{Value, json};
use tollgate::{
    jose::{Algorithm, SigningKey},
    model::clock::Timestamp,
};

use super::{both, confidential, import, in_its_place, numbers, prepared, public, start, wallet};
use crate::support::{
    Answer, Request, Settings,
    auth_gateway::{OldDatabase, SECRET_HASH},
    database::Database,
    eventually,
    gateway::storm,
    oauth::{Server, data, settings},
    secret,
    sign_in::{App, claims, remembered},
    subtensor::Node,
    wallet::{BittensorWallet, EthereumWallet},
};

#[track_caller]
fn refused(answer: &Answer, error: &str, what: &str) {
    let told = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    assert_eq!((answer.status, told.as_str()), (401, error), "{what}: {}", answer.text());
}

/// A server with the old key and rows, and somebody who holds a good token of the client `app`.
fn moved(old: &OldDatabase, settings: Settings) -> Server {
    let mut server = prepared(settings);
    import(&server, old);
    start(&mut server);
    server
}

fn two_clients() -> OldDatabase {
    let old = OldDatabase::fresh();
    old.client("app", "");
    old.client("other", "");
    old
}

#[test]
fn nothing_but_a_refresh_token_that_was_taken_over_is_taken() {
    let old = two_clients();
    let address = wallet().address();
    let good = old.refresh_token("app", &address);
    let revoked = old.refresh_token("app", &address);
    let expired = old.refresh_token("app", &address);
    let secret_app = format!("client_type = 'confidential', client_secret_hash = '{SECRET_HASH}'");
    old.client("closed", &secret_app);
    let closed = old.refresh_token("closed", &address);
    old.database.execute(&format!(
        "update refresh_tokens set revoked = true where jti = '{}';
         update refresh_tokens set expires_at = now() - interval '1 second' where jti = '{}'",
        revoked.jti, expired.jti
    ));
    let server = moved(&old, settings());
    let (app, other) = (public("app"), public("other"));
    let (app, other) = (App { server: &server, client: &app }, App { server: &server, client: &other });

    refused(&other.refresh(&good.jwt), "invalid_client", "another client's");
    refused(&app.refresh(&closed.jwt), "invalid_client", "another client's");
    refused(&App { server: &server, client: &public("closed") }.refresh(&closed.jwt), "invalid_client", "no secret");
    refused(&App { server: &server, client: &public("nobody") }.refresh(&good.jwt), "invalid_client", "no client");
    let foreign = SigningKey::from_pem(&Algorithm::Rs256.generate().unwrap()).unwrap();
    let of_their_own = secret(foreign.sign_compact("JWT", &good.claims).unwrap());
    // The right key's name, and another key's signature.
    let [header, body, signature]: [&str; 3] = good.jwt.split('.').collect::<Vec<_>>().try_into().unwrap();
    let of_another = format!("{header}.{body}.{}", of_their_own.rsplit('.').next().unwrap());
    let body_of = |jwt: &str| jwt.split('.').nth(1).unwrap().to_owned();
    let longer = old.altered(&good, "exp", json!(Timestamp::now().plus(Duration::from_hours(999)).0));
    let transplanted = format!("{header}.{}.{signature}", body_of(&longer));
    let unsigned = format!("{}.{body}.", base64(br#"{"alg":"none","typ":"JWT"}"#));
    let symmetric = format!("{}.{body}.{signature}", base64(br#"{"alg":"HS256","typ":"JWT"}"#));
    let now = Timestamp::now().0;
    for (what, token) in [
        ("used or revoked there", revoked.jwt.clone()),
        ("its row has expired", expired.jwt.clone()),
        ("never in the database", old.unknown_token("app", &address).jwt),
        ("signed by somebody else", of_their_own),
        ("signed by somebody else in our name", of_another),
        ("with a longer life than was signed", transplanted),
        ("not signed", unsigned),
        ("with another algorithm", symmetric),
        ("an access token", old.altered(&good, "type", json!("access"))),
        ("a code", old.altered(&good, "type", json!("auth_code"))),
        ("an ID token", old.altered(&good, "type", json!("id"))),
        ("of no type", old.altered(&good, "type", Value::Null)),
        ("with the type of our access tokens", old.sign("at+jwt", &good.claims)),
        ("of another issuer", old.altered(&good, "iss", json!("https://elsewhere.example"))),
        ("of no issuer", old.altered(&good, "iss", Value::Null)),
        ("expired", old.altered(&good, "exp", json!(now - 1))),
        ("without an end", old.altered(&good, "exp", Value::Null)),
        ("of another client, says the token", old.altered(&good, "client_id", json!("other"))),
        ("of no client", old.altered(&good, "client_id", Value::Null)),
        ("of another wallet", old.altered(&good, "sub", json!(EthereumWallet::new(32).address()))),
        ("without a name", old.altered(&good, "jti", Value::Null)),
        ("with a name that is none", old.altered(&good, "jti", json!("1 or 1=1"))),
        ("by its name alone", good.jti.to_string()),
        ("without its signature", format!("{header}.{body}.")),
        ("with more behind it", format!("{}.x", good.jwt)),
    ] {
        refused(&app.refresh(&token), "invalid_grant", what);
    }
    // Nor is it anything else anywhere else.
    let redeemed = app.redeem(&good.jwt);
    refused(&redeemed, "invalid_grant", "as a code");
    let device = [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", &*good.jwt)];
    assert_eq!(app.token(&device).status, 404, "as a device code");
    assert_eq!(server.send(&Request::get("/v1/oauth/userinfo").token(&good.jwt)).status, 401, "as an access token");

    let tokens = remembered(&app.refresh(&good.jwt));
    refused(&app.refresh(tokens["access_token"].as_str().unwrap()), "invalid_grant", "our access token");
    refused(&app.refresh(tokens["id_token"].as_str().unwrap()), "invalid_grant", "our ID token");
    assert_eq!(app.refresh(tokens["refresh_token"].as_str().unwrap()).status, 200, "none of that has harmed it");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A file's settings: the old key is in a folder as `current.pem`, and no second use is forgiven.
fn configured(database: Option<&Database>) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("current.pem");
    std::fs::copy(data("rsa.pem"), &pem).unwrap();
    std::fs::set_permissions(&pem, std::fs::Permissions::from_mode(0o600)).unwrap();
    let sections = format!(
        "[oauth]\npublic_url = \"http://localhost:3000\"\nproduction = false\nsigning_keys = {:?}\n\
         [oauth.lifetimes]\nrefresh_retry = \"1s\"\n[oauth.limits]\nrequests = 100000\nchallenges = 100000\n\
         [[route]]\nname = \"sign-in\"\npath = \"/v1\"\nupstream = \"authorization-server\"\n",
        folder.path()
    );
    let settings = Settings::file().with(&sections);
    let server = prepared(match database {
        Some(database) => settings.database(&format!("url = \"{}\"", database.url)),
        None => settings,
    });
    (server, folder)
}

#[test]
fn of_a_hundred_who_present_it_at_once_one_gets_tokens() {
    let database = Database::fresh();
    for (mut server, _keys) in [configured(None), configured(Some(&database))] {
        let old = two_clients();
        let token = old.refresh_token("app", &wallet().address());
        import(&server, &old);
        start(&mut server);
        let app = public("app");
        let app = App { server: &server, client: &app };
        let request = app.token_request(&[("grant_type", "refresh_token"), ("refresh_token", &token.jwt)]);
        let answers = storm(server.gateway.http, &request, 100, 100);
        assert_eq!(answers.len(), 100);
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).map(remembered).collect();
        assert_eq!(won.len(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            let error = answer.json()["error"].clone();
            assert_eq!((answer.status, error), (400, json!("invalid_grant")), "{}", answer.text());
        }
    }
}

#[test]
fn a_second_use_later_ends_the_family() {
    for mut server in both() {
        let old = two_clients();
        let token = old.refresh_token("app", &wallet().address());
        let untouched = old.refresh_token("app", &wallet().address());
        import(&server, &old);
        start(&mut server);
        let app = public("app");
        let app = App { server: &server, client: &app };
        let first = remembered(&app.refresh(&token.jwt));
        let next = remembered(&app.refresh(first["refresh_token"].as_str().unwrap()));
        let access = Request::get("/v1/oauth/userinfo").token(next["access_token"].as_str().unwrap());
        assert_eq!(server.send(&access).status, 200);
        eventually("the second use is seen as one", || {
            refused(&app.refresh(&token.jwt), "invalid_grant", "used");
            (server.send(&access).status == 401).then_some(())
        });
        refused(&app.refresh(next["refresh_token"].as_str().unwrap()), "invalid_grant", "of the family");
        // An import brings neither back.
        import(&server, &old);
        refused(&app.refresh(&token.jwt), "invalid_grant", "used");
        refused(&app.refresh(next["refresh_token"].as_str().unwrap()), "invalid_grant", "of the family");
        assert_eq!(app.refresh(&untouched.jwt).status, 200, "another sign-in's");
    }
}

#[test]
fn it_can_be_taken_back_and_asked_about_before_it_is_used() {
    let old = OldDatabase::fresh();
    old.client("app", &format!("client_type = 'confidential', client_secret_hash = '{SECRET_HASH}'"));
    old.client("other", "");
    let token = old.refresh_token("app", &wallet().address());
    let server = moved(&old, settings());
    let registration = confidential("app");
    let app = App { server: &server, client: &registration };
    let fields = [
        ("client_id", app.id()),
        ("client_secret", registration["client_secret"].as_str().unwrap()),
        ("token", &*token.jwt),
    ];
    let found = server.post_form("/v1/oauth/introspect", &fields).json();
    assert_eq!((&found["active"], &found["sub"]), (&json!(true), &json!(wallet().address())), "{found}");
    assert_eq!(found["exp"], token.claims["exp"]);
    let others = server.post_form("/v1/oauth/revoke", &[("client_id", "other"), ("token", &*token.jwt)]);
    assert_eq!(others.status, 400, "{}", others.text());
    assert_eq!(server.post_form("/v1/oauth/revoke", &fields).status, 200);
    assert_eq!(server.post_form("/v1/oauth/introspect", &fields).json(), json!({ "active": false }));
    refused(&app.refresh(&token.jwt), "invalid_grant", "taken back");
    import(&server, &old);
    refused(&app.refresh(&token.jwt), "invalid_grant", "taken back before the import");
}

/// What kind of key signed is not in the old database: the chain says so, or nobody gets anything.
#[test]
fn a_bittensor_wallet_s_is_good_when_the_chain_says_whose_it_is() {
    let old = OldDatabase::fresh();
    old.client("app", "allowed_sign_methods = '{sr25519}', allowed_scopes = '{}'");
    let hotkey = BittensorWallet::new("//Alice//hot").address();
    // The same account with another network's prefix, as it was accepted and kept there.
    let alice = "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5";
    let (first, second) = (old.refresh_token("app", &hotkey), old.refresh_token("app", alice));
    let closed = moved(&old, settings());
    let app = public("app");
    let answer = App { server: &closed, client: &app }.refresh(&first.jwt);
    assert_eq!(answer.status, 503, "{}", answer.text());

    let node = Node::start();
    let server = moved(&old, settings().variable("SUBTENSOR_WS_URL", node.url()));
    let app = App { server: &server, client: &app };
    let coldkey = BittensorWallet::new("//Alice").address();
    for (token, expected) in
        [(&first, json!(["hotkey", hotkey, hotkey, coldkey])), (&second, json!(["coldkey", coldkey, null, coldkey]))]
    {
        let answer = app.refresh(&token.jwt);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = remembered(&answer);
        let claims = claims(&tokens["access_token"]);
        let told = ["signer_type", "sub", "hotkey", "coldkey"].map(|name| claims[name].clone());
        assert_eq!(json!(told), expected);
        assert_eq!(app.refresh(tokens["refresh_token"].as_str().unwrap()).status, 200);
    }
}

/// The family is as old as the token: thirty days, and never shorter than the token was promised to live.
#[test]
fn what_follows_it_ends_when_the_family_does() {
    let old = OldDatabase::fresh();
    old.client("app", &format!("client_type = 'confidential', client_secret_hash = '{SECRET_HASH}'"));
    let ancient = old.refresh_token("app", &wallet().address());
    let ordinary = old.refresh_token("app", &wallet().address());
    old.database.execute(&format!(
        "update refresh_tokens set created_at = now() - interval '40 days' where jti = '{}'",
        ancient.jti
    ));
    let server = moved(&old, settings().variable("JWT_REFRESH_TOKEN_EXPIRY", "31536000"));
    let registration = confidential("app");
    let app = App { server: &server, client: &registration };
    let end = |token: &Value| {
        let fields = [
            ("client_id", app.id()),
            ("client_secret", registration["client_secret"].as_str().unwrap()),
            ("token", token["refresh_token"].as_str().unwrap()),
        ];
        server.post_form("/v1/oauth/introspect", &fields).json()["exp"].clone()
    };
    assert_eq!(end(&remembered(&app.refresh(&ancient.jwt))), ancient.claims["exp"]);
    let issued = ordinary.claims["iat"].as_i64().unwrap();
    assert_eq!(end(&remembered(&app.refresh(&ordinary.jwt))), json!(issued + 30 * 86_400));
}

#[test]
fn a_client_that_was_deactivated_here_keeps_none() {
    for mut server in both() {
        let old = two_clients();
        let token = old.refresh_token("app", &wallet().address());
        import(&server, &old);
        start(&mut server);
        server.gateway.cli(&["client", "deactivate", "app"]);
        let later = old.refresh_token("app", &wallet().address());
        let report = import(&server, &old);
        assert_eq!(numbers(&report, "clients"), [0, 0, 2, 0, 0], "{report}");
        assert_eq!(numbers(&report, "refresh tokens"), [0, 0, 0, 0, 2], "{report}");
        assert!(report.contains("\"app\" stays as it is here"), "{report}");
        let app = public("app");
        for token in [token, later] {
            refused(&App { server: &server, client: &app }.refresh(&token.jwt), "invalid_client", "deactivated");
        }
    }
}

#[test]
fn the_old_database_need_not_be_there_any_more() {
    let old = two_clients();
    let token = old.refresh_token("app", &wallet().address());
    let mut server = in_its_place(&old);
    import(&server, &old);
    old.database.execute(
        "drop table refresh_tokens, challenges, device_codes, consumed_auth_codes, authorize_sessions, oauth_events,
                    oauth_events_hourly, oauth_clients, _migrations, _migration_lock",
    );
    start(&mut server);
    let app = public("app");
    assert_eq!(App { server: &server, client: &app }.refresh(&token.jwt).status, 200);
}
