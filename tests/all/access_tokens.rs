//! Access tokens of the gateway's own authorization server as a credential of its routes: really signed in for, really
//! issued, and used where they are good and where they are not.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tollgate::jose::{Algorithm, SigningKey};

use crate::support::{
    Answer, Gateway, Request, Settings, Token, Upstream,
    cluster::Cluster,
    database::Database,
    eventually,
    gateway::refused,
    oauth::{ADMIN_KEY, PUBLIC_URL, Server},
    secret,
    sign_in::{App, claims, registration, remembered},
    subtensor::Node,
    token::SERVICE,
    wallet::{BittensorWallet, EthereumWallet},
};

const API: &str = "https://api.example";

/// A gateway with an authorization server at /v1, and a service behind routes of their own names.
struct Scene {
    server: Server,
    upstream: Upstream,
    /// Where its signing keys are.
    keys: tempfile::TempDir,
}

/// Sections that every gateway of a test has.
fn sections(keys: &std::path::Path, more: &str) -> String {
    secret(ADMIN_KEY);
    format!(
        "[oauth]\npublic_url = {PUBLIC_URL:?}\nproduction = false\nsigning_keys = {keys:?}\nadmin_key = {ADMIN_KEY:?}\n\
         resources = [{API:?}]\n{more}\n[oauth.limits]\nrequests = 1000000\nchallenges = 1000000\nsecrets = 1000000\n\
         [[route]]\nname = \"sign-in\"\npath = \"/v1\"\nupstream = \"authorization-server\"\n"
    )
}

/// A route below its name, for access tokens.
fn route(name: &str, policy: &str) -> String {
    let policy = if policy.is_empty() { String::new() } else { format!("[route.access_token]\n{policy}\n") };
    format!(
        "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"api\"\naccepts = [\"access-token\"]\n{policy}"
    )
}

impl Scene {
    /// `oauth` are lines of that section; `rest` are routes, and whatever else.
    #[track_caller]
    fn start(oauth: &str, rest: &str) -> Self {
        Self::of(Settings::file(), oauth, rest)
    }

    #[track_caller]
    fn of(settings: Settings, oauth: &str, rest: &str) -> Self {
        let (upstream, keys) = (Upstream::start(), tempfile::tempdir().unwrap());
        let settings = Self::settings(settings, &upstream, keys.path(), oauth, rest);
        let mut gateway = Gateway::prepare(settings);
        gateway.cli(&["key", "generate", "--algorithm", "ES256"]);
        gateway.launch();
        gateway.ready();
        Self { server: Server { gateway, database: None }, upstream, keys }
    }

    fn settings(settings: Settings, upstream: &Upstream, keys: &std::path::Path, oauth: &str, rest: &str) -> Settings {
        let upstream = format!("[[upstream]]\nname = \"api\"\naddresses = [\"{}\"]\n", upstream.address);
        settings.with(&upstream).with(&sections(keys, oauth)).with(rest)
    }

    fn ask(&self, path: &str, token: &str) -> Answer {
        self.server.send(&Request::get(path).token(token))
    }

    /// Why a token does not pass: status, and the reason in the access log.
    #[track_caller]
    fn refusal(&self, path: &str, token: &str) -> (u16, String) {
        let answer = self.ask(path, token);
        assert_eq!(self.upstream.take().len(), usize::from(answer.status == 200), "{}", answer.text());
        if answer.status == 200 {
            return (200, String::new());
        }
        let id = answer.json()["request_id"].clone();
        let line = self.server.gateway.logged(|line| line["request_id"] == id);
        (answer.status, line["reason"].as_str().unwrap().to_owned())
    }

