//! Through the front door, with the chain behind it.

use std::sync::Arc;

use rustls::{ClientConfig, version::TLS13};

use super::*;
use crate::support::{
    Client, Gateway, Request, Settings, Upstream,
    neuron::{self, ALICE, Presented},
    subtensor::{NeuronOnChain, Node, Trouble},
    tls::Authority,
};

fn ask(gateway: &Gateway, client: &Arc<ClientConfig>) -> (u16, String) {
    let (mut client, _) = Client::tls(gateway.tls, "gate.test", Arc::clone(client)).unwrap();
    let answer = client.send(&Request::get("/"));
    (answer.status, if answer.status == 200 { String::new() } else { answer.error() })
}

/// Which neurons may call is what the chain says of them: granted by the finalised block, revoked by the best one.
#[test]
fn a_route_for_validators_follows_the_chain() {
    let (authority, directory, upstream) = (Authority::new(), tempfile::tempdir().unwrap(), Upstream::start());
    let node = Node::start();
    node.publish(ALICE, 1, &neuron::public_key("valid"));
    node.mine_and_finalize();
    let (certificate, key) = authority.leaf(&["gate.test"]).write(directory.path(), "gate");
    let settings = Settings::file().tls(&certificate, &key).client_certificates("required");
    let settings = node.configured(settings, "").with(&format!(
        "[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n[[route]]\nname = \"neurons\"\nupstream = \"miner\"\n\
         accepts = [\"client-certificate\"]\n[route.neurons]\nregistered = true\nvalidator_permit = true\n",
        upstream.address
    ));
    let gateway = Gateway::start(settings);
    let presented = Presented::new(neuron::vector("valid"));
    let client = authority.presenting(presented, &["http/1.1"], &[&TLS13]);
    let eventually_answered = |status: u16, error: &str| {
        eventually(&format!("{status} {error}"), || {
            (ask(&gateway, &client) == (status, error.to_owned())).then_some(())
        });
    };
    eventually_answered(403, "not_entitled");
    gateway.logged(|line| line["reason"] == "not_registered");

    let mut neurons = node.neurons();
    neurons.push(NeuronOnChain { hotkey: hotkey(ALICE).0, validator_permit: true, total_stake: 1 });
    node.set_neurons(neurons.clone());
    node.mine();
    assert_eq!(ask(&gateway, &client).0, 403, "the block is not final");
    node.finalize();
    eventually_answered(200, "");

    neurons.last_mut().unwrap().validator_permit = false;
    node.set_neurons(neurons);
    node.mine();
    eventually_answered(403, "not_entitled");
    gateway.logged(|line| line["reason"] == "no_validator_permit");

    // A node that answers with errors changes nothing for those who are known.
    node.trouble(Some(Trouble::Status(429)));
    assert_eq!(ask(&gateway, &client).0, 403);
}
