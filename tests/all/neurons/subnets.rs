//! Several subnets at once: each has its own table, and what goes wrong with one is nothing to the others.

use std::sync::Arc;

use rustls::{ClientConfig, version::TLS13};
use tollgate::chain::subtensor::{self, link::Link, table::Watch};

use super::*;
use crate::support::{
    Answer, Client, Gateway, Request, Settings, Upstream,
    neuron::{self, ALICE, Presented},
    pylon::Pylon,
    subtensor::{GENESIS, IDLE, MINER, MINERS_KEY, NeuronOnChain, Node, Trouble},
    tls::Authority,
};

/// Both subnets, read from a node over one connection.
fn both(node: &Node, clock: &Clock, timeout: Duration, refresh: Duration) -> Kept {
    let options = subtensor::Options { url: node.url().parse().unwrap(), genesis_hash: Some(bytes(GENESIS)), timeout };
    run(async {
        let link = Link::new(subtensor::Node::new(options).unwrap());
        let source = |netuid| (netuid, Source::Subtensor(Box::new(Watch::new(link.clone()))));
        Kept::reading_all(tables(clock), refresh, [source(SUBNET), source(OTHER)])
    })
}

#[expect(clippy::unnecessary_wraps, reason = "it is what is asked for")]
fn key(byte: u8) -> Result<Option<PublishedKey>, Denial> {
    Ok(Some(PublishedKey::Ed25519([byte; 32])))
}

#[test]
fn subnets_are_read_over_one_connection_block_by_block() {
    let node = Node::start();
    node.publish_on(OTHER.0, IDLE, 1, &[3; 32]);
    node.mine_and_finalize();
    // Only news bring a reading.
    let kept = both(&node, &Clock::manual(), PATIENCE, Duration::from_hours(1));
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    kept.eventually_on(OTHER, IDLE, &key(3));
    assert_eq!((kept.key_on(SUBNET, IDLE), kept.key_on(OTHER, MINER)), (Ok(None), Ok(None)));
    let heads = || (node.asked("chain_subscribeNewHeads"), node.asked("chain_getFinalizedHead"));
    let before = heads();
    assert_eq!(before.0, 1, "one connection");
    for byte in 4..9 {
        node.publish(IDLE, 1, &[byte; 32]);
        node.publish_on(OTHER.0, MINER, 1, &[byte + 100; 32]);
        node.mine_and_finalize();
        kept.eventually(IDLE, &key(byte));
        kept.eventually_on(OTHER, MINER, &key(byte + 100));
    }
    let (connections, looks) = heads();
    assert_eq!(connections, 1);
    // Two a block, where the news of the best one came long before those of the final one, and one for the news that tell
    // what is known already.
    assert!(looks - before.1 <= 2 * 5 + 1, "{} looks at five blocks: they are shared", looks - before.1);
    assert_eq!(glance(&kept.neurons, OTHER).block, glance(&kept.neurons, SUBNET).block);
}

#[test]
fn a_subnet_that_cannot_be_read_is_unknown_alone() {
    for (trouble, fault) in
        [(Trouble::Error(4003, "State already discarded"), Fault::Rpc), (Trouble::Silence, Fault::Timeout)]
    {
        let node = Node::start();
        node.trouble_with(OTHER.0, Some(trouble.clone()));
        let kept = both(&node, &Clock::manual(), Duration::from_secs(2), OFTEN);
        kept.eventually(MINER, &ed25519(MINERS_KEY));
        kept.fails(fault);
        for byte in 4..7 {
            node.publish(MINER, 1, &[byte; 32]);
            node.publish_on(OTHER.0, MINER, 1, &[byte; 32]);
            node.mine_and_finalize();
            kept.eventually(MINER, &key(byte));
            assert_eq!(kept.key_on(OTHER, MINER), UNAVAILABLE, "{trouble:?}");
        }
        assert_eq!(kept.neurons.glances().map(|it| it.readings.failed(fault)).filter(|count| *count > 0).count(), 1);
        node.trouble_with(OTHER.0, None);
        kept.eventually_on(OTHER, MINER, &key(6));
    }
}