    /// The access token of the direct flow.
    #[track_caller]
    fn direct(&self, address: &str, sign: impl Fn(&str) -> String, scopes: &[&str]) -> String {
        let challenge = self.server.post_json("/v1/auth/challenge", &json!({ "address": address, "scopes": scopes }));
        assert_eq!(challenge.status, 200, "{}", challenge.text());
        let nonce = challenge.json()["nonce"].as_str().unwrap().to_owned();
        let body = json!({ "nonce": nonce, "address": address, "signature": sign(&nonce) });
        let answer = self.server.post_json("/v1/auth/verify", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        access(&remembered(&answer))
    }

    #[track_caller]
    fn ethereum(&self, scopes: &[&str]) -> String {
        let wallet = wallet();
        self.direct(&wallet.address(), |nonce| wallet.sign(nonce), scopes)
    }

    /// The key that signs, to forge with.
    fn signing_key(&self) -> SigningKey {
        SigningKey::from_pem(&std::fs::read(self.keys.path().join("current.pem")).unwrap()).unwrap()
    }
}

fn wallet() -> EthereumWallet {
    EthereumWallet::new(11)
}

fn access(tokens: &Value) -> String {
    tokens["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn tokens_of_both_flows_open_a_route_of_the_same_gateway() {
    let scene = Scene::start("", &(route("any", "") + &route("cors", "") + "[route.cors]\n"));
    let client = scene.server.register(&registration("public"));
    let app = App { server: &scene.server, client: &client };
    let address = wallet().address();
    let (direct, tokens) = (scene.ethereum(&["openid"]), app.tokens(&wallet()));
    for (token, of) in [(&direct, None), (&access(&tokens), Some(app.id()))] {
        let answer = scene.ask("/any/thing?x=1", token);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let received = scene.upstream.only();
        assert_eq!(received.path(), "/any/thing");
        for (name, value) in [
            ("x-auth-subject", Some(&*address)),
            ("x-auth-signer", Some("evm")),
            ("x-auth-scope", Some("openid")),
            ("x-auth-client", of),
            ("x-hotkey", None),
            ("authorization", None),
            ("nvm-user-id", None),
        ] {
            assert_eq!(received.header(name), value, "{name}");
        }
        assert!(!format!("{:?}", received.headers).contains(token.as_str()), "the service never sees the token");
        scene.upstream.take();
    }
    let line = scene.server.gateway.logged(|line| line["route"] == "any" && line["decision"] == "permit");
    assert_eq!((&line["proof"], &line["subject"]), (&json!("access_token"), &json!(address)));

    // What a client says of itself is not what we say, however it is spelled.
    for token in [&direct, &access(&tokens)] {
        let mut forged = Request::get("/any").token(token);
        for name in ["X-Auth-Subject", "x_auth_subject", "X-AUTH-SIGNER", "X-Auth_Client", "X-Auth-Scope", "X-Hotkey"] {
            forged = forged.header(name, "forged");
        }
        assert_eq!(scene.server.send(&forged).status, 200);
        let received = scene.upstream.only();
        assert!(!format!("{:?}", received.headers).contains("forged"), "{:?}", received.headers);
        assert_eq!(received.values("x-auth-subject"), [&address]);
        scene.upstream.take();
    }

    // RFC 6750 section 3: no error where nothing was presented.
    let nobody = scene.server.get("/any");
    assert_eq!((nobody.status, nobody.header("www-authenticate")), (401, Some("Bearer realm=\"tollgate\"")));
    assert_eq!(nobody.error(), "no_credential");
    for (value, error) in [
        (format!("bearer {direct}"), None),
        (format!("BEARER  {direct}"), None),
        (direct.clone(), Some("malformed_authorization")),
        (format!("Basic {direct}"), Some("malformed_authorization")),
        (format!("DPoP {direct}"), Some("malformed_authorization")),
        (format!("Bearer {direct} x"), Some("malformed_authorization")),
        ("Bearer".into(), Some("malformed_authorization")),
    ] {
        let answer = scene.server.send(&Request::get("/any").header("Authorization", &value));
        assert_eq!(answer.status, if error.is_some() { 401 } else { 200 }, "{value}");
        if let Some(reason) = error {
            assert!(answer.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
            assert_eq!(answer.error(), "invalid_token");
            scene.server.gateway.logged(|line| line["reason"] == reason);
        }
    }
    let twice = Request::get("/any").token(&direct).token(&direct);
    assert_eq!(scene.server.send(&twice).status, 400);
    // The ways of RFC 6750 sections 2.2 and 2.3 are none here.
    assert_eq!(scene.server.get(&format!("/any?access_token={direct}")).status, 401);
    let form = crate::support::oauth::form("/any", &[("access_token", &direct)]);
    assert_eq!(scene.server.send(&form).status, 401);
    let question = Request::new("OPTIONS", "/cors")
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "GET");
    assert_eq!(scene.server.send(&question).status, 204, "a browser's question needs no token");
    assert!(scene.server.gateway.metric("tollgate_denials_total", &["any", "malformed_authorization"]) > 0);
}

#[test]
fn nothing_else_that_the_server_issues_or_anybody_forges_is_an_access_token() {
    let scene = Scene::start("", &route("any", ""));
    let client = scene.server.register(&registration("public"));
    let app = App { server: &scene.server, client: &client };
    let code = app.code(&wallet(), &[]);
    let tokens = remembered(&app.redeem(&app.code(&wallet(), &[])));
    let good = access(&tokens);
    let ours = scene.signing_key();
    let said = claims(&tokens["access_token"]);
    let changed = |changes: &[(&str, Value)]| {
        let mut all = said.clone();
        for (name, value) in changes {
            all[name] = value.clone();
        }
        all
    };
    let signed = |typ: &str, changes: &[(&str, Value)]| ours.sign_compact(typ, &changed(changes)).unwrap();
    let foreign = SigningKey::from_pem(&Algorithm::Es256.generate().unwrap()).unwrap();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let payload = message.split_once('.').unwrap().1;
    let with_header = |more: Value| {
        let mut header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": ours.kid() });
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()))
    };
    let other = |text: &str| if text.ends_with('A') { "B" } else { "A" };
    let now = said["iat"].as_i64().unwrap();
    for (what, token, reason) in [
        ("the token itself", good.clone(), ""),
        ("signed like it", signed("at+jwt", &[]), ""),
        ("an ID token", tokens["id_token"].as_str().unwrap().to_owned(), "token_type"),
        ("a refresh token", tokens["refresh_token"].as_str().unwrap().to_owned(), "malformed_token"),
        ("a code", code, "malformed_token"),
        ("an old access token", signed("JWT", &[]), "token_type"),
        ("an old refresh token", signed("JWT", &[("type", json!("refresh"))]), "token_type"),
        ("an old refresh token, disguised", signed("at+jwt", &[("type", json!("refresh"))]), "token_type"),
        ("an ID token, disguised", signed("at+jwt", &[("type", json!("id"))]), "token_type"),
        ("no type", signed("", &[]), "token_type"),
        ("a stranger's", foreign.sign_compact("at+jwt", &said).unwrap(), "unknown_key"),
        ("alg none", with_header(json!({ "alg": "none" })), "unknown_key"),
        ("alg HS256", with_header(json!({ "alg": "HS256" })), "unknown_key"),
        ("alg RS256", with_header(json!({ "alg": "RS256" })), "unknown_key"),
        ("crit", with_header(json!({ "crit": ["b64"], "b64": false })), "token_critical_header"),
        (
            "a key in the header",
            with_header(json!({ "jwk": foreign.jwk(), "jku": "http://x.example" })),
            "wrong_signature",
        ),
        ("no signature", format!("{message}."), "wrong_signature"),
        ("half of it", good[..good.len() / 2].to_owned(), "malformed_token"),
        ("another letter", format!("{}{}", &good[..good.len() - 1], other(&good)), ""),
        ("another audience", signed("at+jwt", &[("aud", json!(API))]), "wrong_audience"),
        ("no audience", signed("at+jwt", &[("aud", json!([]))]), "wrong_audience"),
        ("one audience of several", signed("at+jwt", &[("aud", json!([API, "bittensor-apps"]))]), ""),
        ("another issuer", signed("at+jwt", &[("iss", json!("http://localhost:3001"))]), "wrong_issuer"),
        ("expired", signed("at+jwt", &[("exp", json!(now - 1))]), "expired"),
        ("of long ago", signed("at+jwt", &[("iat", json!(now - 3600)), ("exp", json!(now + 3600))]), "expired"),
        ("of the future", signed("at+jwt", &[("iat", json!(now + 3600))]), "not_yet_valid"),
        ("not before", signed("at+jwt", &[("nbf", json!(now + 3600))]), "not_yet_valid"),
        ("nobody", signed("at+jwt", &[("sub", json!("self"))]), "malformed_claims"),
        ("a header in it", signed("at+jwt", &[("scope", json!("a\r\nx-hotkey: b"))]), "malformed_claims"),
        ("too long", format!("{good}{}", "A".repeat(17_000)), "token_too_long"),
        ("no token at all", "no-token".to_owned(), "malformed_token"),
    ] {
        secret(token.clone());
        let (status, found) = scene.refusal("/any", &token);
        if what == "another letter" {
            // The last letter of a signature of 64 bytes holds but two of its bits.
            assert!(status == 401 && ["wrong_signature", "malformed_token"].contains(&&*found), "{what}: {found}");
            continue;
        }
        assert_eq!((status, &*found), (if reason.is_empty() { 200 } else { 401 }, reason), "{what}");
    }
    let expired = scene.ask("/any", &signed("at+jwt", &[("exp", json!(now - 1))]));
    assert_eq!(expired.error(), "expired");
    assert_eq!(
        expired.header("www-authenticate"),
        Some("Bearer realm=\"tollgate\", error=\"invalid_token\", error_description=\"The access token has expired\"")
    );
}

