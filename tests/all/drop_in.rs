//! With nothing but the replaced system's variables, the gateway does what that system did (nevermined.md sections 2
//! to 5), and not what it should not have done.

use serde_json::json;
use tollgate::{
    authn::nevermined::Authentication,
    model::{clock::Timestamp, secret::Secret},
};

use super::support::{
    Gateway, IN_QUERY, Part, Reply, Request, Settings, Token, Upstream, alone,
    database::Database,
    eventually,
    gateway::{refused, sum_of},
    loopback,
    market::{Market, Node, Service, plan},
    secret,
    tls::Authority,
    token::{FAR, HOLDER, OWNER, PHRASE, PLAN, SERVICE, good_claims, mint_json, phrase_key},
};

const DIGITS: &str = "12345678901234567890123456789012";
const LETTERS: &str = "correcthorsebatterystapleabcdefg";
const USER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/// Section 2.3 of the reference.
const BEARER: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..AAECAwQFBgcICQoLDA0ODw.8tQhghhNmnTjosyiTJJD4Xz9nvOhXnsHubd9Np8ZcsMquIKtL-_5-SuUlSFDjkAZTxzeVy9CUXVj-W1Doe_QWD9d0j_YDjfDYb7RusULnpavmN0wndVFvxle13SULaVcPa3w_SMlwWOiPSN83s1KFh9lKwG2zFJs-aJ5uW9jptakl4-Y4ve1vY9zNKSQXKLmoZw7FYS07NULE9NalOfqyyqCNyoT_bwDN029rOdsRlBUfbixtxOIp10HV8DX4zyswU3Pertq5q38WZ85PI66o1f3qvGhgy8CDEPMJBqyOS080M8DljuDWug62vK6QDAPmeJdlT39tB6dOLsfG7lHUjbGIZM0kP0_oXyeel89B-Dy7BVOBuyROWxHWQtvfJLE_zpDDhADgr1mpJ6iD19u48kio3TQ8kQZztOfB87Jbv1yITYDI1IvtWgAtRytL_xxGDLgw-BCiYPHlLxw3vMOH_24-vPaL_2poZbQkmlSztu5PZwf7HHE286MZHvWBDcqOzaAWslgwF3RHbYrxKk9BQuBKZtggDZKiTyK7wKy4V97-jo6AKhJIM-3csM0cIPfewCV3GqE5opbpODVcnrRPw.-8p0uhszgvTqieE7W-dtkQ";
const BASIC: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..AAECAwQFBgcICQoLDA0ODw.8tQhghhNmnTjosyiTJJD4Xz9nvOhXnsHubd9Np8ZcsMquIKtL-_5-SuUlSFDjkAZTxzeVy9CUXVj-W1Doe_QWD9d0j_YDjfDYb7RusULnpavmN0wndVFvxle13SULaVcPa3w_SMlwWOiPSN83s1KFh9lKwG2zFJs-aJ5uW9jptakl4-Y4ve1vY9zNKSQXKLmoZw7FYS07NULE9NalOfqyyqCNyoT_bwDN029rOdsRlBUfbixtxOIp10HV8DX4zyswU3Pertq5q38WZ85PI66o1f3qvGhgy8CDEPMJBqyOS080M8DljuDWug62vK6QDAPmeJdlT39tB6dOLsfG7lHUjbGIZM0kP0_oXyeel89B-Dy7BVOBuyROWxHWQtvfJLE_zpDDhADgr1mpJ6iD19u47yZkyDN6hnwLM1OiSF3HIvMkXZQEl53ElKT_d6GZIDZ6kWAIk8t28evNgcFBfA-t9ri1ZmT2ODppDKbMrkjaGejLRRMcT3XXEbvc2-0DnmZ4tHInseLe1Fscc59oIRzk02W_1UJFrnimR3fNT_WK6A7z8tAH5aOolypcCDVuLZlGDuOB8m3ZoH91EFpbbJkRb58yoX9Vn12_2VFSVzkEzY.9xWSkDZ-L1LHP9eqJKP8aA";
const NONE: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..AAECAwQFBgcICQoLDA0ODw.-be_JC896Vk4iZdrH23i5sg8QwNqA-KnfjC_k9UxEx3OeoEYV4hnd9PDwGE3p-XZ9hyYXWcRZUdPDfOuZ0L3kfN5yIAxFyo4_M6dMAgg-m8PNUpLT1RlsRX4uPhpYxHbF0wWP3w_T4oLxtxdCgydQ_GBJtMhVVrIvg9hyGIy47NNajVg9eQ3ivFIlaqqJt27paE2FRDuujjMNKI2qVF8ww8PCXJAP80Z0A-UMXsXoCJjuG8Q_-WlnRoQQDXceU4fo0ySIgD4AWqU4jHtV2ViONbD5NTB6w2qkvzwZvXiGQY8CsOHNFsNGQN-Uz9vODlKjtBkk_KNxoveQg0Ao4LCwMJJOgGxDLjWykDnHRjcWkubYMWXXD19AcVl4Cs1TaDRFbe62rZDWX8TaYdO7WhOll9DIoj6aK8_J-kjqRo1ZMoSh2pamRJwkAh9UaJLSQK_l6AMKgi-0JM12vPc2w9aK2APR5hDEQDtlTCnHIGFtVPavLCAwWSFpDKUbfI90Eeq5ebdBe8E79UnHUhAN75GnnzRY3WaCQxdoodd6cAGgL8.7IamCENciz7VUunafk_SFQ";
const README_DIGITS: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..hI4CMYSs0tqFYdof4hFiUw.2jK41Lgpua6XKZtFvqwjQS3gJDbSs0DVDMNnSW55NVOKVqQqBA1RE2InYpUY3aVJsqdsQ1nT5KpNH-MfwCyk85paoMSTiuHOW1t0bN8dB7PwyMkM5Ubf-8bg3q3rIEpDT7QtQ2M7YbP1t3HL8jhJZDStJ_2AYnumUvCVmKDtPUe_FmVdPcW66ta-d3YWKXkwKN1Ajrdnlsav58f-u6wE-qck_UtzqMpOI1ePmK3I-FBTYtSnpyUZrQu3XOXV2TR23kKaUtclhSdtHSMQHug__5Oe2Ibo3QI0AauThAHD6q98BL3iZn9fH2aCsUP2uFifRc0kC2PrWCz1F1upmaKWg2oJ9Yh9YADA95mcOjH_KSM.7tYdcSQ-AS9zdROBRUOh1g";
const README_ZERO: &str = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0..1LYqALYanLBQPmsMvPP0ug.For0wiUUMVUAxB6vvhhSjCjSucfb8dgf5pz3v-YJPxiDZ5QMr7oB5ShSUh9OErlDShmqumd-rWRcqfXuns7R6FvDMC457jTZe6P2YyFZ_rsU3TLBiv6cyF7Br3B-wshZIaG_MiKoCZqZQJXtIbZhIx4TXdtJc7yKLSRkMP_-kSMROLKlrKuwWuLow6_5G-aOyqJkU0CdZJ-iEY42eh4L0YYALZ3LZlDII-Wv45pPm6Yki3DcgCYfpZ7zSEHJpoSXm3wCB4FJ7enKPxQ02ViRMwwJldvQzrPO2XMbGAmg7OVxMN2iI6PaenUQSO76toX04cgsEnEimKUOifY0Gl_MBBFr4R0AAoCdCW7Jxxq0VBsy1H8qVRb29rR2Ql2IRmOX.1ZN258dHRBHZewKNDhwFbQ";

