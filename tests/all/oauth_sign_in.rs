//! Signing in: the direct flow, the authorize page, codes. Through the program, on both databases where it matters.

use serde_json::{Value, json};

use crate::support::{
    Request,
    oauth::{PUBLIC_URL, Server, settings, standard},
    secret,
    sign_in::{App, CHALLENGE, REDIRECT, claims, ours, part, redemption, registration, remembered},
    wallet::{BittensorWallet, EthereumWallet},
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(7)
}

#[track_caller]
fn nonce(answer: &crate::support::Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["nonce"].as_str().unwrap().to_owned()
}

/// Status and `error`, after a look at the rest of the document.
#[track_caller]
fn refused(answer: &crate::support::Answer) -> (u16, String) {
    let document = answer.json();
    assert_eq!(document["statusCode"], json!(answer.status), "{document}");
    assert!(document["message"].as_str().is_some_and(|text| !text.is_empty()), "{document}");
    if let Some(description) = document.get("error_description") {
        assert_eq!(*description, document["message"]);
    }
    (answer.status, document["error"].as_str().unwrap().to_owned())
}

#[test]
fn the_direct_flow_goes_from_challenge_to_token() {
    let form = regex::Regex::new(
        r"^taostats-auth:openid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    )
    .unwrap();
    for server in Server::on_both(&settings()) {
        let wallet = wallet();
        let challenge =
            server.post_json("/v1/auth/challenge", &json!({ "address": wallet.address(), "scopes": ["openid"] }));
        assert_eq!(challenge.json()["expires_in"], 120);
        let nonce = nonce(&challenge);
        assert!(form.is_match(&nonce), "{nonce}");
        let body = json!({ "nonce": nonce, "address": wallet.address(), "signature": wallet.sign(&nonce) });
        let answer = server.post_json("/v1/auth/verify", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let token = remembered(&answer);
        assert_eq!((&token["token_type"], &token["scope"]), (&json!("Bearer"), &json!("openid")));
        assert_eq!(token["expires_in"], 900);
        assert!(token.get("refresh_token").is_none() && token.get("id_token").is_none());
        let claims = claims(&token["access_token"]);
        assert_eq!(claims["sub"], json!(wallet.address()));
        assert_eq!(
            (&claims["type"], &claims["evm_address"], &claims["hotkey"], &claims["coldkey"], &claims["aud"]),
            (&json!("access"), &json!(wallet.address()), &Value::Null, &Value::Null, &json!("bittensor-apps"))
        );
        assert!(claims.get("client_id").is_none());
        assert_eq!(refused(&server.post_json("/v1/auth/verify", &body)), (401, "Unauthorized".into()), "used");
        let no_scopes = server.post_json("/v1/auth/challenge", &json!({}));
        assert!(no_scopes.json()["nonce"].as_str().unwrap().starts_with("taostats-auth:none:"));
    }
}

#[test]
fn a_wrong_direct_answer_burns_the_challenge_and_gets_nothing() {
    let server = Server::start(settings());
    let (wallet, other) = (wallet(), EthereumWallet::new(8));
    let bittensor = BittensorWallet::new("//Alice");
    let fresh =
        |address: Option<String>| nonce(&server.post_json("/v1/auth/challenge", &json!({ "address": address })));
    let verify = |nonce: &str, address: &str, signature: &str| {
        server.post_json("/v1/auth/verify", &json!({ "nonce": nonce, "address": address, "signature": signature }))
    };
    let own = wallet.address();
    for (what, status) in [("signature", 401), ("another's", 401), ("no hex", 401), ("empty", 401), ("other text", 401)]
    {
        let nonce = fresh(None);
        let signature = match what {
            "another's" => other.sign(&nonce),
            "no hex" => "hello".into(),
            "empty" => String::new(),
            "other text" => wallet.sign("something else"),
            _ => wallet.sign(&nonce).replace('1', "2"),
        };
        assert_eq!(verify(&nonce, &own, &signature).status, status, "{what}");
        assert_eq!(verify(&nonce, &own, &wallet.sign(&nonce)).status, 401, "{what}: burned");
    }
    let bound = fresh(Some(own.clone()));
    assert_eq!(refused(&verify(&bound, &other.address(), &other.sign(&bound))), (400, "Bad Request".into()));
    let invented = format!("taostats-auth:none:{}", uuid::Uuid::nil());
    assert_eq!(verify(&invented, &own, &wallet.sign(&invented)).status, 401, "never handed out");
    for (body, text) in [
        (json!({ "address": "0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC" }), "Invalid EVM address"),
        (json!({ "address": "5Grw" }), "Invalid SS58 address"),
        (json!({ "scopes": ["nonsense"] }), "Invalid scope format"),
        (json!({ "address": own, "scopes": ["subnet:1:miner"] }), "not available for EVM wallets"),
    ] {
        let answer = server.post_json("/v1/auth/challenge", &body);
        assert_eq!(refused(&answer), (400, "Bad Request".into()));
        assert!(answer.text().contains(text), "{}", answer.text());
    }
    for body in [json!({}), json!({ "nonce": "x" }), json!({ "nonce": 1, "address": own, "signature": "x" })] {
        let answer = server.post_json("/v1/auth/verify", &body);
        assert_eq!(refused(&answer), (400, "Bad Request".into()));
        assert!(answer.json().get("error_description").is_none());
    }
    // Whose hotkey it is cannot be asked here: neither yes nor no.
    let nonce = fresh(None);
    assert_eq!(verify(&nonce, &bittensor.address(), &bittensor.sign_wrapped(&nonce)).status, 503);
    let nonce = fresh(None);
    assert_eq!(verify(&nonce, &bittensor.address(), &wallet.sign(&nonce)).status, 401);
}

#[test]
fn the_code_flow_goes_from_page_to_tokens() {
    for server in Server::on_both(&settings()) {
        for kind in ["public", "confidential"] {
            let client = server.register(&registration(kind));
            let (app, wallet) = (App { server: &server, client: &client }, wallet());
            let tokens = app.tokens(&wallet);
            assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!("openid")));
            let access = claims(&tokens["access_token"]);
            for (name, value) in [
                ("iss", json!(PUBLIC_URL)),
                ("sub", json!(wallet.address())),
                ("aud", json!("bittensor-apps")),
                ("client_id", json!(app.id())),
                ("scope", json!("openid")),
                ("type", json!("access")),
                ("evm_address", json!(wallet.address())),
                ("hotkey", Value::Null),
                ("coldkey", Value::Null),
                ("signer_type", json!("evm")),
            ] {
                assert_eq!(access.get(name), Some(&value), "{name}");
            }
            let id = claims(&tokens["id_token"]);
            assert_eq!(
                (&id["aud"], &id["nonce"], &id["type"]),
                (&json!(app.id()), &json!("n-0S6_WzA2Mj"), &json!("id"))
            );
            assert!(id["auth_time"].is_i64() && id["at_hash"].as_str().is_some_and(|hash| hash.len() == 22));
            assert!(id.get("jti").is_none());
        }
    }
}

