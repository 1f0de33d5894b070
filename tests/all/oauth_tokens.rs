//! What becomes of tokens: refreshing, taking back, asking about them, two gateways on one database.

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, Gateway, Request,
    database::Database,
    eventually,
    oauth::{Server, refused, settings, standard},
    secret,
    sign_in::{App, REDIRECT, VERIFIER, registration, remembered},
    wallet::EthereumWallet,
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(11)
}

fn refresh_of(tokens: &Value) -> &str {
    tokens["refresh_token"].as_str().unwrap()
}

#[test]
fn a_token_request_can_ask_for_less_scope_and_never_for_more() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let tokens = app.tokens(&wallet);
    let with = |token: &str, name: &str, value: &str| {
        app.token(&[("grant_type", "refresh_token"), ("refresh_token", token), (name, value)])
    };
    assert_eq!(refused(&with(refresh_of(&tokens), "scope", "openid tao:holder")), (400, "invalid_scope".into()));
    assert_eq!(refused(&with(refresh_of(&tokens), "resource", "https://a.example")), (400, "invalid_target".into()));
    let narrow = remembered(&with(refresh_of(&tokens), "scope", ""));
    assert_eq!(narrow["scope"], "");
    assert!(narrow.get("id_token").is_none());
    let full = remembered(&app.refresh(refresh_of(&narrow)));
    assert_eq!(full["scope"], "openid", "what was granted is still granted");
}

