//! A neuron's key, from `tollgate generate` through the chain to the front door: published, rotated, and what is left of it
//! while the node is away.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
    version::TLS13,
};
use sp_core::{Pair as _, sr25519};

use crate::support::{
    Answer, Client, Gateway, Request, Settings, Upstream, eventually,
    neuron::Presented,
    program,
    subtensor::{MINER, Node},
    tls::Authority,
    within,
};

/// How long the gateway believes what it has read.
const STALE_FOR: Duration = Duration::from_secs(8);

/// A neuron with its wallet and its files.
struct Neuron {
    directory: tempfile::TempDir,
}

impl Neuron {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pair = sr25519::Pair::from_string("//Charlie//hot", None).unwrap();
        let secret = alloy::hex::encode_prefixed(pair.to_raw_vec());
        let wallet = serde_json::json!({"privateKey": secret, "ss58Address": MINER});
        fs::write(directory.path().join("wallet"), wallet.to_string()).unwrap();
        Self { directory }
    }

    /// Begins to make and publish a key.
    fn generate(&self, node: &Node, more: &[&str]) -> Child {
        let mut command = Command::new(program());
        command.env_clear().current_dir(self.directory.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        command.args(["generate", "--netuid", "2", "--wallet", "wallet", "--subtensor-url", &node.url()]).args(more);
        command.spawn().unwrap()
    }

    /// Presents what is in the files now.
    fn client(&self, authority: &Authority) -> Arc<ClientConfig> {
        let file = |name: &str| self.directory.path().join("certs").join(name);
        let certificate = CertificateDer::from_pem_file(file("client.crt")).unwrap();
        let key = any_supported_type(&PrivateKeyDer::from_pem_file(file("client.key")).unwrap()).unwrap();
        let certified = Arc::new(CertifiedKey::new(vec![certificate], key));
        authority.presenting(Presented::new(certified), &["http/1.1"], &[&TLS13])
    }
}

/// A gateway that reads this node and admits neurons by its strict rules.
fn gateway(node: &Node, upstream: &Upstream, authority: &Authority, directory: &Path) -> Gateway {
    let (certificate, key) = authority.leaf(&["gate.test"]).write(directory, "gate");
    let settings = Settings::file().tls(&certificate, &key).client_certificates("required");
    let stale_for = STALE_FOR.as_secs();
    let settings = node.configured(settings, &format!("refresh = \"200ms\"\nstale_for = \"{stale_for}s\"\n"));
    let upstream = format!("[[upstream]]\nname = \"miner\"\naddresses = [\"{}\"]\n", upstream.address);
    let route =
        "[[route]]\nname = \"neurons\"\npath = \"/\"\nupstream = \"miner\"\naccepts = [\"client-certificate\"]\n";
    Gateway::start(settings.with(&upstream).with(route))
}

/// A request on a connection of its own.
fn ask(gateway: &Gateway, client: &Arc<ClientConfig>) -> Answer {
    let (mut client, _) = Client::tls(gateway.tls, "gate.test", Arc::clone(client)).unwrap();
    client.send(&Request::get("/"))
}

#[track_caller]
fn ended_well(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_key_is_published_admitted_rotated_and_believed_for_a_while() {
    let (authority, directory, upstream) = (Authority::new(), tempfile::tempdir().unwrap(), Upstream::start());
    let (node, neuron) = (Node::start(), Neuron::new());
    node.serving_rate_limit(0);
    node.mine_and_finalize();
    let gateway = gateway(&node, &upstream, &authority, directory.path());

    // Published, and admitted once it is final.
    let publishing = neuron.generate(&node, &[]);
    eventually("the key is submitted", || (node.pool() == 1).then_some(()));
    node.mine_and_finalize();
    ended_well(publishing);
    let first = neuron.client(&authority);
    eventually("the neuron is admitted", || (ask(&gateway, &first).status == 200).then_some(()));
    let request = upstream.received().pop().unwrap();
    assert_eq!(request.header("x-hotkey"), Some(MINER));

    // Rotated: the pair in use stays until the chain has the new key, and two blocks later it counts no more.
    let rotating = neuron.generate(&node, &["-force-recreate"]);
    eventually("the new key is submitted", || (node.pool() == 1).then_some(()));
    assert_eq!(ask(&gateway, &neuron.client(&authority)).status, 200);
    let before = node.best_number();
    node.mine();
    node.mine_and_finalize();
    ended_well(rotating);
    let refused =
        eventually("the old key is refused", || Some(ask(&gateway, &first)).filter(|answer| answer.status != 200));
    assert_eq!((refused.status, refused.error().as_str()), (403, "invalid_certificate"));
    gateway.logged(|line| line["reason"] == "key_mismatch");
    let second = neuron.client(&authority);
    eventually("the new key is admitted", || (ask(&gateway, &second).status == 200).then_some(()));
    assert_eq!(ask(&gateway, &first).status, 403);
    assert_eq!(node.best_number(), before + 2, "all of it within two blocks");

    // Without the node: what was read is believed for as long as was said, and then nobody knows.
    node.stop();
    let stopped = Instant::now();
    assert_eq!(ask(&gateway, &second).status, 200);
    let unknown = within(STALE_FOR * 5, "it is not known any more", || {
        Some(ask(&gateway, &second)).filter(|answer| answer.status != 200)
    });
    assert_eq!((unknown.status, unknown.error().as_str()), (503, "neurons_unavailable"));
    assert!(stopped.elapsed() > STALE_FOR / 2, "{:?}", stopped.elapsed());
    assert_eq!(ask(&gateway, &first).status, 503);

    node.restart();
    within(Duration::from_mins(1), "it is known again", || (ask(&gateway, &second).status == 200).then_some(()));
    eventually("and who has the old key is not admitted", || (ask(&gateway, &first).status == 403).then_some(()));
}