#[test]
fn a_page_says_who_asks_for_what_and_is_locked_down() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let answer = app.authorize(&[("redirect_uri", "https://app.example/cb?x=1")]);
    let page = crate::support::sign_in::page(&answer);
    assert!(page.text.contains("Weather &#60;App&#62;") && !page.text.contains("<App>"), "{}", page.text);
    assert!(
        page.text.contains("openid")
            && page.text.contains("sent back to <strong class=\"who\">https://app.example</strong>")
    );
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
}

/// Of which client, what is changed, and what the answer is.
type Case<'c> = (&'c Value, &'c [(&'c str, &'c str)], u16, &'c str);

#[test]
fn no_wrong_authorization_request_gets_a_page_to_sign_on() {
    let server = Server::start(settings());
    let public = server.register(&registration("public"));
    let confidential = server.register(&registration("confidential"));
    let limited = server.register(&json!({
        "client_name": "limited", "client_type": "public", "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code"], "allowed_scopes": ["subnet:1:miner"],
    }));
    //    client, changed parameters, status, title or text
    let cases: &[Case<'_>] = &[
        (&public, &[("client_id", "")], 400, "Bad Request"),
        (&public, &[("redirect_uri", "")], 400, "Bad Request"),
        (&public, &[("response_type", "")], 400, "Bad Request"),
        (&public, &[("response_type", "token")], 400, "Bad Request"),
        (&public, &[("client_id", "nobody")], 400, "not registered"),
        (&public, &[("client_id", "a\0b")], 400, "not registered"),
        (&public, &[("redirect_uri", "https://app.example/callback/")], 400, "not registered"),
        (&public, &[("redirect_uri", "https://app.example/callback?x")], 400, "not registered"),
        (&public, &[("redirect_uri", "https://evil.example/callback")], 400, "not registered"),
        (&public, &[("redirect_uri", "HTTPS://app.example/callback")], 400, "not registered"),
        (&public, &[("code_challenge", ""), ("code_challenge_method", "")], 400, "PKCE Required"),
        (&public, &[("code_challenge_method", "plain")], 400, "explicit code_challenge_method=S256"),
        (&public, &[("code_challenge_method", "")], 400, "explicit code_challenge_method=S256"),
        (&confidential, &[("code_challenge", "")], 400, "Bad Request"),
        (&confidential, &[("code_challenge_method", "plain")], 400, "explicit code_challenge_method=S256"),
        (&confidential, &[("code_challenge_method", "")], 400, "explicit code_challenge_method=S256"),
        (&public, &[("code_challenge", "tooshort")], 400, "Bad Request"),
        (&public, &[("scope", "openid  openid")], 400, "Invalid Scopes"),
        (&public, &[("scope", " openid")], 400, "Invalid Scopes"),
        (&public, &[("scope", "openid profile")], 400, "Invalid Scopes"),
        (&limited, &[("scope", "subnet:2:miner")], 403, "not allowed"),
        (&public, &[("state", "a\0b")], 400, "Bad Request"),
        (&public, &[("resource", "https://unknown.example")], 400, "Bad Request"),
    ];
    for (client, changed, status, text) in cases {
        let answer = App { server: &server, client }.authorize(changed);
        assert_eq!(answer.status, *status, "{changed:?}");
        assert!(answer.text().contains(text), "{changed:?}: {}", answer.text());
        assert!(answer.header("location").is_none(), "the replaced server never redirected: {changed:?}");
        assert!(!answer.text().contains("data-session"), "{changed:?}");
    }
    let app = App { server: &server, client: &public };
    let twice = format!("{}&scope=openid", crate::support::sign_in::link(&app.parameters(), &[]));
    assert_eq!(server.get(&twice).status, 400);
    assert_eq!(server.send(&Request::new("PUT", "/v1/oauth/authorize")).status, 404);
    assert_eq!(app.authorize(&[("prompt", "login"), ("max_age", "1"), ("unknown", "x")]).status, 200);
}