/// The replaced system's world: a marketplace, a node, a holder with credits.
struct World {
    market: Market,
    node: Node,
}

impl World {
    fn new() -> Self {
        let world = Self { market: Market::start(), node: Node::start() };
        world.node.set(HOLDER, 1000);
        world.node.set(USER.parse().unwrap(), 1000);
        world
    }

    fn settings(&self) -> Settings {
        Settings::drop_in()
            .variable("MARKETPLACE_API_URI", self.market.url())
            .variable("WEB3_PROVIDER_URL", self.node.url())
    }
}

#[test]
fn the_tokens_of_the_reference_are_accepted_and_answered_as_it_says() {
    let _alone = alone("port-9300");
    for token in [BEARER, BASIC, NONE] {
        secret(token.rsplit('.').next().unwrap());
    }
    let upstream = Upstream::at(loopback(9300), None, |_| Reply::ok("served").credits("7"));
    let world = World::new();
    //   phrase, token, Authorization for the upstream
    for (phrase, token, authorization) in [
        (DIGITS, BEARER, Some("Bearer svc-secret")),
        (DIGITS, BASIC, Some("Basic dXNlcjpwYXNzd29yZA==")),
        (LETTERS, NONE, None),
    ] {
        let settings =
            world.settings().variable("JWT_SECRET_PHRASE", phrase).variable("TOLLGATE_ALLOW_WEAK_SECRET", "true");
        let gateway = Gateway::start(settings);
        let answer = gateway.send(&Request::get(&format!("/hello?{IN_QUERY}")).token(token).host("proxy.example"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "served"), "{}", answer.head);
        assert_eq!(upstream.only().header("authorization"), authorization);
        let weak = gateway.log().iter().filter(|line| line.contains("WARN") && line.contains("WEAK SECRET")).count();
        assert_eq!(weak, 1, "it says loudly that the key can be guessed");
    }
}

