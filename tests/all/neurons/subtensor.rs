//! From the chain itself.

use tollgate::chain::subtensor::{self, link::Link, table::Watch};

use super::*;
use crate::support::{
    Gateway, Settings, secret, spawn,
    subtensor::{GENESIS, IDLE, MINER, MINERS_KEY, NOBODY, Node, Release, Trouble, VALIDATOR},
    tls::Authority,
};

fn kept(node: &Node, clock: &Clock) -> Kept {
    kept_with(node, clock, &node.url(), PATIENCE)
}

fn kept_with(_: &Node, clock: &Clock, url: &str, timeout: Duration) -> Kept {
    let genesis_hash = Some(bytes(GENESIS));
    let options = subtensor::Options { url: url.parse().unwrap(), genesis_hash, timeout };
    run(async {
        let link = Link::new(subtensor::Node::new(options).unwrap());
        Kept::reading(tables(clock), Source::Subtensor(Box::new(Watch::new(link))))
    })
}

const NOT_FINAL: Result<Option<PublishedKey>, Denial> = Ok(Some(PublishedKey::NOT_FINAL));

#[expect(clippy::unnecessary_wraps, reason = "it is what is asked for")]
fn key(byte: u8) -> Result<Option<PublishedKey>, Denial> {
    Ok(Some(PublishedKey::Ed25519([byte; 32])))
}

fn spec_version(kept: &Kept) -> u64 {
    glance(&kept.neurons, SUBNET).spec_version
}

#[test]
fn the_recorded_subnet_is_read_over_both_transports() {
    let node = Node::start();
    for url in [node.url(), node.http_url()] {
        let kept = kept_with(&node, &Clock::manual(), &url, PATIENCE);
        kept.neurons.want_registered(SUBNET);
        kept.eventually(MINER, &ed25519(MINERS_KEY));
        assert_eq!((kept.key(IDLE), kept.key(NOBODY)), (Ok(None), Ok(None)));
        assert_eq!(run(kept.neurons.own_key(SUBNET)), Ok(None), "a chain has no wallet");
        let neuron = |who| kept.neuron(who);
        eventually("who is registered", || (neuron(NOBODY) == Ok(None)).then_some(()));
        assert_eq!(neuron(VALIDATOR).unwrap().map(|it| (it.uid, it.validator_permit)), Some((1, true)));
        assert!(neuron(VALIDATOR).unwrap().unwrap().stake > 500_000_000_000, "{:?}", neuron(VALIDATOR));
        assert_eq!(neuron(MINER).unwrap().map(|it| (it.uid, it.validator_permit)), Some((2, false)));
        assert_eq!(neuron(IDLE), Ok(Some(Neuron { uid: 3, validator_permit: false, stake: 0 })));
        assert_eq!((kept.block(), spec_version(&kept)), (63, 293));
    }
}

/// Granted by the finalised block, revoked by the best one.
#[test]
fn a_rotated_key_is_refused_at_once_and_the_new_one_admitted_when_it_is_final() {
    let node = Node::start();
    let kept = kept(&node, &Clock::manual());
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    node.publish(MINER, 1, &[5; 32]);
    node.publish(IDLE, 1, &[6; 32]);
    node.mine();
    kept.eventually(MINER, &NOT_FINAL);
    assert_eq!(kept.key(IDLE), NOT_FINAL);
    node.finalize();
    kept.eventually(MINER, &key(5));
    assert_eq!((kept.key(IDLE), kept.block()), (key(6), 64));

    node.unpublish(MINER);
    node.publish(IDLE, 2, &[7; 64]);
    node.mine();
    kept.eventually(MINER, &Ok(None));
    assert_eq!(kept.key(IDLE), NOT_FINAL);
    node.finalize();
    kept.eventually(IDLE, &Ok(Some(PublishedKey::Unusable("published_key_algorithm"))));
}

#[test]
fn a_block_that_is_thrown_away_admits_nobody() {
    let node = Node::start();
    let kept = kept(&node, &Clock::manual());
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    let fork = node.best();
    node.publish(MINER, 1, &[5; 32]);
    node.mine();
    kept.eventually(MINER, &NOT_FINAL);
    node.reorganize(&fork);
    node.mine();
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    node.mine_and_finalize();
    kept.succeeds();
    assert_eq!(kept.key(MINER), ed25519(MINERS_KEY));
}