#[test]
fn what_is_wrong_is_told_to_the_client_once_its_address_is_known_good() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    for (changed, error) in [
        (&[("response_type", "token")][..], "unsupported_response_type"),
        (&[("response_type", "")], "invalid_request"),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("scope", "nonsense")], "invalid_scope"),
        (&[("scope", "subnet:1:miner")], "invalid_scope"),
        (&[("prompt", "none")], "login_required"),
        (&[("response_mode", "form_post")], "invalid_request"),
        (&[("request", "e30.e30."), ("response_type", "")], "request_not_supported"),
        (&[("request_uri", "https://app.example/request")], "request_uri_not_supported"),
        (&[("registration", "{}")], "registration_not_supported"),
        (&[("resource", "https://unknown.example")], "invalid_target"),
    ] {
        let answer = app.authorize(changed);
        assert_eq!(answer.status, 302, "{changed:?}");
        let location = url::Url::parse(answer.header("location").unwrap()).unwrap();
        assert!(location.as_str().starts_with("https://app.example/callback?"));
        let pairs: std::collections::HashMap<_, _> = location.query_pairs().into_owned().collect();
        assert_eq!(pairs["error"], error, "{changed:?}");
        assert_eq!(pairs["state"], "xyz &=", "{changed:?}");
        assert_eq!(pairs["iss"], PUBLIC_URL, "RFC 9207");
    }
    for changed in [[("redirect_uri", "https://evil.example/")], [("client_id", "nobody")]] {
        let answer = app.authorize(&changed);
        assert_eq!((answer.status, answer.header("location")), (400, None), "never an open redirector");
    }
}

