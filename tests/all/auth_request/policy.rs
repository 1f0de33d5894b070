//! Which neurons may pass, and that a reload changes it while the proxy's connection stays open.

use serde_json::json;

use super::*;
use crate::support::neuron::public_key;

const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

/// One gateway, which is told of each policy in turn, and one connection on which it is asked.
struct Scene {
    pylon: Pylon,
    gateway: Gateway,
    proxy: Client,
}

impl Scene {
    fn new() -> Self {
        let pylon = Pylon::start();
        let stakes = json!({"alpha": 1.0, "tao": 2.0, "total": 1_000.5});
        let alice = json!({"uid": 0, "hotkey": ALICE, "validator_permit": false, "stakes": stakes});
        pylon.neurons(&json!({ALICE: alice}));
        pylon.add("second", 3, "second-token");
        let gateway = Gateway::start(settings(&pylon, ""));
        knows_neurons(&gateway);
        let proxy = Client::connect(gateway.auth_request);
        Self { pylon, gateway, proxy }
    }

    #[track_caller]
    fn reload(&mut self, lines: &str) -> String {
        self.gateway.reload(settings(&self.pylon, lines))
    }

    fn denials(&self, reason: &str) -> i64 {
        self.gateway.metric("tollgate_denials_total", &["auth_request", &format!("\"{reason}\"")])
    }

    /// What Alice is answered on the connection that was open all the time.
    fn alice(&mut self) -> (u16, String, Option<String>) {
        verdict(&self.proxy.send(&asking(&header("valid"))))
    }

    /// Waits until Alice is refused for a reason, and nobody is named.
    #[track_caller]
    fn refuses_alice(&mut self, reason: &str) {
        let before = self.denials(reason);
        eventually(reason, || {
            let verdict = self.alice();
            assert_eq!(verdict, (403, NOT_AUTHORIZED.to_owned(), None), "{reason}");
            (self.denials(reason) > before).then_some(())
        });
    }

    #[track_caller]
    fn admits_alice(&mut self, what: &str) {
        let granted = (200, GRANTED.to_owned(), Some(ALICE.to_owned()));
        eventually(what, || (self.alice() == granted).then_some(()));
    }
}

fn settings(pylon: &Pylon, lines: &str) -> Settings {
    let settings = Settings::file().open(Ipv4Addr::LOCALHOST.into_address(), "").auth_request(lines);
    let second = "[[pylon.subnet]]\nnetuid = 3\nidentity = \"second\"\ntoken = \"second-token\"\n";
    pylon.configured(settings, "refresh = \"200ms\"\n").with(second)
}

#[test]
fn a_policy_says_which_neurons_may_pass() {
    let mut scene = Scene::new();
    for compatibility in ["standard", "nexus-auth"] {
        for (policy, reason) in [
            ("", None),
            ("registered = true", None),
            ("validator_permit = true", Some("no_validator_permit")),
            ("min_stake = 1000.5", None),
            ("min_stake = 1000.500000001", Some("insufficient_stake")),
            (&*format!("hotkeys = [\"{ALICE}\"]"), None),
            (&*format!("hotkeys = [\"{BOB}\"]"), Some("hotkey_not_listed")),
            (&*format!("deny_hotkeys = [\"{ALICE}\"]"), Some("hotkey_denied")),
            (&*format!("deny_hotkeys = [\"{BOB}\"]"), None),
            // Alice has published nothing there.
            ("netuid = 3", Some("unknown_hotkey")),
        ] {
            let lines = format!("compatibility = \"{compatibility}\"\n[auth_request.neurons]\n{policy}");
            let told = scene.reload(&lines);
            assert!(told.contains("are loaded again"), "{told}");
            match reason {
                None => scene.admits_alice(policy),
                Some(reason) => scene.refuses_alice(reason),
            }
        }
    }
    scene.pylon.publish_for("second", ALICE, &public_key("valid"));
    scene.admits_alice("she has published the key there, too");
    scene.reload("[auth_request.neurons]\nnetuid = 3\nregistered = true");
    scene.refuses_alice("not_registered");
    // What is not known is no yes.
    scene.pylon.answer_instead(Some(crate::support::Reply::status(500, "")));
    scene.reload("[auth_request.neurons]\nnetuid = 2\nregistered = true");
    scene.admits_alice("the table is still believed");
}

#[test]
fn a_reload_replaces_the_endpoint_and_leaves_its_listener() {
    let mut scene = Scene::new();
    scene.reload("trusted_peers = [\"10.0.0.0/8\"]\nhealth_path = \"/alive\"");
    assert_eq!(scene.alice(), (403, "Access denied: Peer not trusted".to_owned(), None));
    assert_eq!(scene.proxy.send(&Request::get("/alive")).status, 200);
    scene.reload("");
    assert_eq!(scene.alice().0, 200);

    // A mistake changes nothing.
    scene.gateway.expect_error("auth_request.neurons.min_stake");
    let told = scene.reload("[auth_request.neurons]\nmin_stake = -1");
    assert!(told.contains("the old one stays"), "{told}");
    assert_eq!(scene.alice().0, 200);

    // Where it listens is another start's business, and said so.
    let elsewhere = super::super::support::free_port();
    let settings = Settings::file().open(Ipv4Addr::LOCALHOST.into_address(), "");
    let settings = settings.with(&format!("[auth_request]\naddress = \"127.0.0.1:{elsewhere}\"\n"));
    let policy = format!("[auth_request.neurons]\ndeny_hotkeys = [\"{ALICE}\"]\n");
    scene.gateway.reload(scene.pylon.configured(settings, "").with(&policy));
    assert!(scene.gateway.log().iter().any(|line| line.contains("auth_request.address")));
    scene.refuses_alice("hotkey_denied");
    let nowhere = scene.pylon.configured(Settings::file().open(Ipv4Addr::LOCALHOST.into_address(), ""), "");
    scene.gateway.reload(nowhere);
    scene.refuses_alice("hotkey_denied");
}