#[test]
fn who_is_registered_is_granted_and_revoked_alike() {
    let node = Node::start();
    let kept = kept(&node, &Clock::manual());
    kept.neurons.want_registered(SUBNET);
    eventually("who is registered", || kept.neuron(MINER).is_ok().then_some(()));
    let mut neurons = node.neurons();
    neurons[1].validator_permit = false;
    neurons[2].validator_permit = true;
    neurons[2].total_stake = 1;
    neurons[3].hotkey = hotkey(NOBODY).0;
    node.set_neurons(neurons);
    node.mine();
    let permit = |who| kept.neuron(who).unwrap().map(|it| it.validator_permit);
    eventually("the validator's permit is gone", || (permit(VALIDATOR) == Some(false)).then_some(()));
    assert_eq!(permit(MINER), Some(false), "not yet");
    assert_eq!((kept.neuron(IDLE), kept.neuron(NOBODY)), (Ok(None), Ok(None)), "one is gone, the other not yet there");
    node.finalize();
    eventually("the miner has a permit", || (permit(MINER) == Some(true)).then_some(()));
    assert_eq!(kept.neuron(MINER).unwrap().unwrap().stake, 1);
    assert_eq!(permit(NOBODY), Some(false));
}

/// What the issue asks to see: stop the node, stay admitted for as long as is said, be told 503 after.
#[test]
fn a_node_that_is_gone_is_done_without_for_a_while_and_found_again() {
    let node = Node::start();
    let clock = Clock::manual();
    let kept = kept(&node, &clock);
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    node.stop();
    kept.fails(Fault::Transport);
    clock.advance(Duration::from_mins(9));
    assert_eq!(kept.key(MINER), ed25519(MINERS_KEY));
    assert_eq!(kept.key(NOBODY), UNAVAILABLE, "it may have come since");
    clock.advance(Duration::from_mins(2));
    assert_eq!(kept.key(MINER), UNAVAILABLE);
    node.publish(MINER, 1, &[5; 32]);
    node.mine_and_finalize();
    node.restart();
    kept.eventually(MINER, &key(5));
}

#[test]
fn a_node_that_fails_leaves_the_table_for_a_while() {
    for over_http in [false, true] {
        let node = Node::start();
        let url = if over_http { node.http_url() } else { node.url() };
        let kept = kept_with(&node, &Clock::manual(), &url, Duration::from_secs(2));
        kept.eventually(MINER, &ed25519(MINERS_KEY));
        for (trouble, fault) in [
            (Trouble::Status(429), Fault::Status),
            (Trouble::Error(-32005, "storage work rate limit exceeded"), Fault::Rpc),
            (Trouble::Error(4003, "State already discarded for 0x12"), Fault::Rpc),
            (Trouble::Garbage, if over_http { Fault::Malformed } else { Fault::Transport }),
            (Trouble::Silence, Fault::Timeout),
            (Trouble::AnotherBlock, Fault::Malformed),
        ] {
            let what = format!("{trouble:?} over HTTP: {over_http}");
            node.trouble(Some(trouble));
            node.mine_and_finalize();
            kept.fails(fault);
            assert_eq!(kept.key(MINER), ed25519(MINERS_KEY), "{what}");
            node.trouble(None);
            kept.succeeds();
        }
    }
}

#[test]
fn another_chain_never_makes_a_table() {
    let node = Node::start();
    node.set_genesis("0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03");
    let kept = kept(&node, &Clock::manual());
    kept.fails(Fault::Mismatch);
    assert_eq!(kept.key(MINER), UNAVAILABLE);
    node.set_genesis(GENESIS);
    kept.eventually(MINER, &ed25519(MINERS_KEY));
}

#[test]
fn a_node_that_is_behind_brings_nothing_back() {
    let node = Node::start();
    let clock = Clock::manual();
    let old = node.best();
    node.publish(MINER, 1, &[5; 32]);
    node.mine_and_finalize();
    let new = node.best();
    let kept = kept(&node, &clock);
    kept.eventually(MINER, &key(5));
    node.stop();
    node.set_finalized(&old);
    node.restart();
    kept.fails(Fault::Behind);
    assert_eq!(kept.key(MINER), key(5));
    node.stop();
    node.set_finalized(&new);
    node.set_syncing(true);
    node.restart();
    kept.fails(Fault::Behind);
    node.set_syncing(false);
    kept.succeeds();

    // A chain whose blocks are no longer finalised is not believed for ever.
    node.publish(MINER, 1, &bytes(MINERS_KEY));
    node.mine();
    kept.eventually(MINER, &NOT_FINAL);
    clock.advance(Duration::from_mins(6));
    kept.eventually(MINER, &UNAVAILABLE);
    node.finalize();
    kept.eventually(MINER, &ed25519(MINERS_KEY));
}

#[test]
fn a_new_runtime_is_understood_as_it_comes() {
    let node = Node::start();
    let kept = kept(&node, &Clock::manual());
    kept.neurons.want_registered(SUBNET);
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    eventually("who is registered", || kept.neuron(MINER).is_ok().then_some(()));
    for (release, version, byte) in [(Release::Finney365, 365, 5), (Release::Devnet381, 381, 6)] {
        let before = (kept.neuron(MINER), kept.neuron(VALIDATOR));
        node.upgrade(release);
        node.publish(MINER, 1, &[byte; 32]);
        node.mine_and_finalize();
        kept.eventually(MINER, &key(byte));
        assert_eq!(spec_version(&kept), version);
        assert_eq!((kept.neuron(MINER), kept.neuron(VALIDATOR)), before);
    }
}