#[test]
fn a_refresh_token_expires() {
    let server = Server::start(settings().variable("JWT_REFRESH_TOKEN_EXPIRY", "1"));
    let client = server.register(&registration("confidential"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let tokens = app.tokens(&wallet);
    let fields = [
        ("client_id", app.id()),
        ("client_secret", client["client_secret"].as_str().unwrap()),
        ("token", refresh_of(&tokens)),
    ];
    eventually("a refresh token that nobody has used expires", || {
        (server.post_form("/v1/oauth/introspect", &fields).json()["active"] == false).then_some(())
    });
    let answer = app.refresh(refresh_of(&tokens));
    assert_eq!(refused(&answer), (401, "invalid_grant".into()));
    assert!(answer.text().contains("expired"), "{}", answer.text());
}

#[test]
fn a_client_takes_its_own_tokens_back() {
    for server in Server::on_both(&standard()) {
        let client = server.register(&registration("confidential"));
        let foreign = server.register(&registration("public"));
        let (app, wallet) = (App { server: &server, client: &client }, wallet());
        let revoke = |client: &Value, token: &str| {
            let mut fields = vec![("client_id", client["client_id"].as_str().unwrap()), ("token", token)];
            fields.extend(client["client_secret"].as_str().map(|secret| ("client_secret", secret)));
            server.post_form("/v1/oauth/revoke", &fields)
        };
        for kind in ["access_token", "refresh_token"] {
            let tokens = app.tokens(&wallet);
            let token = tokens[kind].as_str().unwrap();
            assert_eq!(refused(&revoke(&foreign, token)), (400, "unauthorized_client".into()), "{kind}");
            let nobody = server.post_form("/v1/oauth/revoke", &[("token", token), ("client_id", app.id())]);
            assert_eq!(refused(&nobody), (401, "invalid_client".into()));
            let access = Request::get("/v1/oauth/userinfo").token(tokens["access_token"].as_str().unwrap());
            assert_eq!(server.send(&access).status, 200);
            assert_eq!(revoke(&client, token).status, 200, "{kind}");
            assert_eq!(revoke(&client, token).status, 200, "again");
            assert_eq!(server.send(&access).status, 401, "{kind}");
            assert_eq!(refused(&app.refresh(refresh_of(&tokens))), (400, "invalid_grant".into()), "{kind}");
        }
        for nonsense in ["nonsense", "tgr_x", ""] {
            assert_eq!(revoke(&client, nonsense).status, 200, "what is no token is as good as taken back");
        }
        let missing = server.post_form("/v1/oauth/revoke", &[("client_id", foreign["client_id"].as_str().unwrap())]);
        assert_eq!(refused(&missing), (400, "invalid_request".into()));
    }
}

#[test]
fn a_resource_server_asks_about_tokens() {
    for server in Server::on_both(&standard()) {
        let client = server.register(&registration("confidential"));
        let public = server.register(&registration("public"));
        let resource_server = server.register(&registration("confidential"));
        let (app, wallet) = (App { server: &server, client: &client }, wallet());
        let ask = |client: &Value, token: &str| {
            let mut fields = vec![("client_id", client["client_id"].as_str().unwrap()), ("token", token)];
            fields.extend(client["client_secret"].as_str().map(|secret| ("client_secret", secret)));
            server.post_form("/v1/oauth/introspect", &fields)
        };
        let tokens = app.tokens(&wallet);
        let access = tokens["access_token"].as_str().unwrap();
        let found = ask(&resource_server, access).json();
        for (name, value) in [
            ("active", json!(true)),
            ("sub", json!(wallet.address())),
            ("client_id", json!(app.id())),
            ("scope", json!("openid")),
            ("token_type", json!("Bearer")),
            ("aud", json!("bittensor-apps")),
            ("iss", json!("http://localhost:3000")),
        ] {
            assert_eq!(found[name], value, "{name}: {found}");
        }
        assert!(found["exp"].is_i64() && found["iat"].is_i64() && found["jti"].is_string());
        let inactive = json!({ "active": false });
        assert_eq!(ask(&resource_server, refresh_of(&tokens)).json(), inactive, "another client's refresh token");
        assert_eq!(ask(&client, refresh_of(&tokens)).json()["active"], true);
        let mut forged = access.to_owned();
        forged.replace_range(
            access.len() - 5..access.len() - 4,
            if access.as_bytes()[access.len() - 5] == b'A' { "B" } else { "A" },
        );
        for token in ["", "nonsense", "tgr_x", &forged, tokens["id_token"].as_str().unwrap()] {
            assert_eq!(ask(&resource_server, token).json(), inactive, "{token}");
        }
        assert_eq!(refused(&ask(&public, access)), (401, "invalid_client".into()));
        let hinted = [
            ("client_id", app.id()),
            ("client_secret", client["client_secret"].as_str().unwrap()),
            ("token", refresh_of(&tokens)),
            ("token_type_hint", "access_token"),
        ];
        assert_eq!(
            server.post_form("/v1/oauth/introspect", &hinted).json()["active"],
            true,
            "a wrong hint hurts nobody"
        );

        remembered(&app.refresh(refresh_of(&tokens)));
        assert_eq!(ask(&client, refresh_of(&tokens)).json(), inactive, "used");
        assert_eq!(ask(&resource_server, access).json()["active"], true);
    }
}

#[test]
fn user_info_is_for_those_who_have_an_access_token_with_openid() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let tokens = app.tokens(&wallet);
    let access = tokens["access_token"].as_str().unwrap();
    let asked = server.send(&Request::get("/v1/oauth/userinfo").token(access));
    assert_eq!(
        asked.json(),
        json!({ "sub": wallet.address(), "hotkey": null, "coldkey": null, "evm_address": wallet.address(), "signer_type": "evm" })
    );
    assert_eq!(asked.header("cache-control"), Some("no-store"));
    assert_eq!(server.send(&Request::post("/v1/oauth/userinfo", "").token(access)).status, 200);
    for value in [format!("Basic {access}"), "Bearer".into(), "Bearer x".into(), format!("Bearer {access}x")] {
        let answer = server.send(&Request::get("/v1/oauth/userinfo").header("Authorization", &value));
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    }
    let page = app.page(&[("scope", "")]);
    let nonce = app.challenge(&page, Some(&wallet.address())).json()["nonce"].as_str().unwrap().to_owned();
    let code = app.callback(&page, &nonce, &wallet.address(), &wallet.sign(&nonce)).json()["code"].clone();
    let without = remembered(&app.redeem(&secret(code.as_str().unwrap())));
    assert!(without.get("id_token").is_none());
    let refused = server.send(&Request::get("/v1/oauth/userinfo").token(without["access_token"].as_str().unwrap()));
    assert_eq!(refused.status, 403);
    assert!(refused.header("www-authenticate").unwrap().contains("insufficient_scope"));
}

/// RFC 6750 section 3. The replaced server had no such endpoint, so that nothing of its is to be kept.
#[test]
fn user_info_always_says_how_it_is_asked() {
    for settings in [standard(), settings()] {
        let server = Server::start(settings);
        let nobody = server.get("/v1/oauth/userinfo");
        assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, Some("Bearer realm=\"tollgate\"")));
        let wrong = server.send(&Request::get("/v1/oauth/userinfo").token("nonsense"));
        let challenge = Some("Bearer realm=\"tollgate\", error=\"invalid_token\"");
        assert_eq!((wrong.status, wrong.header("www-authenticate")), (401, challenge));
    }
}