#[test]
fn a_route_asks_for_scopes_clients_and_kinds_of_keys() {
    let node = Node::start();
    let rest = [
        route("openid", "scopes = [\"openid\"]"),
        route("both", "scopes = [\"openid\", \"signer:hotkey\"]"),
        route("wild", "scopes = [\"signer:*\"]"),
        route("hotkeys", "signer = \"hotkey\""),
        route("bittensor", "signer = [\"hotkey\", \"coldkey\"]"),
        route("client", "clients = [\"another\"]"),
        route("resource", &format!("audience = {API:?}")),
        format!("[subtensor]\nurl = \"{}\"\n", node.url()),
    ]
    .concat();
    let scene = Scene::start("", &rest);
    let [hot, cold] = ["//Alice//hot", "//Alice"].map(BittensorWallet::new);
    let of =
        |wallet: &BittensorWallet, scopes: &[&str]| scene.direct(&wallet.address(), |nonce| wallet.sign(nonce), scopes);
    let evm = scene.ethereum(&["openid"]);
    let (plain, signer) = (of(&hot, &[]), of(&hot, &["openid", "signer:hotkey"]));
    let coldkey = of(&cold, &["signer:coldkey"]);
    let scope = (403, "insufficient_scope".to_owned());
    let kind = (403, "wrong_signer".to_owned());
    let yes = (200, String::new());
    for (path, token, expected) in [
        ("/openid", &evm, &yes),
        ("/openid", &plain, &scope),
        ("/both", &signer, &yes),
        ("/both", &evm, &scope),
        ("/wild", &signer, &yes),
        ("/wild", &coldkey, &yes),
        ("/wild", &evm, &scope),
        ("/hotkeys", &plain, &yes),
        ("/hotkeys", &coldkey, &kind),
        ("/hotkeys", &evm, &kind),
        ("/bittensor", &coldkey, &yes),
        ("/bittensor", &evm, &kind),
        ("/client", &evm, &(403, "client_not_listed".to_owned())),
        ("/resource", &evm, &(401, "wrong_audience".to_owned())),
    ] {
        assert_eq!(scene.refusal(path, token), *expected, "{path}");
    }
    for (path, challenge) in [
        ("/openid", "error_description=\"The access token lacks a scope\", scope=\"openid\""),
        ("/both", "error_description=\"The access token lacks a scope\", scope=\"openid signer:hotkey\""),
        ("/wild", "error_description=\"The access token lacks a scope\""),
    ] {
        let answer = scene.ask(path, &of(&cold, &[]));
        let expected = format!("Bearer realm=\"tollgate\", error=\"insufficient_scope\", {challenge}");
        assert_eq!((answer.status, answer.header("www-authenticate")), (403, Some(&*expected)), "{path}");
        assert_eq!(answer.error(), "insufficient_scope");
    }
    let answer = scene.ask("/hotkeys", &evm);
    assert!(answer.header("www-authenticate").unwrap().ends_with("scope=\"signer:hotkey\""), "{}", answer.head);
    let nobody = scene.server.get("/hotkeys");
    assert_eq!(nobody.header("www-authenticate"), Some("Bearer realm=\"tollgate\", scope=\"signer:hotkey\""));
    let stranger = scene.ask("/client", &evm);
    assert_eq!((stranger.error(), stranger.header("www-authenticate")), ("not_entitled".into(), None));

    // A hotkey is told to the service as a neuron is; its owner's token says nothing of hotkeys.
    scene.upstream.take();
    for (token, wallet, hotkey) in [(&plain, &hot, true), (&coldkey, &cold, false)] {
        assert_eq!(scene.ask("/bittensor", token).status, 200);
        let received = scene.upstream.only();
        let address = wallet.address();
        assert_eq!(received.header("x-auth-subject"), Some(&*address));
        assert_eq!(received.header("x-hotkey"), hotkey.then_some(&*address));
        scene.upstream.take();
    }
    assert!(scene.server.gateway.metric("tollgate_denials_total", &["hotkeys", "wrong_signer"]) > 0);
}