/// A gateway with a route for each subnet, a client with Alice's certificate, and what is behind it.
struct Scene {
    authority: Authority,
    directory: tempfile::TempDir,
    upstream: Upstream,
}

impl Scene {
    fn new() -> Self {
        Self { authority: Authority::new(), directory: tempfile::tempdir().unwrap(), upstream: Upstream::start() }
    }

    fn settings(&self) -> Settings {
        let (certificate, key) = self.authority.leaf(&["gate.test"]).write(self.directory.path(), "gate");
        let upstream = format!("[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n", self.upstream.address);
        Settings::file().tls(&certificate, &key).client_certificates("required").with(&upstream)
    }

    fn alice(&self) -> Arc<ClientConfig> {
        self.authority.presenting(Presented::new(neuron::vector("valid")), &["http/1.1"], &[&TLS13])
    }

    fn ask(&self, gateway: &Gateway, path: &str) -> Answer {
        let (mut client, _) = Client::tls(gateway.tls, "gate.test", self.alice()).unwrap();
        client.send(&Request::get(path))
    }

    fn status(&self, gateway: &Gateway, path: &str) -> u16 {
        self.ask(gateway, path).status
    }

    #[track_caller]
    fn eventually(&self, gateway: &Gateway, path: &str, status: u16) {
        eventually(&format!("{path} is {status}"), || (self.status(gateway, path) == status).then_some(()));
    }
}

/// A route below its name.
fn route(name: &str, policy: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"miner\"\naccepts = [\"client-certificate\"]\n\
         [route.neurons]\n{policy}\n"
    )
}

fn keys(gateway: &Gateway, netuid: u16) -> i64 {
    gateway.metric("tollgate_neurons_keys", &[&format!("netuid=\"{netuid}\"")])
}

#[test]
fn a_neuron_of_one_subnet_is_a_stranger_on_another() {
    let scene = Scene::new();
    let node = Node::start();
    node.publish(ALICE, 1, &neuron::public_key("valid"));
    node.mine_and_finalize();
    node.trouble_with(OTHER.0, Some(Trouble::Error(4003, "State already discarded")));
    let settings = node
        .configured(scene.settings(), "")
        .with(&route("two", ""))
        .with(&route("three", "netuid = 3"))
        .with(&route("validators", "netuid = 3\nvalidator_permit = true"));
    let gateway = Gateway::start(settings);
    scene.eventually(&gateway, "/two", 200);
    let answer = scene.ask(&gateway, "/three");
    assert_eq!((answer.status, answer.error().as_str()), (503, "unavailable"), "nothing is known of this one");
    assert_eq!(scene.status(&gateway, "/two"), 200);
    let failed = || gateway.metric("tollgate_neurons_readings", &["netuid=\"3\"", "failed_rpc"]);
    eventually("the failure is counted where it belongs", || (failed() > 0).then_some(()));
    assert_eq!(gateway.metric("tollgate_neurons_readings", &["netuid=\"2\"", "failed_"]), 0);

    node.trouble_with(OTHER.0, None);
    scene.eventually(&gateway, "/three", 403);
    gateway.logged(|line| line["route"] == "three" && line["reason"] == "unknown_hotkey");
    assert_eq!(scene.status(&gateway, "/two"), 200);
    // The same hotkey may have published another key there.
    node.publish_on(OTHER.0, ALICE, 1, &[7; 32]);
    node.mine_and_finalize();
    eventually("the other key is read", || (keys(&gateway, OTHER.0) == 1).then_some(()));
    assert_eq!((scene.status(&gateway, "/three"), scene.status(&gateway, "/two")), (403, 200));
    gateway.logged(|line| line["route"] == "three" && line["reason"] == "key_mismatch");
    node.publish_on(OTHER.0, ALICE, 1, &neuron::public_key("valid"));
    node.mine_and_finalize();
    scene.eventually(&gateway, "/three", 200);

    // Who is registered is asked of the subnet that a route names, too.
    assert_eq!(scene.status(&gateway, "/validators"), 403);
    gateway.logged(|line| line["route"] == "validators" && line["reason"] == "not_registered");
    let alice = NeuronOnChain { hotkey: hotkey(ALICE).0, validator_permit: true, total_stake: 1 };
    node.set_neurons_of(OTHER.0, vec![alice]);
    node.mine_and_finalize();
    scene.eventually(&gateway, "/validators", 200);
}

