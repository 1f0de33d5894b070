//! `POST /introspect`, as the replaced system's own server answered it (nevermined.md section 4), and endpoints that are
//! open to everybody (section 6).

use serde_json::json;
use tollgate::model::{clock::Timestamp, did::Did};

use super::support::{
    Answer, Client, Gateway, IN_QUERY, Request, Settings, Token, Upstream,
    market::{Market, Node, Service, plan},
    token::{FAR, HOLDER, OWNER, PLAN, SERVICE, good_claims, mint_json, phrase_key},
};

struct World {
    market: Market,
    node: Node,
    upstream: Upstream,
    gateway: Gateway,
}

impl World {
    fn new() -> Self {
        let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
        node.set(HOLDER, 100);
        let settings =
            Settings::drop_in().variable("MARKETPLACE_API_URI", market.url()).variable("WEB3_PROVIDER_URL", node.url());
        let gateway = Gateway::start(settings);
        Self { market, node, upstream, gateway }
    }

    fn ask(&self, request: &Request) -> Answer {
        Client::connect(self.gateway.introspection).send(request)
    }

    fn introspect(&self, url: &str, token: Option<&str>) -> Answer {
        let request = Request::post("/introspect", "").header("nvm-requested-url", url);
        self.ask(&token.map_or(request.clone(), |token| request.clone().token(token)))
    }
}

#[test]
fn a_token_is_answered_with_the_members_of_the_reference_in_their_order() {
    let world = World::new();
    let token = Token::covering(world.upstream.everything()).mint_with(&phrase_key());
    let answer = world.introspect(&format!("https://proxy.example/x/y?{IN_QUERY}"), Some(&token));
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("application/json"));
    let expected = format!(
        r#"{{"active":true,"user_id":"{}","owner":"{}","auth_type":"bearer","upstream_host":"{}","scope":"{SERVICE}","exp":{},"iat":1700000000,"ercType":1155,"service_token":"svc-secret","auth_header":"Bearer svc-secret"}}"#,
        HOLDER.checksummed(),
        OWNER.checksummed(),
        world.upstream.address,
        FAR.0,
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(world.upstream.requests(), 0);
}

#[test]
fn claims_that_are_not_there_are_left_out() {
    let world = World::new();
    let mut claims = good_claims(&world.upstream.everything());
    for name in ["exp", "iat", "ercType"] {
        claims.as_object_mut().unwrap().remove(name);
    }
    let answer = world.introspect("http://p/x", Some(&mint_json(&claims, &phrase_key()))).json();
    let members: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    for absent in ["exp", "iat", "ercType"] {
        assert!(!members.contains(&absent.to_owned()), "{answer}");
    }
    assert_eq!(
        (&answer["auth_type"], &answer["service_token"], &answer["auth_header"]),
        (&json!("none"), &json!(""), &json!(""))
    );
}

#[test]
fn everything_else_is_a_401_without_a_body() {
    let world = World::new();
    let url = "http://proxy.example/x";
    let token = Token::covering(world.upstream.everything()).mint_with(&phrase_key());
    let minted = |token: Token| token.mint_with(&phrase_key());
    let covering = || Token::covering(world.upstream.everything());
    let poor = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc".parse().unwrap();
    for (what, request) in [
        ("no url", Request::post("/introspect", "").token(&token)),
        ("a url that is none", Request::post("/introspect", "").token(&token).header("nvm-requested-url", "/x")),
        (
            "another scheme",
            Request::post("/introspect", "").token(&token).header("nvm-requested-url", "https,http://x/y"),
        ),
        (
            "a traversal",
            Request::post("/introspect", "").token(&token).header("nvm-requested-url", "http://p/x/..%2fadmin"),
        ),
        ("no token", Request::post("/introspect", "").header("nvm-requested-url", url)),
        ("garbage", Request::post("/introspect", "").header("nvm-requested-url", url).token("x.y")),
        (
            "expired",
            Request::post("/introspect", "")
                .header("nvm-requested-url", url)
                .token(&minted(covering().expiring(Timestamp(1_700_000_001)))),
        ),
        (
            "not yet",
            Request::post("/introspect", "").header("nvm-requested-url", url).token(&minted(covering().from(FAR))),
        ),
        (
            "not covered",
            Request::post("/introspect", "")
                .header("nvm-requested-url", url)
                .token(&minted(Token::covering(world.upstream.url("/y")))),
        ),
        (
            "no credits",
            Request::post("/introspect", "").header("nvm-requested-url", url).token(&minted(covering().of(poor))),
        ),
        (
            "unknown service",
            Request::post("/introspect", "").header("nvm-requested-url", url).token(&minted(covering().service(PLAN))),
        ),
        ("two tokens", Request::post("/introspect", "").header("nvm-requested-url", url).token(&token).token(&token)),
    ] {
        let answer = world.ask(&request);
        assert_eq!((answer.status, answer.text().as_str()), (401, ""), "{what}");
    }
}