#[test]
fn a_route_is_for_its_clients_and_its_audience_alone() {
    // The client's id is known once it is registered, so the route is made by a reload.
    let scene = Scene::start("", &(route("resource", &format!("audience = {API:?}")) + &route("usual", "")));
    let [own, other] = [(); 2].map(|()| scene.server.register(&registration("public")));
    let named = |client: &Value, resource: &[(&str, &str)]| {
        let app = App { server: &scene.server, client };
        let answer = app.redeem(&app.code(&wallet(), resource));
        access(&remembered(&answer))
    };
    let (for_api, usual) = (named(&own, &[("resource", API)]), named(&own, &[]));
    let elsewhere = (401, "wrong_audience".to_owned());
    for (path, token, expected) in [
        ("/resource", &for_api, (200, String::new())),
        ("/resource", &usual, elsewhere.clone()),
        ("/usual", &usual, (200, String::new())),
        ("/usual", &for_api, elsewhere),
    ] {
        assert_eq!(scene.refusal(path, token), expected, "{path}");
    }
    let file = scene.server.gateway.directory().join("tollgate.toml");
    let text = std::fs::read_to_string(&file).unwrap()
        + &route("club", &format!("clients = [{:?}]", own["client_id"].as_str().unwrap()));
    std::fs::write(&file, text).unwrap();
    scene.server.gateway.signal(rustix::process::Signal::HUP);
    let token = named(&own, &[]);
    eventually("the new route is there", || (scene.ask("/club", &token).status == 200).then_some(()));
    scene.upstream.take();
    assert_eq!(scene.refusal("/club", &token), (200, String::new()));
    for stranger in [named(&other, &[]), scene.ethereum(&["openid"])] {
        assert_eq!(scene.refusal("/club", &stranger), (403, "client_not_listed".to_owned()));
    }
}

