//! Neurons that call with client certificates, through real handshakes: who is admitted, who is not, and that nothing a
//! client can send breaks it.

use std::sync::Arc;

use rustls::{
    ClientConfig, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use serde_json::json;

use super::support::{
    Answer, Client, Gateway, Reply, Request, Settings, Token, Upstream, eventually, free_port, h2,
    neuron::{self, ALICE, Presented},
    pylon::Pylon,
    tls::{Authority, pinning},
};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A gateway that asks for certificates, Pylon, and a service behind them.
struct Scene {
    authority: Authority,
    directory: tempfile::TempDir,
    upstream: Upstream,
    pylon: Pylon,
}

impl Scene {
    /// Keys are the ones of the vectors' registry.
    fn new() -> Self {
        let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
        Self { authority, directory, upstream: Upstream::start(), pylon: Pylon::start() }
    }

    /// A listener with optional certificates, the upstream `miner`, and no route yet.
    fn settings(&self) -> Settings {
        let (certificate, key) = self.authority.leaf(&["gate.test"]).write(self.directory.path(), "gate");
        let upstream = format!("[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n", self.upstream.address);
        let settings = Settings::file().tls(&certificate, &key).client_certificates("optional");
        self.pylon.configured(settings, "refresh = \"200ms\"\n").with(&upstream)
    }

    /// With a route of each kind: `/strict` and `/before`, which judges as the replaced system did.
    fn both(&self) -> Settings {
        self.settings().with(&route("strict", "")).with(&route("before", "compatibility = \"nexus-auth\""))
    }

    fn client(&self, presented: &Arc<Presented>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        self.authority.presenting(Arc::clone(presented), &["http/1.1"], &[version])
    }

    fn client2(&self, presented: &Arc<Presented>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        self.authority.presenting(Arc::clone(presented), &["h2"], &[version])
    }

    /// What a vector is answered on a connection of its own.
    fn ask(&self, gateway: &Gateway, vector: &str, request: &Request) -> Answer {
        let config = self.client(&presented(vector), &TLS13);
        send(gateway, &config, request).expect("the handshake is done")
    }
}

/// A route below its name, for neurons.
fn route(name: &str, more: &str) -> String {
    let accepts = "accepts = [\"client-certificate\"]";
    format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"miner\"\n{accepts}\n{more}\n")
}

fn presented(vector: &str) -> Arc<Presented> {
    Presented::new(neuron::vector(vector))
}

/// The answer on a connection of its own. None: the gateway refused the handshake.
fn send(gateway: &Gateway, config: &Arc<ClientConfig>, request: &Request) -> Option<Answer> {
    let (mut client, _) = Client::tls(gateway.tls, "gate.test", Arc::clone(config)).ok()?;
    // A client of TLS 1.3 has done its part before the gateway has looked at the certificate.
    client.try_write(request.bytes()).ok()?;
    client.try_answer(&request.method).ok()
}

/// What cannot be read is refused in the handshake already: by our parser, or by the one of the TLS library.
const NO_HANDSHAKE: [&str; 4] = ["malformed_date", "negative_serial", "unknown_critical_extension", "x509_v1"];

#[test]
fn every_vector_gets_its_verdict() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both());
    let vectors = neuron::vectors();
    assert!(vectors.len() >= 40, "{}", vectors.len());
    for vector in &vectors {
        let presented = presented(&vector.name);
        for version in VERSIONS {
            let what = format!("{} {version:?}", vector.name);
            if NO_HANDSHAKE.contains(&vector.name.as_str()) {
                let answer = send(&gateway, &scene.client(&presented, version), &Request::get("/strict"));
                assert!(answer.is_none(), "{what}: {answer:?}");
                continue;
            }
            for (path, expected) in [("/strict", strictly(vector)), ("/before", before(vector))] {
                let answer = send(&gateway, &scene.client(&presented, version), &Request::get(path));
                let answer = answer.unwrap_or_else(|| panic!("{what}: no handshake"));
                assert_eq!((answer.status, hotkey(&scene)), expected, "{what} {path}: {}", answer.text());
                let mut client = h2::Client::connect(gateway.tls, "gate.test", scene.client2(&presented, version));
                let answer = client.get(&format!("https://gate.test{path}"), None);
                assert_eq!((answer.status, hotkey(&scene)), expected, "{what} {path} over HTTP/2");
            }
        }
        if !vector.accepted && !NO_HANDSHAKE.contains(&vector.name.as_str()) {
            let reason = if vector.reason == "registry_unavailable" { "neurons_unavailable" } else { &vector.reason };
            gateway.logged(|line| line["path"] == "/strict" && line["decision"] == "deny" && line["reason"] == reason);
        }
    }
    let line = gateway.logged(|line| line["path"] == "/strict" && line["decision"] == "permit");
    assert_eq!((line["proof"].as_str(), line["subject"].as_str()), (Some("client_certificate"), Some(ALICE)));
    let refused = gateway.metric("tollgate_connections_refused_total", &["bad_client_certificate", "tls"]);
    assert_eq!(refused, i64::try_from(NO_HANDSHAKE.len() * VERSIONS.len()).unwrap());
    assert!(gateway.metric("tollgate_denials_total", &["strict", "key_mismatch"]) > 0);
}