#[test]
fn the_server_says_that_it_is_alive_and_knows_nothing_else() {
    let world = World::new();
    let alive = world.ask(&Request::get("/"));
    assert_eq!((alive.status, alive.text().as_str()), (200, "Oauth server"));
    for path in ["/other", "/introspect/", "/metrics"] {
        assert_eq!(world.ask(&Request::get(path)).status, 404, "{path}");
    }
}

#[test]
fn an_open_endpoint_is_reached_by_the_services_did_here_and_inline() {
    let world = World::new();
    let zeros = Did(std::array::from_fn(|index| if index == 0 { 0 } else { 0xab }));
    let ordinary = "did:nv:15d9578f9d080fc6079380b7c23c2f59bbd0d43f2e3fa91429846dcb83dd9b92".parse().unwrap();
    //   the DID's label is the reference's
    for (did, label) in [
        (ordinary, "jlr413wwl6axiy01tsu7u9s3y8zo2cp9i6elicbj7c39qbnv6"),
        (zeros, "lnskv07zwmsk66lvfsspt6gj5974l5mi756amczg556rd1gr"),
    ] {
        let open = vec![world.upstream.url("/openapi.json"), world.upstream.url("/public/(.*)")];
        world.market.put(did, Service { did, open, ..Service::default() }.document());
        let host = format!("{label}.proxy.example");
        let answer = world.introspect(&format!("https://{host}/openapi.json"), None);
        let expected = format!(
            r#"{{"active":true,"user_id":"","owner":"{}","auth_type":"none","upstream_host":"{}","scope":"{did}","exp":"","iat":"","service_token":"","auth_header":""}}"#,
            OWNER.checksummed(),
            world.upstream.address,
        );
        assert_eq!((answer.status, answer.text()), (200, expected), "the port is kept");

        for (host, path, status) in [
            (host.clone(), "/openapi.json", 200),
            (host.to_uppercase(), "/public/a/b", 200),
            (format!("{host}:3128"), "/openapi.json", 200),
            (host.clone(), "/private", 401),
            (format!("x{host}"), "/openapi.json", 401),
            ("proxy.example".to_owned(), "/openapi.json", 401),
        ] {
            let answer = world.gateway.send(&Request::get(path).host(&host).header("NVM-User-id", "evil"));
            assert_eq!(answer.status, status, "{host}{path}: {}", answer.text());
            if status == 200 {
                let received = world.upstream.only();
                assert_eq!(received.header("nvm-scope"), Some(did.to_string().as_str()));
                assert_eq!((received.header("nvm-user-id"), received.header("authorization")), (None, None));
                assert_eq!(received.header("host"), Some(world.upstream.address.to_string().as_str()));
            }
        }
        // Somebody who presents a wrong token is not let in as nobody.
        assert_eq!(world.gateway.send(&Request::get("/openapi.json").host(&host).token("wrong.token")).status, 401);
    }
    assert!(world.gateway.usage().is_empty(), "open endpoints cost nothing");
    assert_eq!(world.node.calls(), 0);
}

#[test]
fn strangers_cannot_have_us_ask_the_marketplace_at_will() {
    let world = World::new();
    let host = |number: u8| format!("{}.proxy.example", Did([number; 32]).to_label());
    for number in 100..=255 {
        let answer = world.gateway.send(&Request::get("/openapi.json").host(&host(number)));
        // Too many are told so: the replaced system had no number for that.
        assert!(matches!(answer.status, 401 | 429), "{}", answer.status);
    }
    let asked = world.market.server.requests();
    assert!(asked < 100, "156 strangers had us ask {asked} times");
    assert!(world.gateway.metric("tollgate_lookups", &["limited", "services"]) > 0);
    for _ in 0..20 {
        world.gateway.send(&Request::get("/openapi.json").host(&host(100)));
    }
    assert!(world.market.server.requests() <= asked + 2, "that there is none is remembered");
    // Who has a token is not kept waiting by them.
    let token = Token::covering(world.upstream.everything()).mint_with(&phrase_key());
    assert_eq!(world.gateway.send(&Request::get("/x").token(&token)).status, 200);
}

#[test]
fn a_plan_of_time_is_active_without_a_balance() {
    let world = World::new();
    world.market.put(PLAN, plan(PLAN, "time"));
    let poor = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc".parse().unwrap();
    let token = Token::covering(world.upstream.everything()).of(poor).mint_with(&phrase_key());
    assert_eq!(world.introspect("http://p/x", Some(&token)).status, 200);
    assert_eq!(world.node.calls(), 0);
}