#[test]
fn a_token_expires_on_routes_when_it_says_so() {
    let scene = Scene::start("[oauth.lifetimes]\naccess_token = \"2s\"", &route("any", ""));
    let token = scene.ethereum(&[]);
    assert_eq!(scene.ask("/any", &token).status, 200);
    eventually("it expires", || (scene.ask("/any", &token).status == 401).then_some(()));
    scene.upstream.take();
    assert_eq!(scene.refusal("/any", &token), (401, "expired".to_owned()));
}

#[test]
fn both_kinds_of_tokens_can_open_the_same_route() {
    for order in ["\"access-token\", \"nevermined\"", "\"nevermined\", \"access-token\""] {
        let rest = format!(
            "[[service]]\nid = \"{SERVICE}\"\nplan = \"{}\"\nplan_kind = \"time\"\ncharge = \"fixed\"\namount = 1\n\
             [[route]]\nname = \"both\"\npath = \"/both\"\nupstream = \"api\"\naccepts = [{order}]\nservices = [\"{SERVICE}\"]\n",
            crate::support::token::PLAN
        );
        let scene = Scene::start("", &rest);
        let (ours, marketplace) = (scene.ethereum(&[]), Token::covering(scene.upstream.url("/(.*)")).mint());
        for (token, header) in [(&ours, "x-auth-subject"), (&marketplace, "nvm-user-id")] {
            assert_eq!(scene.ask("/both", token).status, 200, "{order}");
            let received = scene.upstream.only();
            let said = ["x-auth-subject", "nvm-user-id"].map(|name| received.header(name).is_some());
            assert_eq!(said, [header == "x-auth-subject", header == "nvm-user-id"], "{order}");
            scene.upstream.take();
        }
        for (token, reason) in [
            (format!("{ours}x"), "malformed_token"),
            (format!("{marketplace}x"), "malformed_ciphertext"),
            ("x".into(), "malformed_token"),
        ] {
            let (status, found) = scene.refusal("/both", &token);
            assert_eq!(status, 401, "{order} {reason} {found}");
        }
    }
}