/// Whom the service was told about, if anything reached it.
fn hotkey(scene: &Scene) -> Option<String> {
    let received = scene.upstream.take();
    assert!(received.len() < 2, "{received:?}");
    received.first().map(|request| request.header("x-hotkey").expect("who calls is told").to_owned())
}

/// Whom a vector names, in the one spelling.
fn named(vector: &str) -> String {
    let name = match vector {
        "valid_uppercase_registry_hex" => "5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY",
        "registry_0x_prefix" => "5HGjWAeFDfFCWPsjFQdVV2Msvz2XtMktvgocEZcCj68kUMaw",
        "org_self" => "self",
        _ => ALICE,
    };
    name.to_owned()
}

fn strictly(vector: &neuron::Vector) -> (u16, Option<String>) {
    match vector.reason.as_str() {
        _ if vector.accepted => (200, Some(named(&vector.name))),
        "registry_unavailable" => (503, None),
        _ => (403, None),
    }
}

fn before(vector: &neuron::Vector) -> (u16, Option<String>) {
    // A key that is published with 0x before it was none to the replaced system. It is the same key.
    let accepted = vector.accepted_before || vector.name == "registry_0x_prefix";
    if accepted { (200, Some(named(&vector.name))) } else { (403, None) }
}

#[test]
fn without_a_certificate_there_is_no_way_in() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both().with("[[route]]\nname = \"open\"\nupstream = \"miner\"\n"));
    let nothing = Presented::nothing();
    for version in VERSIONS {
        let config = scene.client(&nothing, version);
        for path in ["/strict", "/before"] {
            let answer = send(&gateway, &config, &Request::get(path)).unwrap();
            assert_eq!((answer.status, answer.error().as_str()), (403, "no_credential"));
            assert_eq!(answer.header("www-authenticate"), None, "there is no scheme for certificates");
            assert_eq!(answer.header("connection"), Some("close"), "the same connection would be refused again");
        }
        assert_eq!(send(&gateway, &config, &Request::get("/")).unwrap().status, 200, "an open route asks nobody");
        assert_eq!(scene.upstream.only().header("x-hotkey"), None);
    }
    // Nor is there without TLS.
    assert_eq!(gateway.send(&Request::get("/strict")).status, 403);
    assert_eq!(scene.upstream.requests(), 0);
    drop(gateway);

    let gateway = Gateway::start(scene.both().client_certificates("required"));
    for version in VERSIONS {
        assert!(send(&gateway, &scene.client(&nothing, version), &Request::get("/strict")).is_none());
        let answer = send(&gateway, &scene.client(&presented("valid"), version), &Request::get("/strict"));
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(gateway.metric("tollgate_connections_refused_total", &["no_client_certificate"]), 2);
    drop(gateway);

    // A listener that does not ask gets none.
    let asked = presented("valid");
    let plain = format!("[[listener]]\nname = \"asks\"\naddress = \"127.0.0.1:{}\"\n[listener.tls]\n", free_port());
    let plain = format!("{plain}client_certificates = \"optional\"\n[[listener.tls.certificate]]\n");
    let files = [("cert", "gate.crt"), ("key", "gate.key")];
    let files = files.map(|(key, name)| format!("{key} = \"{}\"\n", scene.directory.path().join(name).display()));
    let gateway =
        Gateway::start(scene.both().client_certificates("ignore").with(&format!("{plain}{}", files.concat())));
    let answer = send(&gateway, &scene.client(&asked, &TLS13), &Request::get("/strict")).unwrap();
    assert_eq!((answer.status, asked.asked()), (403, 0));
}