#[test]
fn a_node_without_news_is_asked_again_and_again() {
    let node = Node::start();
    node.lacks("chain_subscribeNewHeads");
    node.lacks("system_health");
    let kept = kept(&node, &Clock::manual());
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    node.publish(MINER, 1, &[5; 32]);
    node.mine_and_finalize();
    kept.eventually(MINER, &key(5));
}

/// A public node allows one question a second, so twelve a block (subtensor.md section 9.5).
#[test]
fn a_block_costs_few_questions_and_strangers_none() {
    let node = Node::start();
    let options = subtensor::Options { url: node.url().parse().unwrap(), genesis_hash: None, timeout: PATIENCE };
    let kept = run(async {
        let link = Link::new(subtensor::Node::new(options).unwrap());
        let neurons = tables(&Clock::manual());
        neurons.want_registered(SUBNET);
        let source = Source::Subtensor(Box::new(Watch::new(link)));
        Kept::reading_all(neurons, Duration::from_hours(1), [(SUBNET, source)])
    });
    kept.eventually(MINER, &ed25519(MINERS_KEY));
    // The first news tell what is known already.
    let readings = || glance(&kept.neurons, SUBNET).readings.answered.load(Ordering::SeqCst);
    eventually("a second reading", || (readings() > 1).then_some(()));
    let before = node.questions();
    for block in 0..5 {
        node.publish(MINER, 1, &[block; 32]);
        node.mine_and_finalize();
        kept.eventually(MINER, &key(block));
    }
    let blocks = (node.questions() - before) / 5;
    assert!(blocks <= 12, "{blocks} questions for a block");

    let before = node.questions();
    for number in 0..10_000_u32 {
        let mut account = [0xaa; 32];
        account[..4].copy_from_slice(&number.to_be_bytes());
        assert_eq!(run(kept.neurons.key(SUBNET, &Hotkey(account))), Ok(None));
        assert_eq!(kept.key(MINER), key(4));
    }
    // The last news may still be followed by a look at the heads.
    assert!(node.questions() - before <= 4, "strangers cause no questions");
}

#[test]
fn a_gateway_reads_the_chain_and_shows_it() {
    let node = Node::start();
    let gateway = Gateway::start(node.configured(Settings::file().open(node.address, ""), ""));
    let shown = |name: &str| gateway.metric(name, &["netuid=\"2\""]);
    eventually("the table is there", || (shown("tollgate_neurons_keys") == 1).then_some(()));
    assert!(gateway.metric("tollgate_lookups", &["subtensor", "answered"]) > 5);
    assert_eq!((shown("tollgate_neurons_block"), shown("tollgate_neurons_spec_version")), (63, 293));
    node.publish(IDLE, 1, &[5; 32]);
    node.mine_and_finalize();
    eventually("the new block is read", || (shown("tollgate_neurons_block") == 64).then_some(()));
    assert_eq!(shown("tollgate_neurons_keys"), 2);
    node.stop();
    let failed = || gateway.metric("tollgate_neurons_readings", &["failed_transport"]);
    eventually("the failure is counted", || (failed() > 0).then_some(()));
}

#[test]
fn a_node_behind_tls_is_verified() {
    let (node, authority, directory) = (Node::start(), Authority::new(), tempfile::tempdir().unwrap());
    let acceptor = tokio_rustls::TlsAcceptor::from(authority.leaf(&["localhost"]).server(&["http/1.1"]));
    let listener = run(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let (port, address) = (listener.local_addr().unwrap().port(), node.address);
    let front = spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = tokio::net::TcpStream::connect(address).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    let secret = secret("a-key-of-an-api");
    let settings = Settings::file().open(node.address, "").with(&format!(
        "[neurons]\nnetuid = 2\n[subtensor]\nurl = \"wss://localhost:{port}/{secret}\"\n[log]\nlevel = \"debug\"\n"
    ));
    // The system's authorities are in this file.
    let trusting = settings.clone().variable("SSL_CERT_FILE", authority.write(directory.path()).to_str().unwrap());
    let mut gateway = Gateway::start(trusting);
    eventually("the table is there", || (gateway.metric("tollgate_neurons_keys", &[]) == 1).then_some(()));
    gateway.stop();
    let gateway = Gateway::start(settings);
    let failed = || gateway.metric("tollgate_neurons_readings", &["failed_transport"]);
    eventually("a stranger's certificate is refused", || (failed() > 0).then_some(()));
    front.abort();
}