/// 14.2, 7.
#[test]
fn a_redirect_address_with_a_query_of_its_own_keeps_it() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let page = app.page(&[("redirect_uri", "https://app.example/cb?x=1")]);
    let nonce = nonce(&app.challenge(&page, Some(&wallet.address())));
    let answer = app.callback(&page, &nonce, &wallet.address(), &wallet.sign(&nonce)).json();
    let code = secret(answer["code"].as_str().unwrap());
    assert_eq!(
        answer["redirect_to"],
        json!(format!("https://app.example/cb?x=1&code={code}&state=xyz+%26%3D&iss=http%3A%2F%2Flocalhost%3A3000"))
    );
}

/// 14.1, 1.
#[test]
fn a_message_says_where_and_for_whom_it_is_signed() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let page = app.page(&[]);
    assert_eq!(app.challenge(&page, None).status, 400, "Ethereum messages name their account");
    let message = nonce(&app.challenge(&page, Some(&wallet.address())));
    let begin =
        format!("http://localhost:3000 wants you to sign in with your Ethereum account:\n{}\n\n", wallet.address());
    assert!(message.starts_with(&begin), "{message}");
    for line in [
        "Sign in to Weather ?App?. This proves to it: openid.".to_owned(),
        "URI: http://localhost:3000".to_owned(),
        "Version: 1".to_owned(),
        "Chain ID: 1".to_owned(),
        format!("Request ID: {}", app.id()),
        format!("- {REDIRECT}"),
    ] {
        assert!(message.lines().any(|found| found == line), "{line}: {message}");
    }
    assert!(message.contains("\nExpiration Time: ") && message.contains("\nIssued At: "));
    // The same message with another client in it was never handed out.
    let forged = message.replace(app.id(), "another-client");
    assert_eq!(app.callback(&page, &forged, &wallet.address(), &wallet.sign(&forged)).status, 401);
    let answer = app.callback(&page, &message, &wallet.address(), &wallet.sign(&message));
    assert_eq!(answer.status, 200, "{}", answer.text());
    secret(answer.json()["code"].as_str().unwrap());
}

/// 14.1, 4.
#[test]
fn a_session_is_of_no_use_in_another_browser() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let (page, other) = (app.page(&[]), app.page(&[]));
    assert_ne!(page.cookie, other.cookie);
    for cookie in ["", &other.cookie, "tollgate-browser=x", "tollgate-browser="] {
        let body = json!({ "session_id": page.session, "address": wallet.address() });
        assert_eq!(refused(&ours(&server, "/v1/oauth/challenge", cookie, &body)), (400, "Bad Request".into()));
        assert_eq!(ours(&server, "/v1/oauth/deny", cookie, &body).status, 400);
    }
    // Two pages of one browser both work.
    let second = app
        .server
        .send(&Request::get(&crate::support::sign_in::link(&app.parameters(), &[])).header("Cookie", &page.cookie));
    assert!(second.header("set-cookie").is_none());
    let second =
        crate::support::sign_in::Page { cookie: page.cookie.clone(), ..crate::support::sign_in::page(&second) };
    for page in [&page, &second] {
        let nonce = nonce(&app.challenge(page, None));
        let answer = app.callback(page, &nonce, &wallet.address(), &wallet.sign(&nonce));
        assert_eq!(answer.status, 200, "{}", answer.text());
        secret(answer.json()["code"].as_str().unwrap());
    }
}

#[test]
fn our_pages_endpoints_take_requests_of_our_pages_alone() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let page = app.page(&[]);
    for path in
        ["/v1/oauth/challenge", "/v1/oauth/callback", "/v1/oauth/deny", "/v1/device/approve", "/v1/device/confirm"]
    {
        let body = json!({
            "session_id": page.session, "user_code": "ABCD-1234", "nonce": "x", "address": wallet().address(),
            "signature": "00",
        });
        let request = Request::post(path, body.to_string()).header("Content-Type", "application/json");
        for origin in [None, Some("https://evil.example"), Some("null"), Some("http://localhost:3001"), Some("")] {
            let request = match origin {
                None => request.clone(),
                Some(origin) => request.clone().header("Origin", origin),
            };
            assert_eq!(refused(&server.send(&request)), (403, "Forbidden".into()), "{path} {origin:?}");
        }
    }
}