#[test]
fn a_certificate_is_worth_nothing_without_its_key() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both());
    // Alice's certificate is public, and so is the chain that somebody puts behind it.
    let stolen = neuron::with_key_of("unknown_org", neuron::certificate("valid"));
    let chain = |length: usize| {
        let mut certified = (*neuron::vector("valid")).clone();
        certified.cert.extend((0..length).map(|_| neuron::certificate("ca_signed").into()));
        Presented::new(Arc::new(certified))
    };
    for version in VERSIONS {
        let request = Request::get("/before");
        assert!(send(&gateway, &scene.client(&Presented::new(Arc::clone(&stolen)), version), &request).is_none());
        assert_eq!(send(&gateway, &scene.client(&chain(3), version), &request).unwrap().status, 200);
        assert!(send(&gateway, &scene.client(&chain(150), version), &request).is_none(), "too much to keep");
    }
    let refused = || gateway.metric("tollgate_connections_refused_total", &["bad_client_certificate"]);
    // A client may know of its refusal before the gateway has counted it.
    eventually("all are counted", || (refused() == 4).then_some(()));
    assert_eq!(scene.upstream.requests(), 2);
}

#[test]
fn clients_are_asked_without_names_of_authorities() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both());
    for version in VERSIONS {
        let presented = presented("valid");
        assert_eq!(send(&gateway, &scene.client(&presented, version), &Request::get("/strict")).unwrap().status, 200);
        assert_eq!((presented.asked(), presented.hints()), (1, 0), "{version:?}");
    }
}

#[test]
fn the_gateway_shows_the_neurons_own_certificate() {
    let scene = Scene::new();
    let settings = scene.both().tls(&neuron::file("gateway.crt"), &neuron::file("gateway.key"));
    let gateway = Gateway::start(settings);
    for version in VERSIONS {
        // Peers look at the key before anything else, without a certificate of their own, and close.
        let config = pinning(&neuron::certificate("gateway"), &Presented::nothing(), version);
        let (client, agreed) = Client::tls(gateway.tls, "127.0.0.1", config).unwrap();
        drop(client);
        let leaf = agreed.certificate.unwrap();
        assert_eq!(leaf, neuron::certificate("gateway"));
        assert_eq!(neuron::raw_key(&leaf), neuron::public_key("gateway"));
        // Then they call, and trust just that one.
        let config = pinning(&leaf, &presented("valid"), version);
        let (mut client, _) = Client::tls(gateway.tls, "127.0.0.1", config).unwrap();
        assert_eq!(client.send(&Request::get("/strict")).status, 200);
    }
    assert_eq!(gateway.metric("tollgate_connections_refused_total", &["client_certificate"]), 0);
}

#[test]
fn a_resumed_session_is_still_the_same_neuron() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both());
    for version in VERSIONS {
        let presented = presented("valid");
        let config = scene.client(&presented, version);
        for resumed in [false, true, true] {
            let (mut client, agreed) = Client::tls(gateway.tls, "gate.test", Arc::clone(&config)).unwrap();
            assert_eq!(agreed.resumed, resumed, "{version:?}");
            assert_eq!(client.send(&Request::get("/strict")).status, 200);
            assert_eq!(scene.upstream.only().header("x-hotkey"), Some(ALICE));
        }
        assert_eq!(presented.asked(), 1, "the certificate is sent once");
    }
    // What it may do is decided anew.
    let config = scene.client(&presented("valid"), &TLS13);
    assert_eq!(send(&gateway, &config, &Request::get("/strict")).unwrap().status, 200);
    scene.pylon.publish(ALICE, &[0x11; 32]);
    eventually("the resumed session is refused", || {
        let (mut client, agreed) = Client::tls(gateway.tls, "gate.test", Arc::clone(&config)).unwrap();
        assert!(agreed.resumed);
        (client.send(&Request::get("/strict")).status == 403).then_some(())
    });
}

