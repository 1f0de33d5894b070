//! Debian's nginx with `auth_request`, and our own listener in one hop.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use serde_json::Value;
use tollgate::model::hotkey::Hotkey;

use super::{
    super::support::{Upstream, neuron::Presented, nginx::Nginx, tls::pinning},
    *,
};

/// Status and `X-Hotkey` that were measured in front of the replaced system.
fn measured() -> BTreeMap<String, (u16, Option<String>)> {
    let text = std::fs::read(neuron::file("nginx_dev_stack_results.json")).unwrap();
    let document: BTreeMap<String, Value> = serde_json::from_slice(&text).unwrap();
    let of = |(name, result): (String, Value)| {
        let status: u16 = result["status"].as_u64().unwrap().try_into().unwrap();
        let hotkey = result["detail"].as_str().filter(|_| status == 200);
        (name, (status, hotkey.map(str::to_owned)))
    };
    document.into_iter().map(of).collect()
}

/// A service behind nginx, and behind a listener of ours.
struct Scene {
    service: Upstream,
    gateway: Gateway,
    nginx: Nginx,
    _pylon: Pylon,
}

impl Scene {
    fn new(compatibility: &str) -> Self {
        let (pylon, service) = (Pylon::start(), Upstream::start());
        let compatibility = format!("compatibility = \"{compatibility}\"");
        let accepts = format!("accepts = [\"client-certificate\"]\n{compatibility}");
        let settings = Settings::file()
            .tls(&neuron::file("gateway.crt"), &neuron::file("gateway.key"))
            .client_certificates("optional")
            .open(service.address, &accepts)
            .auth_request(&compatibility);
        let gateway = Gateway::start(pylon.configured(settings, ""));
        knows_neurons(&gateway);
        let nginx = Nginx::start(gateway.auth_request, service.address);
        Self { service, gateway, nginx, _pylon: pylon }
    }

    /// The status that a client sees, and the hotkey that the service sees. None: the handshake was refused.
    fn ask(
        &self,
        address: SocketAddr,
        presented: &Arc<Presented>,
        version: &'static SupportedProtocolVersion,
    ) -> Option<(u16, Option<String>)> {
        let config = pinning(&neuron::certificate("gateway"), presented, version);
        let (mut client, _) = Client::tls(address, "gate.test", config).ok()?;
        let request = Request::get("/x").header("X-Hotkey", "somebody").header("X-Client-Cert", "forged");
        // A client of TLS 1.3 has done its part before its certificate is looked at.
        client.try_write(request.bytes()).ok()?;
        let status = client.try_answer("GET").ok()?.status;
        let received = self.service.take();
        let hotkey = received.first().map(|request| {
            assert_eq!(request.header("x-client-cert"), None);
            request.header("x-hotkey").expect("the service is told").to_owned()
        });
        assert_eq!(hotkey.is_some(), status == 200);
        Some((status, hotkey))
    }

    fn through_nginx(&self, vector: &str) -> (u16, Option<String>) {
        let presented = Presented::new(neuron::vector(vector));
        self.ask(self.nginx.address, &presented, &TLS13).expect("nginx answers all of them")
    }

    /// The hotkey of whoever our own listener lets in.
    fn in_one_hop(&self, vector: &str) -> Option<String> {
        self.ask(self.gateway.tls, &Presented::new(neuron::vector(vector)), &TLS13)?.1
    }
}

#[test]
fn nginx_gets_the_verdicts_of_the_replaced_system() {
    let scene = Scene::new("nexus-auth");
    let measured = measured();
    assert_eq!(measured.len(), 42);
    for (name, expected) in measured {
        let expected = match differing(&name) {
            Some((status, _, hotkey)) => (status, hotkey.map(str::to_owned)),
            None => expected,
        };
        let presented = Presented::new(neuron::vector(&name));
        for version in [&TLS12, &TLS13] {
            assert_eq!(
                scene.ask(scene.nginx.address, &presented, version),
                Some(expected.clone()),
                "{name} {version:?}"
            );
        }
        let expected = match name.as_str() {
            // OpenSSL refuses these, which the replaced system itself did not.
            "expired" | "not_yet_valid" | "eku_server_only" => Some(ALICE.to_owned()),
            // rustls refuses this one.
            "x509_v1" => None,
            _ => expected.1,
        };
        assert_eq!(scene.in_one_hop(&name), expected, "{name} in one hop");
    }
    for address in [scene.nginx.address, scene.gateway.tls] {
        assert_eq!(scene.ask(address, &Presented::nothing(), &TLS13), Some((403, None)));
    }
}

#[test]
fn nginx_gets_the_strict_verdicts_and_our_own_listener_the_same_in_one_hop() {
    let scene = Scene::new("standard");
    let recommended: BTreeMap<String, Vector> =
        vectors().into_iter().map(|vector| (vector.name.clone(), vector)).collect();
    for (name, (before, _)) in measured() {
        let accepted = recommended[&name].accepted;
        let (status, hotkey) = scene.through_nginx(&name);
        // What nginx itself refuses never gets to us.
        let expected = match (before, accepted) {
            (400, false) => 400,
            (_, true) => 200,
            (_, false) => 403,
        };
        assert_eq!(status, expected, "{name}");
        assert!(hotkey.iter().all(|hotkey| hotkey.parse::<Hotkey>().is_ok()), "{name}");
        assert_eq!(scene.in_one_hop(&name), hotkey, "{name} in one hop");
    }
    assert_eq!(scene.ask(scene.nginx.address, &Presented::nothing(), &TLS13), Some((403, None)));
}