#[test]
fn each_subnet_is_asked_of_pylon_as_its_own_identity() {
    let scene = Scene::new();
    let pylon = Pylon::start();
    pylon.add("second", OTHER.0, "second-token");
    pylon.add("third", 5, "third-token");
    let identity = |netuid: u16, name: &str| {
        format!("[[pylon.subnet]]\nnetuid = {netuid}\nidentity = \"{name}\"\ntoken = \"{name}-token\"\n")
    };
    let settings = pylon
        .configured(scene.settings(), "refresh = \"200ms\"\n")
        .with(&identity(OTHER.0, "second"))
        // It belongs to subnet 5.
        .with(&identity(4, "third"))
        .with(&route("two", ""))
        .with(&route("three", "netuid = 3"))
        .with(&route("four", "netuid = 4"));
    let mut gateway = Gateway::prepare(settings);
    gateway.expect_error("belongs to subnet 5");
    gateway.launch();
    gateway.ready();
    scene.eventually(&gateway, "/two", 200);
    scene.eventually(&gateway, "/three", 403);
    // Also where a single hotkey was asked for.
    assert_eq!(pylon.asked(&format!("/identity/second/subnet/3/block/latest/certificates/{ALICE}")), 1);
    pylon.publish_for("second", ALICE, &neuron::public_key("valid"));
    scene.eventually(&gateway, "/three", 200);
    assert_eq!(scene.status(&gateway, "/four"), 503);
    assert_eq!((scene.status(&gateway, "/two"), scene.status(&gateway, "/three")), (200, 200));
    assert!(gateway.metric("tollgate_neurons_readings", &["netuid=\"4\"", "failed_mismatch"]) > 0);
    for request in pylon.server.received().iter().filter(|request| request.path().contains("/subnet/")) {
        let right = ["miner/subnet/2/", "second/subnet/3/", "third/subnet/4/"];
        assert!(right.iter().any(|right| request.path().contains(right)), "{}", request.path());
    }
}

#[test]
fn a_reload_may_add_a_subnet_and_take_it_away_again() {
    let scene = Scene::new();
    let node = Node::start();
    node.publish(ALICE, 1, &neuron::public_key("valid"));
    node.publish_on(OTHER.0, ALICE, 1, &neuron::public_key("valid"));
    node.mine_and_finalize();
    let one = node.configured(scene.settings(), "").with(&route("two", ""));
    let mut gateway = Gateway::start(one.clone());
    scene.eventually(&gateway, "/two", 200);
    assert_eq!((scene.status(&gateway, "/three"), keys(&gateway, OTHER.0)), (404, 0));

    // What is known stays known, also while the node is away.
    let two = one.clone().with(&route("three", "netuid = 3"));
    node.stop();
    let told = gateway.reload(two.clone());
    assert!(told.contains("are loaded again"), "{told}");
    assert_eq!((scene.status(&gateway, "/two"), scene.status(&gateway, "/three")), (200, 503));
    node.restart();
    scene.eventually(&gateway, "/three", 200);
    assert_eq!((keys(&gateway, SUBNET.0), keys(&gateway, OTHER.0)), (2, 1));

    gateway.reload(one);
    assert_eq!((scene.status(&gateway, "/two"), scene.status(&gateway, "/three")), (200, 404));
    let page = gateway.admin("/metrics").unwrap().text();
    assert!(!page.contains("netuid=\"3\""), "what is gone does not grow older: {page}");
    node.publish(IDLE, 1, &[5; 32]);
    node.mine_and_finalize();
    eventually("the other is read on", || (keys(&gateway, SUBNET.0) == 3).then_some(()));

    // Another source is another start's business.
    gateway.expect_error("neurons.source");
    let pylon = Pylon::start();
    let told = gateway.reload(pylon.configured(scene.settings(), "").with(&route("two", "")));
    assert!(told.contains("the old one stays") && told.contains("neurons.source"), "{told}");
    assert_eq!(scene.status(&gateway, "/two"), 200);
}