#[test]
fn a_rotated_key_ends_what_is_open() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both());
    let presented = presented("valid");
    let (mut open, _) = Client::tls(gateway.tls, "gate.test", scene.client(&presented, &TLS13)).unwrap();
    let mut open2 = h2::Client::connect(gateway.tls, "gate.test", scene.client2(&presented, &TLS13));
    for _ in 0..3 {
        assert_eq!(open.send(&Request::get("/strict")).status, 200);
        assert_eq!(open2.get("https://gate.test/strict", None).status, 200);
    }
    scene.pylon.publish(ALICE, &[0x11; 32]);
    let answer = eventually("the open connection is refused", || {
        Some(open.send(&Request::get("/strict"))).filter(|answer| answer.status != 200)
    });
    assert_eq!((answer.status, answer.error().as_str()), (403, "invalid_certificate"));
    assert!(open.is_closed(), "and closed");
    eventually("so is the other", || (open2.get("https://gate.test/strict", None).status == 403).then_some(()));
    gateway.logged(|line| line["reason"] == "key_mismatch");
    // The key comes back, and with it the neuron.
    scene.pylon.publish(ALICE, &neuron::public_key("valid"));
    eventually("it is admitted again", || (open2.get("https://gate.test/strict", None).status == 200).then_some(()));
}

#[test]
fn a_client_cannot_say_who_it_is() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both().with("[[route]]\nname = \"open\"\nupstream = \"miner\"\n"));
    let spoofed = [
        "X-Hotkey",
        "x-hotkey",
        "X_HOTKEY",
        "x_hotkey",
        "X-Hotkey",
        "X-Client-Cert",
        "x_client_cert",
        "X-Client-Cert-Subject",
        "X_Client_Cert_Issuer",
        "Client-Cert",
        "client_cert",
        "Client-Cert-Chain",
        "X-Forwarded-Client-Cert",
    ];
    for (path, hotkey) in [("/strict", Some(ALICE)), ("/before", Some(ALICE)), ("/", None)] {
        let mut request = Request::get(path).header("Connection", "X-Hotkey, X-Client-Cert, keep-alive");
        for name in spoofed {
            request = request.header(name, "evil");
        }
        assert_eq!(scene.ask(&gateway, "valid", &request).status, 200);
        let received = scene.upstream.only();
        assert_eq!(received.header("x-hotkey"), hotkey, "{path}");
        assert!(!String::from_utf8_lossy(&received.head).contains("evil"), "{:?}", received.headers);

        let mut client = h2::Client::connect(gateway.tls, "gate.test", scene.client2(&presented("valid"), &TLS13));
        let mut request = http::Request::get(format!("https://gate.test{path}"));
        for name in spoofed {
            request = request.header(name, "evil");
        }
        assert_eq!(client.send(request, Vec::new()).status, 200);
        let received = scene.upstream.only();
        assert_eq!(received.header("x-hotkey"), hotkey, "{path}");
        assert!(!String::from_utf8_lossy(&received.head).contains("evil"), "{:?}", received.headers);
    }
}

#[test]
fn a_websocket_of_a_neuron_is_authorised_like_any_request() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.settings().with(&route("ws", "")));
    scene.upstream.on("/ws", Reply::WebSocket);
    let upgrade = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(scene.ask(&gateway, "wrong_org", &upgrade).status, 403);
    assert_eq!(send(&gateway, &scene.client(&Presented::nothing(), &TLS13), &upgrade).unwrap().status, 403);
    assert_eq!(scene.upstream.requests(), 0);
    let (mut client, _) = Client::tls(gateway.tls, "gate.test", scene.client(&presented("valid"), &TLS13)).unwrap();
    client.write(upgrade.bytes());
    assert_eq!(client.head().unwrap().status, 101);
    client.write("any bytes at all");
    assert_eq!(client.bytes(16), b"any bytes at all");
    assert_eq!(scene.upstream.only().header("x-hotkey"), Some(ALICE));
}