#[test]
fn a_callback_answers_its_own_challenge_for_its_own_session_once() {
    let server = Server::start(settings());
    let client = server.register(&registration("public"));
    let (app, wallet, other) = (App { server: &server, client: &client }, wallet(), EthereumWallet::new(9));
    let (page, another) = (app.page(&[]), app.page(&[]));
    let own = wallet.address();
    let fresh = |address: Option<&str>| nonce(&app.challenge(&page, address));

    let direct = nonce(&server.post_json("/v1/auth/challenge", &json!({ "scopes": ["openid"] })));
    assert_eq!(refused(&app.callback(&page, &direct, &own, &wallet.sign(&direct))), (400, "Bad Request".into()));
    let theirs = nonce(&app.challenge(&another, None));
    assert_eq!(refused(&app.callback(&page, &theirs, &own, &wallet.sign(&theirs))), (400, "Bad Request".into()));
    let bound = fresh(Some(&other.address()));
    assert_eq!(refused(&app.callback(&page, &bound, &own, &wallet.sign(&bound))), (401, "Unauthorized".into()));
    let badly = fresh(None);
    assert_eq!(refused(&app.callback(&page, &badly, &own, &other.sign(&badly))), (401, "Unauthorized".into()));
    assert_eq!(app.callback(&page, &badly, &own, &wallet.sign(&badly)).status, 401, "burned");
    let alice = BittensorWallet::new("//Alice").address();
    let wrong_kind = app.challenge(&page, Some(&alice));
    assert_eq!(refused(&wrong_kind), (400, "Bad Request".into()));
    assert!(wrong_kind.text().contains("evm"));
    let used_elsewhere = fresh(None);
    let body = json!({ "nonce": used_elsewhere, "address": own, "signature": wallet.sign(&used_elsewhere) });
    assert_eq!(
        server.post_json("/v1/auth/verify", &body).status,
        400,
        "a message of a page is none of the direct flow"
    );

    // After all that the same session still takes a right answer, once.
    let right = fresh(Some(&own.to_lowercase()));
    let answer = app.callback(&page, &right, &own, &wallet.sign(&right));
    assert_eq!(answer.status, 200, "{}", answer.text());
    secret(answer.json()["code"].as_str().unwrap());
    assert_eq!(app.challenge(&page, None).status, 400, "over");
    assert_eq!(app.callback(&page, &right, &own, &wallet.sign(&right)).status, 400);
}

#[test]
fn a_user_can_say_no() {
    let server = Server::start(standard());
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let page = app.page(&[]);
    let deny = || app.ours("/v1/oauth/deny", &page.cookie, &json!({ "session_id": page.session }));
    let answer = deny();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let address = answer.json()["redirect_to"].as_str().unwrap().to_owned();
    assert!(address.starts_with("https://app.example/callback?error=access_denied&state=xyz"), "{address}");
    assert_eq!(deny().status, 400);
    assert_eq!(app.challenge(&page, Some(&wallet().address())).status, 400);
}