#[test]
fn the_tokens_of_the_readme_decrypt_and_are_refused_as_expired() {
    let world = World::new();
    for (phrase, token) in [(DIGITS, README_DIGITS), (LETTERS, README_ZERO)] {
        secret(token.rsplit('.').next().unwrap());
        let settings =
            world.settings().variable("JWT_SECRET_PHRASE", phrase).variable("TOLLGATE_ALLOW_WEAK_SECRET", "true");
        let gateway = Gateway::start(settings);
        let answer = gateway.send(&Request::get("/").token(token));
        assert_eq!((answer.status, answer.error().as_str()), (401, "expired"));
        assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
        assert_eq!(gateway.logged(|line| line["status"] == 401)["reason"], "expired");
        assert_eq!(gateway.metric("tollgate_denials_total", &["reason=\"expired\""]), 1);
    }
    assert_eq!(world.market.server.requests(), 0);
}

#[test]
fn the_upstream_gets_the_headers_of_the_reference() {
    let world = World::new();
    let upstream = Upstream::start();
    let gateway = Gateway::start(world.settings());
    let token = Token::covering(upstream.everything()).mint_with(&phrase_key());
    let request = Request::post("/hello?x=1", "12345")
        .host("proxy.example:3128")
        .token(&token)
        .header("User-Agent", "curl/8")
        .header("Accept", "*/*")
        .header("Cookie", "a=b")
        .header("Range", "bytes=0-")
        .header("NVM-Authorization", "whatever")
        .header("X-Custom", "1")
        .header("X-Custom", "2")
        .header("Connection", "keep-alive, X-Hop")
        .header("X-Hop", "1")
        .header("Keep-Alive", "timeout=5")
        .header("TE", "trailers")
        .header("Proxy-Authorization", "Basic eDp5");
    assert_eq!(gateway.send(&request).status, 200);
    let received = upstream.only();
    let head = String::from_utf8(received.head.clone()).unwrap();
    assert!(head.starts_with("POST /hello?x=1 HTTP/1.1\r\n"), "{head}");
    let mut fields: Vec<(String, String)> =
        received.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    fields.retain(|(name, value)| {
        let id = name == "x-request-id";
        assert!(!id || value.len() == 36);
        !id
    });
    fields.sort();
    let authority = upstream.address.to_string();
    let (scope, user, owner) = (SERVICE.to_string(), HOLDER.checksummed(), OWNER.checksummed());
    let mut expected = [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("nvm-user-id", &user),
        ("nvm-scope", &scope),
        ("nvm-owner", &owner),
        ("authorization", "Bearer svc-secret"),
        ("host", &authority),
        ("content-length", "5"),
        ("user-agent", "curl/8"),
        ("accept", "*/*"),
        ("cookie", "a=b"),
        ("range", "bytes=0-"),
        ("nvm-authorization", "whatever"),
        ("x-custom", "1"),
        ("x-custom", "2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    expected.sort();
    assert_eq!(fields, expected, "{head}");
    for spelling in ["X-Real-IP: ", "X-Forwarded-For: ", "NVM-User-id: ", "NVM-Scope: ", "NVM-Owner: "] {
        assert!(head.contains(spelling), "{spelling} is spelt so: {head}");
    }
    assert_eq!(received.body, b"12345");
}

#[test]
fn the_client_gets_the_headers_of_the_reference_and_nothing_internal() {
    let world = World::new();
    let upstream = Upstream::start();
    let gateway = Gateway::start(world.settings());
    let token = Token::covering(upstream.everything()).mint_with(&phrase_key());
    let reply = |status| {
        Reply::status(status, "")
            .header("Access-Control-Allow-Origin", "https://theirs.example")
            .header("Access-Control-Expose-Headers", "X-Theirs")
            .header("Location", "https://elsewhere.example/")
            .header("ETag", "\"1\"")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .header("X-Accel-Redirect", "/introspect")
            .header("X-Pad", "x")
            .credits("3")
    };
    for status in [200, 201, 204, 301, 302, 304, 307, 400, 401, 404, 500, 503] {
        upstream.on("/x", reply(status));
        let answer = gateway.send(&Request::get("/x").token(&token).header("Origin", "https://page.example"));
        assert_eq!(answer.status, status);
        assert_eq!(answer.values("access-control-allow-origin"), ["*"], "{}", answer.head);
        assert_eq!(
            answer.values("access-control-expose-headers"),
            ["Authorization,NVMCreditsConsumed"],
            "{}",
            answer.head
        );
        assert_eq!(answer.header("nvmcreditsconsumed"), Some("3"));
        assert_eq!(answer.header("location"), Some("https://elsewhere.example/"));
        assert_eq!(answer.header("etag"), Some("\"1\""));
        assert_eq!(answer.values("set-cookie"), ["a=1", "b=2"]);
        for internal in ["x-accel-redirect", "x-pad", "x-uri", "x-p", "nvm-user-id", "authorization"] {
            assert_eq!(answer.header(internal), None, "{}", answer.head);
        }
        assert!(!answer.head.contains("svc-secret"));
    }
}

#[test]
fn every_denial_has_the_old_number() {
    let world = World::new();
    let upstream = Upstream::start();
    let gateway = Gateway::start(world.settings());
    let covering = || Token::covering(upstream.everything());
    let good = covering().mint_with(&phrase_key());
    let poor = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc".parse().unwrap();
    //   what, request, the reason that only the log may tell
    for (what, request, reason) in [
        ("nothing", Request::get("/x"), "no_credential"),
        ("garbage", Request::get("/x").token("garbage"), "malformed_token"),
        ("another key", Request::get("/x").token(&covering().mint()), "wrong_key"),
        (
            "expired",
            Request::get("/x").token(&covering().expiring(Timestamp(1_700_000_001)).mint_with(&phrase_key())),
            "expired",
        ),
        ("not yet", Request::get("/x").token(&covering().from(FAR).mint_with(&phrase_key())), "not_yet_valid"),
        (
            "elsewhere",
            Request::get("/x").token(&Token::covering(upstream.url("/y")).mint_with(&phrase_key())),
            "endpoint_not_covered",
        ),
        ("no credits", Request::get("/x").token(&covering().of(poor).mint_with(&phrase_key())), "insufficient_credits"),
        ("an unknown service", Request::get("/x").token(&covering().service(PLAN).mint_with(&phrase_key())), ""),
        (
            "the header's form",
            Request::get("/x").header("Authorization", format!("Bearer  {good}")),
            "malformed_authorization",
        ),
    ] {
        let answer = gateway.send(&request.header("X-Case", what));
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{what}");
        assert_eq!(answer.values("access-control-allow-origin"), ["*"], "a page may read why: {what}");
        let id = answer.json()["request_id"].clone();
        let line = gateway.logged(|line| line["request_id"] == id);
        if !reason.is_empty() {
            assert_eq!(line["reason"], reason, "{what}");
        }
    }
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn what_cannot_be_found_out_is_a_401_as_it_was() {
    let world = World::new();
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(world.settings());
    gateway.expect_error("chain");
    let token = Token::covering(upstream.everything()).mint_with(&phrase_key());
    world.node.answer_instead(Some(Reply::status(500, "")));
    let answer = gateway.send(&Request::get("/x").token(&token));
    assert_eq!((answer.status, answer.error().as_str()), (401, "unavailable"));
    world.node.answer_instead(None);
    world.market.answer_instead(Some(Reply::status(500, "")));
    let other = Token::covering(upstream.everything()).service(PLAN).plan(SERVICE).mint_with(&phrase_key());
    assert_eq!(gateway.send(&Request::get("/x").token(&other)).status, 401);
    assert_eq!(upstream.requests(), 0);
    world.market.answer_instead(None);
    eventually("it is served again", || (gateway.send(&Request::get("/x").token(&token)).status == 200).then_some(()));
}

#[test]
fn a_key_that_can_be_guessed_stops_the_start() {
    for (what, phrase, because) in [
        ("the published default", Some(DIGITS), "default"),
        ("nothing", None, "default"),
        ("letters only", Some(LETTERS), "zero"),
        ("few digits", Some("1a2b3c4d5e6f7g8h9i0j1k2l3m4n5o6p"), "digits"),
        ("too short", Some("1234"), "32"),
        ("too long", Some("841029573609182736455647382910741"), "32"),
    ] {
        let mut settings = Settings::drop_in().unset("JWT_SECRET_PHRASE");
        if let Some(phrase) = phrase {
            settings = settings.variable("JWT_SECRET_PHRASE", phrase);
        }
        let (code, message) = refused(settings);
        assert_eq!(code, 2, "{what}: {message}");
        assert!(message.contains("JWT_SECRET_PHRASE") && message.to_lowercase().contains(because), "{what}: {message}");
        assert!(!message.contains(phrase.unwrap_or(DIGITS)), "{what}: the message repeats the secret: {message}");
    }
    let (_, message) = refused(Settings::drop_in().variable("JWT_SECRET_PHRASE", LETTERS));
    assert!(
        message.contains("TOLLGATE_JWT_KEY") || message.contains("openssl"),
        "it says how to make a good one: {message}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let settings = Settings::drop_in()
        .variable("SERVER_PORT", "many")
        .variable("MARKETPLACE_API_URI", "not a url")
        .variable("TOLLGATE_UPSTREAM_ALLOW", "10.0.0.0/99")
        .variable("PG_PORT", "99999");
    let (code, message) = refused(settings);
    assert_eq!(code, 2);
    for name in ["SERVER_PORT", "MARKETPLACE_API_URI", "TOLLGATE_UPSTREAM_ALLOW", "PG_PORT"] {
        assert!(message.contains(name), "{name} is missing: {message}");
    }
}

#[test]
fn a_base64_key_may_stand_for_the_phrase_and_the_old_one_stay_valid() {
    let world = World::new();
    let upstream = Upstream::start();
    let settings = world
        .settings()
        .unset("JWT_SECRET_PHRASE")
        .variable("TOLLGATE_JWT_KEY", super::support::token::KEY)
        .variable("TOLLGATE_JWT_PHRASE_PREVIOUS", PHRASE);
    let gateway = Gateway::start(settings);
    let token = Token::covering(upstream.everything());
    for token in [token.mint(), token.mint_with(&phrase_key())] {
        assert_eq!(gateway.send(&Request::get("/").token(&token)).status, 200);
    }
}

#[test]
fn a_secret_may_be_in_a_file_but_not_in_both() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("phrase");
    std::fs::write(&file, format!("{PHRASE}\n")).unwrap();
    let world = World::new();
    let upstream = Upstream::start();
    let from_file =
        world.settings().unset("JWT_SECRET_PHRASE").variable("JWT_SECRET_PHRASE_FILE", file.display().to_string());
    let gateway = Gateway::start(from_file);
    let token = Token::covering(upstream.everything()).mint_with(&phrase_key());
    assert_eq!(gateway.send(&Request::get("/").token(&token)).status, 200);

    let (code, message) = refused(world.settings().variable("JWT_SECRET_PHRASE_FILE", file.display().to_string()));
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("JWT_SECRET_PHRASE"), "{message}");
}

#[test]
fn the_marketplace_may_be_named_as_the_burner_named_it() {
    let world = World::new();
    let upstream = Upstream::start();
    let settings = world.settings().unset("MARKETPLACE_API_URI").variable("MARKETPLACE_API_URL", world.market.url());
    let gateway = Gateway::start(settings);
    let token = Token::covering(upstream.everything()).mint_with(&phrase_key());
    assert_eq!(gateway.send(&Request::get("/").token(&token)).status, 200);
}

#[test]
fn endpoints_of_the_backend_get_its_own_token() {
    let world = World::new();
    let (backend, other) = (Upstream::start(), Upstream::start());
    let settings = world
        .settings()
        .variable("BACKEND_API_URI", backend.url(""))
        .variable("PROXY_AUTH_TOKEN", secret("proxy-secret"));
    let gateway = Gateway::start(settings);
    let both = Token::covering(backend.url("/api/(.*)")).and(other.url("/other/(.*)"));
    for authentication in [Authentication::None, Authentication::Bearer(Secret::new("svc-secret".to_owned()))] {
        let bearer = matches!(authentication, Authentication::Bearer(_));
        let token =
            Token::covering(backend.url("/api/(.*)")).and(other.url("/other/(.*)")).authentication(authentication);
        let token = token.mint_with(&phrase_key());
        assert_eq!(gateway.send(&Request::get("/api/x").token(&token)).status, 200);
        assert_eq!(backend.only().header("authorization"), Some("Bearer proxy-secret"));
        assert_eq!(gateway.send(&Request::get("/other/x").token(&token)).status, 200);
        assert_eq!(other.only().header("authorization"), bearer.then_some("Bearer svc-secret"));
    }
    // Whose origin the client names is of no importance.
    let token = both.mint_with(&phrase_key());
    let backend_host = backend.address.to_string();
    assert_eq!(gateway.send(&Request::get("/other/x").token(&token).host(&backend_host)).status, 200);
    assert_eq!(other.only().header("authorization"), Some("Bearer svc-secret"));
}

#[test]
fn a_bearer_without_a_token_is_sent_as_it_was() {
    let world = World::new();
    let upstream = Upstream::start();
    let gateway = Gateway::start(world.settings());
    let endpoint = upstream.everything();
    let mint = |authentication| {
        let mut claims = good_claims(&endpoint);
        claims["headers"] = json!({ "authentication": authentication });
        mint_json(&claims, &phrase_key())
    };
    for (authentication, expected) in [
        (json!({"type": "bearer"}), Some("Bearer")),
        (json!({"type": "oauth", "token": "t"}), Some("Bearer t")),
        (json!({"type": "basic", "username": "ü", "password": "p"}), Some("Basic w7w6cA==")),
        (json!({"type": "none"}), None),
        (json!({"type": "Bearer", "token": "t"}), None),
    ] {
        let answer = gateway.send(&Request::get("/").token(&mint(authentication.clone())));
        assert_eq!(answer.status, 200, "{authentication}: {}", answer.text());
        assert_eq!(upstream.only().header("authorization"), expected, "{authentication}");
    }
}

#[test]
fn usage_goes_to_the_tables_of_the_replaced_system() {
    let world = World::new();
    world.market.put(SERVICE, Service { charge: "dynamic", ..Service::default() }.document());
    let upstream = Upstream::start();
    let database = Database::fresh();
    let url = url::Url::parse(&database.url).unwrap();
    let settings = world
        .settings()
        .variable("PG_HOST", url.host_str().unwrap())
        .variable("PG_PORT", url.port().unwrap().to_string())
        .variable("PG_USER", url.username())
        .variable("PG_PASSWORD", url.password().unwrap())
        .variable("PG_DB", url.path().trim_start_matches('/'));
    let gateway = Gateway::start(settings);
    let token = Token::covering(upstream.everything()).mint_with(&phrase_key());
    upstream.on("/seven", Reply::ok("").credits("7"));
    upstream.on("/created", Reply::status(201, ""));
    upstream.on("/missing", Reply::status(404, ""));
    for path in ["/seven", "/created", "/missing"] {
        gateway.send(&Request::get(&format!("{path}?{IN_QUERY}")).token(&token));
    }
    gateway.send(&Request::get("/seven"));
    gateway.settle();
    let rows = database.rows(
        r#"select t.did, t.owner, t.consumer, t."assetType", t.endpoint, t."accessResult", t."nvmCredits"::text,
                  q.status, q.retried::text, q."errorMessage"
             from "accessTransactions" t left join "accessProcessorQueue" q using ("atxId") order by t.endpoint desc"#,
    );
    let row = |path: &str, result: &str, credits: &str| {
        let (did, owner, consumer) = (SERVICE.to_string(), OWNER.checksummed(), HOLDER.checksummed());
        let (endpoint, asset) = (upstream.url(path), "Service".to_owned());
        [
            did,
            owner,
            consumer,
            asset,
            endpoint,
            result.to_owned(),
            credits.to_owned(),
            "Pending".to_owned(),
            "0".to_owned(),
            String::new(),
        ]
        .map(Some)
        .to_vec()
    };
    assert_eq!(rows, [row("/seven", "200", "7"), row("/created", "201", "1")]);
}

#[test]
fn tls_and_plain_are_both_served() {
    let world = World::new();
    let upstream = Upstream::start();
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.leaf(&["gate.test"]).write(directory.path(), "tls");
    let gateway = Gateway::start(world.settings().tls(&certificate, &key));
    let token = Token::covering(upstream.everything()).mint_with(&phrase_key());
    let (mut client, _) = super::support::Client::tls(gateway.tls, "gate.test", authority.http1()).unwrap();
    assert_eq!(client.send(&Request::get("/").token(&token)).status, 200);
    assert_eq!(upstream.only().header("x-forwarded-proto"), Some("https"));
    assert_eq!(gateway.send(&Request::get("/").token(&token)).status, 200);
    assert_eq!(upstream.only().header("x-forwarded-proto"), Some("http"));
}

#[test]
fn the_defaults_of_the_replaced_system_are_told_and_not_silently_used() {
    let gateway = Gateway::start(
        Settings::drop_in().variable("INTROSPECTION_URL", "http://127.0.0.1:4000").variable("VERBOSE", "true"),
    );
    let log = gateway.log().join("\n");
    for told in ["MARKETPLACE_API_URI is not set", "WEB3_PROVIDER_URL is not set", "INTROSPECTION_URL has no effect"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    let text = gateway.admin("/metrics").unwrap().text();
    assert_eq!(sum_of(&text, "tollgate_spool_writable", &[]), 1);
}

#[test]
fn a_plan_of_time_costs_nothing_and_asks_nobody_for_a_balance() {
    let world = World::new();
    world.market.put(PLAN, plan(PLAN, "time"));
    let upstream = Upstream::answering(|_| Reply::parts([Part::Data(b"x".to_vec())]).credits("9"));
    let gateway = Gateway::start(world.settings());
    let poor = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc".parse().unwrap();
    let token = Token::covering(upstream.everything()).of(poor).mint_with(&phrase_key());
    let answer = gateway.send(&Request::get("/").token(&token));
    assert_eq!(answer.status, 200);
    assert_eq!(gateway.usage_of(&answer)["charged"], 0);
    assert_eq!(world.node.calls(), 0);
}