#[test]
fn a_route_says_which_neurons_may_call() {
    const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
    let scene = Scene::new();
    register(&scene.pylon, true);
    let listed = |hotkeys: &str| format!("hotkeys = [\"{hotkeys}\"]");
    let mut settings = scene.settings();
    let mut expected = Vec::new();
    for (name, policy, verdict) in [
        ("registered", "registered = true".to_owned(), None),
        ("permit", "validator_permit = true".to_owned(), None),
        ("stake", "min_stake = 1000.5".to_owned(), None),
        ("more", "min_stake = 1000.500000001".to_owned(), Some("insufficient_stake")),
        ("alice", listed(ALICE), None),
        ("bob", listed(BOB), Some("hotkey_not_listed")),
        ("denied", format!("deny_hotkeys = [\"{ALICE}\", \"{BOB}\"]"), Some("hotkey_denied")),
    ] {
        settings = settings.with(&route(name, &format!("[route.neurons]\n{policy}\n")));
        expected.push((name, verdict));
    }
    let gateway = Gateway::start(settings);
    for (name, verdict) in expected {
        let answer = scene.ask(&gateway, "valid", &Request::get(&format!("/{name}")));
        assert_eq!(answer.status, if verdict.is_none() { 200 } else { 403 }, "{name}: {}", answer.text());
        let Some(reason) = verdict else { continue };
        assert_eq!(answer.error(), "not_entitled");
        assert_eq!(answer.header("www-authenticate"), None);
        let line = gateway.logged(|line| line["route"] == name);
        assert_eq!((line["reason"].as_str(), line["subject"].as_str()), (Some(reason), Some(ALICE)));
        assert_eq!(gateway.metric("tollgate_denials_total", &[name, reason]), 1);
    }
    // The table follows the chain.
    for (change, path, reason) in
        [(Some(false), "/permit", "no_validator_permit"), (None, "/registered", "not_registered")]
    {
        match change {
            Some(permit) => register(&scene.pylon, permit),
            None => scene.pylon.neurons(&json!({})),
        }
        eventually(reason, || (scene.ask(&gateway, "valid", &Request::get(path)).status == 403).then_some(()));
        gateway.logged(|line| line["reason"] == reason);
    }
}

/// Alice, with 1000.5 units of stake.
fn register(pylon: &Pylon, validator_permit: bool) {
    let stakes = json!({"alpha": 1.0, "tao": 2.0, "total": 1_000.5});
    pylon.neurons(&json!({ALICE: {"uid": 0, "hotkey": ALICE, "validator_permit": validator_permit, "stakes": stakes}}));
}

#[test]
fn several_kinds_of_credential_are_tried_in_their_order() {
    let scene = Scene::new();
    let service = super::support::token::SERVICE;
    let kinds = |first: &str, second: &str| {
        format!(
            "[[route]]\nname = \"{first}\"\npath = \"/{first}\"\nupstream = \"miner\"\nservices = [\"{service}\"]\n\
             accepts = [\"{first}\", \"{second}\"]\n"
        )
    };
    let settings = scene.settings().with(&kinds("client-certificate", "nevermined"));
    let gateway = Gateway::start(settings.with(&kinds("nevermined", "client-certificate")).paid(""));
    gateway.grant(&super::support::token::HOLDER, 1_000);
    let token = Token::covering(scene.upstream.everything()).mint();
    let (valid, wrong, none) = (presented("valid"), presented("wrong_org"), Presented::nothing());
    for (path, certificate, token, status, who) in [
        ("/client-certificate", &valid, None, 200, Some(ALICE)),
        ("/client-certificate", &valid, Some(token.as_str()), 200, Some(ALICE)),
        ("/client-certificate", &none, Some(&token), 200, None),
        ("/client-certificate", &wrong, Some(&token), 401, None),
        ("/client-certificate", &none, Some("not.a.token"), 401, None),
        ("/client-certificate", &none, None, 401, None),
        ("/nevermined", &valid, Some(&token), 200, None),
        ("/nevermined", &wrong, Some(&token), 200, None),
        ("/nevermined", &valid, None, 200, Some(ALICE)),
        ("/nevermined", &valid, Some("not.a.token"), 401, None),
    ] {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.token(token);
        }
        let answer = send(&gateway, &scene.client(certificate, &TLS13), &request).unwrap();
        assert_eq!(answer.status, status, "{path} {certificate:?} {token:?}: {}", answer.text());
        if status == 200 {
            let received = scene.upstream.only();
            assert_eq!(received.header("x-hotkey"), who, "{path}");
            // A token is ours to read, whoever calls.
            let authorization = received.header("authorization");
            assert_eq!(authorization, who.is_none().then_some("Bearer svc-secret"));
        } else {
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "), "{}", answer.head);
            let about_token = answer.header("www-authenticate").unwrap().contains("error=");
            assert_eq!(about_token, token == Some("not.a.token"), "{path} {}", answer.head);
        }
    }
    drop(gateway);

    // Where we read no token, it is the service's.
    let gateway = Gateway::start(scene.both());
    assert_eq!(scene.ask(&gateway, "valid", &Request::get("/strict").token("its.own")).status, 200);
    assert_eq!(scene.upstream.only().header("authorization"), Some("Bearer its.own"));
}