/// Two gateways on one Postgres: what one takes back, the other's routes refuse within seconds; so do its own.
#[test]
fn what_is_taken_back_opens_no_route_of_any_gateway() {
    let database = Database::fresh();
    let settings = || Settings::file().database(&format!("url = {:?}", database.url));
    let scene = Scene::of(settings(), "", &route("any", ""));
    let second = Gateway::start(Scene::settings(settings(), &scene.upstream, scene.keys.path(), "", &route("any", "")));
    let client = scene.server.register(&registration("confidential"));
    let leaving = scene.server.register(&registration("public"));
    let app = App { server: &scene.server, client: &client };
    let gone = App { server: &scene.server, client: &leaving };
    let (kept, direct) = (access(&app.tokens(&wallet())), scene.ethereum(&[]));
    let (revoked, deactivated) = (access(&app.tokens(&wallet())), access(&gone.tokens(&wallet())));
    // A code that comes a second time takes back what came of it the first time.
    let code = app.code(&wallet(), &[]);
    let stolen = access(&remembered(&app.redeem(&code)));
    let ask = |token: &str| {
        let request = Request::get("/any").token(token).header("Connection", "close");
        [scene.server.send(&request).status, second.send(&request).status]
    };
    let all = [&kept, &direct, &revoked, &deactivated, &stolen];
    for token in all {
        eventually("both know that nothing was taken back", || (ask(token) == [200, 200]).then_some(()));
    }
    let begun = Instant::now();
    assert_eq!(app.token(&crate::support::sign_in::redemption(&code)).status, 400);
    let secret = client["client_secret"].as_str().unwrap();
    let form = [("client_id", app.id()), ("client_secret", secret), ("token", &*revoked)];
    assert_eq!(scene.server.post_form("/v1/oauth/revoke", &form).status, 200);
    assert_eq!(scene.server.admin("DELETE", &format!("/v1/admin/clients/{}", gone.id()), None).status, 200);
    for token in [&revoked, &deactivated, &stolen] {
        eventually("both refuse it", || (ask(token) == [401, 401]).then_some(()));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for token in [&kept, &direct] {
        assert_eq!(ask(token), [200, 200], "others stay");
    }
    scene.upstream.take();
    assert_eq!(scene.refusal("/any", &revoked), (401, "revoked".to_owned()));
    assert_eq!(second.metric("tollgate_revoked_grants", &[]), 3);
}

/// Of a grant whose fate is not known it is said neither yes nor no; and that is known for a while without the database.
#[test]
fn routes_go_on_without_the_database_for_as_long_as_was_said() {
    let mut cluster = Cluster::start();
    let settings = Settings::file().database(&format!("url = {:?}\ntimeout = \"1s\"", cluster.url()));
    let scene = Scene::of(settings, "revocations_stale_for = \"8s\"", &route("any", ""));
    let client = scene.server.register(&registration("public"));
    let app = App { server: &scene.server, client: &client };
    let (granted, direct) = (access(&app.tokens(&wallet())), scene.ethereum(&[]));
    eventually("it is known that nothing was taken back", || (scene.ask("/any", &granted).status == 200).then_some(()));
    cluster.stop();
    assert_eq!(scene.ask("/any", &granted).status, 200, "known a moment ago");
    let answer = eventually("it is too long ago", || {
        let answer = scene.ask("/any", &granted);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    assert_eq!(answer.error(), "unavailable");
    scene.upstream.take();
    assert_eq!(scene.refusal("/any", &granted), (503, "revocations_unavailable".to_owned()));
    assert_eq!(scene.refusal("/any", &direct), (200, String::new()), "nobody can take it back");
    assert!(scene.server.gateway.metric("tollgate_revocations_age_seconds", &[]) >= 8);
    cluster.again();
    eventually("it is known again", || (scene.ask("/any", &granted).status == 200).then_some(()));
    assert!(scene.server.gateway.metric("tollgate_revocations_age_seconds", &[]) < 8);
}

#[test]
fn a_key_that_was_rotated_out_is_good_until_the_next_rotation() {
    let scene = Scene::start("", &route("any", ""));
    let first = scene.ethereum(&[]);
    let rotate = || scene.server.gateway.cli(&["key", "rotate", "--now"]);
    let kid = |token: &str| crate::support::sign_in::part(&json!(token), 0)["kid"].clone();
    rotate();
    let second = eventually("the new key signs", || {
        let token = scene.ethereum(&[]);
        (kid(&token) != kid(&first)).then_some(token)
    });
    for token in [&first, &second] {
        assert_eq!(scene.refusal("/any", token), (200, String::new()));
    }
    rotate();
    eventually("the first key is gone, and what is remembered of its tokens", || {
        (scene.ask("/any", &first).status == 401).then_some(())
    });
    scene.upstream.take();
    assert_eq!(scene.refusal("/any", &first), (401, "unknown_key".to_owned()));
    assert_eq!(scene.refusal("/any", &second), (200, String::new()));
}

#[test]
fn a_route_that_could_not_work_is_a_mistake() {
    let check = |oauth: bool, rest: &str| {
        let upstream = "[[upstream]]\nname = \"api\"\naddresses = [\"127.0.0.1:1\"]\n";
        let settings = Settings::file().with(upstream);
        let settings = if oauth {
            settings.with(&sections(std::path::Path::new("keys"), "network = \"testnet\""))
        } else {
            settings
        };
        let (code, text) = refused(settings.with(rest));
        assert_eq!(code, 2, "{text}");
        text
    };
    let token = "[[route]]\nname = \"t\"\npath = \"/t\"\nupstream = \"token\"\naccepts = [\"nevermined\", \"access-token\"]\n\
                 [marketplace]\nurl = \"http://127.0.0.1:1\"\n[chain]\nrpc = \"http://127.0.0.1:1\"\n";
    let open =
        "[[route]]\nname = \"o\"\npath = \"/o\"\nupstream = \"api\"\n[route.access_token]\nscopes = [\"openid\"]\n";
    let old = route("old", "").replace("accepts", "compatibility = \"nevermined\"\naccepts");
    for (oauth, rest, expected) in [
        (false, route("any", ""), "\"access-token\" needs an [oauth] section"),
        (true, token.to_owned(), "such a token names none"),
        (true, open.to_owned(), "has no effect unless `accepts` has \"access-token\""),
        (true, old, "\"nevermined\" knew its own tokens alone"),
        (true, route("any", "audience = \"https://api.example/\""), "no token would be for it"),
        (true, route("any", "scopes = [\"profile\"]"), "must be a scope like"),
        (true, route("any", "scopes = [\"staker:*\"]"), "available on mainnet only"),
        (true, route("any", "clients = []"), "is a list of nobody"),
        (true, route("any", "signer = []"), "is a list of nobody"),
        (true, route("any", "signer = \"owner\""), "signer"),
        (true, route("any", "scope = \"openid\""), "did you mean `scopes`?"),
    ] {
        let text = check(oauth, &rest);
        assert!(text.contains(expected), "{rest}\n{text}");
    }
    let short = Settings::file().with(&sections(std::path::Path::new("keys"), "revocations_stale_for = \"2s\""));
    assert!(refused(short).1.contains("must be at least 5s"));
}

#[test]
fn a_reload_does_not_bring_an_authorization_server() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(Settings::file().open(upstream.address, "path = \"/open\""));
    gateway.expect_error("oauth: this section is new, and counts from the next start");
    let file = gateway.directory().join("tollgate.toml");
    let text = std::fs::read_to_string(&file).unwrap() + &sections(gateway.directory(), "") + &route("new", "");
    std::fs::write(&file, text.replace("upstream = \"api\"", "upstream = \"fixed\"")).unwrap();
    gateway.signal(rustix::process::Signal::HUP);
    let why = "oauth: this section is new, and counts from the next start";
    eventually("it says why not", || gateway.log().iter().any(|line| line.contains(why)).then_some(()));
    assert_eq!(gateway.send(&Request::get("/open")).status, 200, "the old routes stay");
    assert_eq!(gateway.send(&Request::get("/new").token("a.b.c")).status, 404);
}

#[test]
fn what_is_asked_for_is_told_to_who_checks() {
    let gateway = Gateway::prepare(
        Settings::file()
            .with("[[upstream]]\nname = \"api\"\naddresses = [\"127.0.0.1:1\"]\n")
            .with(&sections(std::path::Path::new("keys"), ""))
            .with(&route("any", ""))
            .with(&route("one", &format!("audience = {API:?}\nscopes = [\"openid\", \"subnet:*:miner\"]\nclients = [\"b\", \"a\"]\nsigner = \"hotkey\""))),
    );
    let text = gateway.cli(&["check"]);
    for expected in [
        "access token for bittensor-apps ",
        "access token for https://api.example, of client a or b, signed by hotkey, with openid subnet:*:miner",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}