#[test]
fn the_metadata_name_what_there_is() {
    let server = Server::start(standard());
    let document = server.get("/.well-known/openid-configuration").json();
    assert_eq!(document, server.get("/.well-known/oauth-authorization-server").json());
    for (name, path) in [
        ("authorization_endpoint", "/v1/oauth/authorize"),
        ("token_endpoint", "/v1/oauth/token"),
        ("device_authorization_endpoint", "/v1/device/code"),
        ("userinfo_endpoint", "/v1/oauth/userinfo"),
        ("introspection_endpoint", "/v1/oauth/introspect"),
        ("revocation_endpoint", "/v1/oauth/revoke"),
        ("jwks_uri", "/.well-known/jwks.json"),
    ] {
        assert_eq!(document[name], format!("http://localhost:3000{path}"), "{name}");
        let there = server.send(&Request::new("OPTIONS", path)).status;
        assert_ne!(there, 404, "{path}");
    }
    assert_eq!(document["authorization_response_iss_parameter_supported"], true);
    assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(document["request_uri_parameter_supported"], false, "who says nothing supports it");
}

/// Sends the same request to both at the same time, on connections that are there already.
fn both(connections: &mut [Client; 2], requests: &[Request; 2]) -> [Answer; 2] {
    let [one, two] = connections;
    one.write(requests[0].bytes());
    two.write(requests[1].bytes());
    [one.answer("POST"), two.answer("POST")]
}

/// Codes, nonces and refresh tokens, a thousand races each between two gateways on one Postgres. Each kind's winner goes
/// on to the next race, so that what is raced for is what clients really have.
#[test]
fn two_gateways_on_one_database_behave_as_one_drill() {
    const RACES: usize = 1000;
    let database = Database::fresh();
    let settings = settings().variable("DATABASE_URL", &database.url);
    let first = Server { gateway: Gateway::start(settings.clone()), database: None };
    let second = Gateway::start(settings);
    let client = first.register(&registration("public"));
    let (app, wallet) = (App { server: &first, client: &client }, wallet());
    let address = wallet.address();
    let mut connections = [Client::connect(first.gateway.http), Client::connect(second.http)];
    let json_request = |path: &str, body: &Value| {
        Request::post(path, body.to_string())
            .header("Content-Type", "application/json")
            .header("Origin", crate::support::oauth::PUBLIC_URL)
    };
    let winner = |answers: &[Answer; 2], what: &str, race: usize| {
        let won: Vec<usize> = (0..2).filter(|index| answers[*index].status == 200).collect();
        let texts = || answers.iter().map(Answer::text).collect::<Vec<_>>();
        assert_eq!(won.len(), 1, "{what} race {race}: {:?}", texts());
        let lost = &answers[1 - won[0]];
        assert!(matches!(lost.status, 400 | 401), "{what} race {race}: {:?}", texts());
        won[0]
    };
    let page = app.page(&[]);
    let refresh = remembered(&app.redeem(&app.code(&wallet, &[])));
    let mut refresh = refresh_of(&refresh).to_owned();
    for race in 0..RACES {
        // A page, from one gateway; the answer to its challenge, at both.
        let link = crate::support::sign_in::link(&app.parameters(), &[]);
        let opened = connections[race % 2].send(&Request::get(&link).header("Cookie", &page.cookie));
        let session = crate::support::sign_in::page(&opened).session;
        let asked = json_request("/v1/oauth/challenge", &json!({ "session_id": session, "address": address }))
            .header("Cookie", &page.cookie);
        let nonce = connections[(race + 1) % 2].send(&asked).json()["nonce"].as_str().unwrap().to_owned();
        let body =
            json!({ "session_id": session, "nonce": nonce, "address": address, "signature": wallet.sign(&nonce) });
        let answered = json_request("/v1/oauth/callback", &body).header("Cookie", &page.cookie);
        let answers = both(&mut connections, &[answered.clone(), answered]);
        let won = winner(&answers, "nonce", race);
        let code = secret(answers[won].json()["code"].as_str().unwrap());
        let exchange = app.token_request(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ]);
        let answers = both(&mut connections, &[exchange.clone(), exchange]);
        winner(&answers, "code", race);
        let exchange = app.token_request(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)]);
        let answers = both(&mut connections, &[exchange.clone(), exchange]);
        let won = winner(&answers, "refresh", race);
        refresh_of(&answers[won].json()).clone_into(&mut refresh);
    }
    assert_eq!(app.refresh(&refresh).status, 200, "after a thousand races the family is well");
}
