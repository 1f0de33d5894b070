//! That the tests' node does what the chain does: asked with subxt alone, over its sockets.

use sp_core::{Pair as _, sr25519};
use subxt::{
    OnlineClient, SubstrateConfig,
    backend::LegacyBackend,
    dynamic::{self, Value},
    rpcs::RpcClient,
    tx::{Payload, Signer},
    utils::{AccountId32, MultiSignature},
};

use super::*;
use crate::support::{
    spawn,
    subtensor::{IDLE, MINER, NETUID, Node, Release},
};

struct Wallet(sr25519::Pair);

impl Wallet {
    fn of(uri: &str) -> Self {
        Self(sr25519::Pair::from_string(uri, None).unwrap())
    }
}

impl Signer<SubstrateConfig> for Wallet {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.0.public().0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.0.sign(payload).0)
    }
}

async fn client(node: &Node) -> OnlineClient<SubstrateConfig> {
    let rpc = RpcClient::from_insecure_url(node.url()).await.unwrap();
    OnlineClient::from_backend(Arc::new(LegacyBackend::builder().build(rpc))).await.unwrap()
}

fn serve(certificate: &[u8], port: u16) -> impl Payload {
    let number = |value: u128| Value::u128(value);
    let ip = u32::from_be_bytes([203, 0, 113, 7]);
    let arguments = vec![
        number(NETUID.into()),
        number(1),
        number(ip.into()),
        number(port.into()),
        number(4),
        number(4),
        number(0),
        number(0),
        Value::from_bytes(certificate),
    ];
    dynamic::tx("SubtensorModule", "serve_axon_tls", arguments)
}

async fn submit(node: &Node, who: &str, certificate: &[u8], port: u16) -> Result<(), String> {
    let api = client(node).await;
    let wallet = Wallet::of(who);
    let mut transactions = api.tx().await.map_err(|error| error.to_string())?;
    let progress = transactions.sign_and_submit_then_watch_default(&serve(certificate, port), &wallet).await;
    let progress = progress.map_err(|error| error.to_string())?;
    progress.wait_for_finalized_success().await.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_key_is_published_as_the_pallet_does_it() {
    let node = Node::start();
    node.automatic();
    node.serving_rate_limit(50);
    node.mine_and_finalize();
    run(submit(&node, "//Ferdie//hot", &[&[1][..], &[7; 32]].concat(), 8443)).unwrap();
    assert_eq!(node.published(IDLE), Some((1, vec![7; 32])));
    let too_often = run(submit(&node, "//Ferdie//hot", &[&[1][..], &[8; 32]].concat(), 8443)).unwrap_err();
    assert!(too_often.contains("ServingRateLimitExceeded"), "{too_often}");

    node.serving_rate_limit(0);
    node.mine_and_finalize();
    // A certificate that is no certificate succeeds and changes nothing.
    for nothing in [&[][..], &[1; 66]] {
        run(submit(&node, "//Ferdie//hot", nothing, 8443)).unwrap();
        assert_eq!(node.published(IDLE), Some((1, vec![7; 32])));
    }
    run(submit(&node, "//Ferdie//hot", &[2], 8443)).unwrap();
    assert_eq!(node.published(IDLE), Some((2, vec![])));
    for (who, port, why) in [("//Nobody", 1, "HotKeyNotRegisteredInNetwork"), ("//Charlie//hot", 0, "InvalidPort")] {
        let refused = run(submit(&node, who, &[1; 33], port)).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn an_extrinsic_waits_for_its_block() {
    let node = Arc::new(Node::start());
    let submitted = {
        let node = Arc::clone(&node);
        spawn(async move { submit(&node, "//Ferdie//hot", &[&[1][..], &[7; 32]].concat(), 8443).await })
    };
    eventually("it is in the pool", || (node.pool() == 1).then_some(()));
    let before = node.best_number();
    node.mine();
    assert_eq!((node.pool(), node.best_number()), (0, before + 1));
    node.finalize();
    run(submitted).unwrap().unwrap();
    assert_eq!(node.published(IDLE), Some((1, vec![7; 32])));
}

#[test]
fn every_runtime_describes_the_same_subnet() {
    let node = Node::start();
    let recorded = node.neurons();
    assert_eq!(recorded.len(), 4);
    for release in [Release::Recorded, Release::Finney365, Release::Devnet381] {
        node.upgrade(release);
        node.mine_and_finalize();
        assert_eq!(node.neurons(), recorded);
        run(async {
            let at = client(&node).await.at_current_block().await.unwrap();
            let address = dynamic::storage::<(u16, [u8; 32]), Value>("SubtensorModule", "NeuronCertificates");
            let found = at.storage().try_fetch(address, (NETUID, hotkey(MINER).0)).await.unwrap();
            assert!(found.is_some(), "spec {}", at.spec_version());
        });
    }
}