#[test]
fn what_is_not_known_is_neither_yes_nor_no() {
    let scene = Scene::new();
    scene.pylon.answer_instead(Some(Reply::status(500, "")));
    let mut gateway = Gateway::prepare(scene.both());
    gateway.launch();
    eventually("it listens", || Client::tls(gateway.tls, "gate.test", scene.authority.http1()).ok());
    let answer = scene.ask(&gateway, "valid", &Request::get("/strict"));
    assert_eq!((answer.status, answer.error().as_str()), (503, "unavailable"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(scene.ask(&gateway, "valid", &Request::get("/before")).status, 403, "as it was");
    gateway.logged(|line| line["reason"] == "neurons_unavailable");
    scene.pylon.answer_instead(None);
    eventually("it is known again", || {
        (scene.ask(&gateway, "valid", &Request::get("/strict")).status == 200).then_some(())
    });
}

/// Pingora reads a certificate once more and panics where it cannot, so its parser must be the one that read it before.
#[test]
fn pingora_reads_certificates_by_our_parser() {
    let lock = include_str!("../../Cargo.lock");
    let parser = |package: &str| {
        let (_, of) = lock.split_once(&format!("\nname = \"{package}\"\n")).unwrap();
        let of = of.split("\n[[package]]").next().unwrap();
        of.lines().find(|line| line.contains("\"x509-parser")).unwrap().trim().to_owned()
    };
    assert_eq!(parser("pingora-core"), parser("tollgate"));
}

/// How many certificates are made out of one.
const MUTANTS: usize = 1_000;

#[test]
fn a_thousand_mutants_break_nothing() {
    let scene = Scene::new();
    let gateway = Gateway::start(scene.both());
    let original = neuron::certificate("valid");
    let mut random = Random(0x7011_6a7e);
    let (mut served, mut refused) = (0, 0);
    for number in 0..MUTANTS {
        let mut mutant = original.clone();
        let at = random.below(mutant.len());
        mutant[at] ^= u8::try_from(1 + random.below(255)).unwrap();
        let presented = Presented::new(neuron::with_key_of("valid", mutant.clone()));
        let version = VERSIONS[number % 2];
        let config = scene.client(&presented, version);
        let Some(answer) = send(&gateway, &config, &Request::get("/before")) else {
            refused += 1;
            continue;
        };
        let strict = send(&gateway, &config, &Request::get("/strict"));
        // Every bit of a certificate is signed, or is the signature.
        assert!(strict.is_some_and(|answer| answer.status == 403), "byte {at}: {mutant:02x?}");
        assert!(matches!(answer.status, 200 | 403), "byte {at}: {} {mutant:02x?}", answer.status);
        served += 1;
    }
    assert!(served > 100 && refused > 100, "{served} {refused}");
    for request in scene.upstream.received() {
        assert_eq!(request.header("x-hotkey"), Some(ALICE), "no key opens another's door");
    }
    assert_eq!(scene.ask(&gateway, "valid", &Request::get("/strict")).status, 200);
    let counted = gateway.metric("tollgate_connections_refused_total", &["bad_client_certificate"]);
    assert_eq!(counted, refused);
    let log = gateway.log();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{}", log.join("\n"));
}

/// Marsaglia's xorshift: the same numbers every time.
struct Random(u32);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        usize::try_from(self.0).unwrap() % bound
    }
}
