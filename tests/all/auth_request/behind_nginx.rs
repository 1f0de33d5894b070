//! Debian's nginx with `auth_request`, and our own listener in one hop.

use std::{collections::BTreeMap, sync::Arc};

use rustls::version::{TLS12, TLS13};
use serde_json::Value;

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

/// A service behind nginx.
struct Scene {
    pylon: Pylon,
    service: Upstream,
    gateway: Gateway,
    nginx: Nginx,
}

impl Scene {
    fn new(lines: &str) -> Self {
        let (pylon, service) = (Pylon::start(), Upstream::start());
        let gateway = start(&pylon, lines);
        let nginx = Nginx::start(gateway.auth_request, service.address);
        Self { pylon, service, gateway, nginx }
    }

    /// The status that a client sees, and the hotkey that the service sees.
    fn ask(
        &self,
        presented: &Arc<Presented>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> (u16, Option<String>) {
        let pinned = neuron::certificate("gateway");
        let config = pinning(&pinned, presented, version);
        let (mut client, _) = Client::tls(self.nginx.address, "gate.test", config).unwrap();
        let request = Request::get("/x").header("X-Hotkey", "somebody").header("X-Client-Cert", "forged");
        let status = client.send(&request).status;
        let received = self.service.take();
        let hotkey = received.first().map(|request| {
            assert_eq!(request.header("x-client-cert"), None);
            request.header("x-hotkey").expect("the service is told").to_owned()
        });
        assert_eq!(hotkey.is_some(), status == 200);
        (status, hotkey)
    }
}

#[test]
fn nginx_gets_the_verdicts_of_the_replaced_system() {
    let scene = Scene::new("compatibility = \"nexus-auth\"");
    let measured = measured();
    assert_eq!(measured.len(), 42);
    for (name, expected) in measured {
        let expected = match differing(&name) {
            Some((status, _, hotkey)) => (status, hotkey.map(str::to_owned)),
            None => expected,
        };
        let presented = Presented::new(neuron::vector(&name));
        for version in [&TLS12, &TLS13] {
            assert_eq!(scene.ask(&presented, version), expected, "{name} {version:?}");
        }
    }
    assert_eq!(scene.ask(&Presented::nothing(), &TLS13), (403, None));
    drop((scene.pylon, scene.gateway));
}

#[test]
fn nginx_gets_the_strict_verdicts_and_our_own_listener_the_same_in_one_hop() {
    let scene = Scene::new("");
    let recommended: BTreeMap<String, Vector> =
        vectors().into_iter().map(|vector| (vector.name.clone(), vector)).collect();
    for (name, (before, _)) in measured() {
        let accepted = recommended[&name].accepted;
        let presented = Presented::new(neuron::vector(&name));
        let (status, hotkey) = scene.ask(&presented, &TLS13);
        // What nginx itself refuses never gets to us.
        let expected = match (before, accepted) {
            (400, false) => 400,
            (_, true) => 200,
            (_, false) => 403,
        };
        assert_eq!(status, expected, "{name}");
        assert_eq!(hotkey.is_some(), accepted, "{name}");
        assert!(hotkey.is_none_or(|hotkey| hotkey.parse::<tollgate::model::hotkey::Hotkey>().is_ok()), "{name}");
    }
    assert_eq!(scene.ask(&Presented::nothing(), &TLS13), (403, None));
}