#[test]
fn a_code_is_exchanged_only_with_all_that_belongs_to_it() {
    let server = Server::start(settings());
    let public = server.register(&registration("public"));
    let confidential = server.register(&registration("confidential"));
    let foreign = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &public }, wallet());
    let code = app.code(&wallet, &[]);
    let with = |name: &str, value: &str| {
        let mut fields: Vec<(String, String)> =
            redemption(&code).iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        for field in &mut fields {
            if field.0 == name {
                value.clone_into(&mut field.1);
            }
        }
        fields.retain(|(_, value)| !value.is_empty());
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        app.token(&fields)
    };
    let mut mistyped = code.clone();
    mistyped.pop();
    for (name, value, status, error) in [
        ("code", "", 400, "invalid_request"),
        ("code", "nonsense", 401, "invalid_grant"),
        ("code", mistyped.as_str(), 401, "invalid_grant"),
        ("redirect_uri", "", 400, "invalid_request"),
        ("redirect_uri", "https://app.example/cb?x=1", 400, "invalid_request"),
        ("code_verifier", "", 400, "invalid_request"),
        ("code_verifier", "short", 400, "invalid_request"),
        ("code_verifier", &"~".repeat(129), 400, "invalid_request"),
        ("code_verifier", &"~".repeat(43), 401, "invalid_grant"),
        ("code_verifier", CHALLENGE, 401, "invalid_grant"),
    ] {
        let answer = with(name, value);
        assert_eq!(refused(&answer), (status, error.into()), "{name}={value}");
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
    }
    let theirs = App { server: &server, client: &foreign };
    assert_eq!(refused(&theirs.redeem(&code)), (401, "invalid_client".into()));
    let answer = app.redeem(&code);
    assert_eq!(answer.status, 200, "what was wrong has not used it up: {}", answer.text());
    remembered(&answer);

    // Without a challenge a client with a secret needs no verifier, and a public one gets no code.
    let app = App { server: &server, client: &confidential };
    let plain = [("code_challenge", ""), ("code_challenge_method", "")];
    let code = app.code(&wallet, &plain);
    let answer = app.token(&redemption(&code)[..3]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    remembered(&answer);
    let code = app.code(&wallet, &plain);
    let answer = app.redeem(&code);
    assert_eq!(answer.status, 200, "the replaced server ignored a verifier without a challenge");
    remembered(&answer);
}

#[test]
fn the_rfcs_words_for_what_is_wrong_with_a_code() {
    let server = Server::start(standard());
    let confidential = server.register(&registration("confidential"));
    let foreign = server.register(&registration("public"));
    let (app, wallet) = (App { server: &server, client: &confidential }, wallet());
    let code = app.code(&wallet, &[]);
    let theirs = App { server: &server, client: &foreign };
    assert_eq!(refused(&theirs.redeem(&code)), (400, "invalid_grant".into()));
    let elsewhere = [redemption(&code)[0], redemption(&code)[1], ("redirect_uri", "https://app.example/cb?x=1")];
    assert_eq!(refused(&app.token(&elsewhere)), (400, "invalid_grant".into()));
    assert_eq!(refused(&app.token(&[("grant_type", "password")])), (400, "unsupported_grant_type".into()));
    assert_eq!(refused(&app.token(&[("code", "x")])), (400, "invalid_request".into()));
    // RFC 9700 section 4.8.2: the challenge was taken out of the request.
    let stripped = app.code(&wallet, &[("code_challenge", ""), ("code_challenge_method", "")]);
    assert_eq!(refused(&app.redeem(&stripped)), (400, "invalid_grant".into()));
    let wrong = [("client_id", app.id()), ("client_secret", "wrong"), ("grant_type", "authorization_code")];
    let answer = server.post_form("/v1/oauth/token", &wrong);
    assert_eq!(refused(&answer), (401, "invalid_client".into()));
    assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Basic")));
    assert_eq!(server.get("/v1/oauth/token").status, 405);
}

/// 14.1, 8.
#[test]
fn a_code_used_twice_takes_back_what_the_first_use_got() {
    for server in Server::on_both(&settings()) {
        let client = server.register(&registration("confidential"));
        let (app, wallet) = (App { server: &server, client: &client }, wallet());
        let code = app.code(&wallet, &[]);
        let tokens = remembered(&app.redeem(&code));
        let again = app.redeem(&code);
        assert_eq!(refused(&again), (401, "invalid_grant".into()));
        assert!(again.text().contains("already been used"));
        let refresh = app.refresh(tokens["refresh_token"].as_str().unwrap());
        assert_eq!(refused(&refresh), (401, "invalid_grant".into()));
        assert!(refresh.text().contains("revoked"));
    }
}

/// 14.1, 3.
#[test]
fn no_kind_of_token_passes_for_another() {
    let server = Server::start(settings());
    let client = server.register(&registration("confidential"));
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let spare = app.code(&wallet, &[]);
    let tokens = app.tokens(&wallet);
    assert_eq!(part(&tokens["access_token"], 0)["typ"], "at+jwt");
    assert_eq!(part(&tokens["id_token"], 0)["typ"], "JWT");
    let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
    assert!(text("refresh_token").starts_with("tgr_") && spare.starts_with("tgc_"), "not to be taken for a JWT");
    let user_info = |token: &str| server.send(&Request::get("/v1/oauth/userinfo").token(token)).status;
    assert_eq!(user_info(&text("access_token")), 200);
    for token in [text("id_token"), text("refresh_token"), spare.clone()] {
        assert_eq!(user_info(&token), 401);
        assert_eq!(app.redeem(&token).status, if token == spare { 200 } else { 401 });
    }
    for token in [text("id_token"), text("access_token"), spare] {
        assert_eq!(refused(&app.refresh(&token)), (401, "invalid_grant".into()));
    }
    let disguised = text("refresh_token").replacen("tgr_", "tgc_", 1);
    assert_eq!(refused(&app.redeem(&disguised)), (401, "invalid_grant".into()));
}

#[test]
fn scopes_that_need_the_chain_are_neither_granted_nor_denied() {
    let server = Server::start(settings());
    let client = server.register(&json!({
        "client_name": "miners", "client_type": "public", "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code"], "allowed_scopes": [],
    }));
    let (app, wallet) = (App { server: &server, client: &client }, BittensorWallet::new("//Alice"));
    for scope in ["openid", "subnet:1:miner", "tao:holder", ""] {
        let page = app.page(&[("scope", scope)]);
        for sign in [BittensorWallet::sign, BittensorWallet::sign_wrapped] {
            let nonce = nonce(&app.challenge(&page, Some(&wallet.address())));
            let answer = app.callback(&page, &nonce, &wallet.address(), &sign(&wallet, &nonce));
            assert_eq!(refused(&answer), (503, "Service Unavailable".into()), "{scope}");
            assert!(answer.header("retry-after").is_some());
        }
    }
}

#[test]
fn a_client_does_what_it_is_registered_for() {
    let server = Server::start(settings());
    let mut no_refresh = registration("public");
    no_refresh["grant_types"] = json!(["authorization_code"]);
    no_refresh["allowed_origins"] = json!(["https://app.example"]);
    let client = server.register(&no_refresh);
    let (app, wallet) = (App { server: &server, client: &client }, wallet());
    let tokens = app.tokens(&wallet);
    let refresh = tokens["refresh_token"].as_str().expect("the replaced server always sent one");
    assert_eq!(refused(&app.refresh(refresh)), (400, "unsupported_grant_type".into()));
    let device = app.token(&[("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", "x")]);
    assert_eq!(refused(&device), (400, "unsupported_grant_type".into()));
    for (origin, status) in [
        ("https://app.example", 401),
        ("https://APP.example:443", 401),
        ("https://evil.example", 403),
        ("http://app.example", 403),
        ("null", 400),
    ] {
        let request = app.token_request(&redemption("tgc_x")).header("Origin", origin);
        assert_eq!(server.send(&request).status, status, "{origin}");
    }
    let standard = Server::start(standard());
    let client = standard.register(&no_refresh);
    let app = App { server: &standard, client: &client };
    assert!(app.tokens(&wallet).get("refresh_token").is_none(), "who may not use one does not get one");
}

#[test]
fn a_client_s_requests_are_limited() {
    let server = Server::start(settings());
    let mut limited = registration("confidential");
    limited["rate_limit"] = json!(3);
    let client = server.register(&limited);
    let app = App { server: &server, client: &client };
    let statuses: Vec<u16> = (0..8).map(|_| app.redeem("tgc_x").status).collect();
    assert!(
        statuses.iter().filter(|status| **status == 401).count() <= 6,
        "{statuses:?}: three in each of two minutes"
    );
    assert!(statuses.contains(&429), "{statuses:?}");
    let answer = (0..8).map(|_| app.redeem("x")).find(|answer| answer.status == 429).unwrap();
    let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    let device = [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", "x")];
    let slow = (0..8).map(|_| app.token(&device)).find(|answer| answer.status == 400).unwrap();
    assert_eq!(refused(&slow), (400, "slow_down".into()));
}
