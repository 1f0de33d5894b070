use std::{collections::HashMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use tokio::runtime::Handle;

use super::*;
use crate::{
    chain::cache::{self, Cache, Clock},
    model::{certificate::MalformedCertificate, decision::Dependency, neuron::Subnet},
};

/// 2026-11-23.
const NOW: Timestamp = Timestamp(1_795_392_000);
const NETUID: NetUid = NetUid(2);

/// Keys out of a registry; the one that answers an error is not among them.
fn neurons(registry: &Value) -> Neurons {
    let certificates = registry["certificates"].as_object().unwrap();
    let published = |entry: &Value| {
        let key = entry["public_key"].as_str()?.trim_start_matches("0x");
        Some(PublishedKey::new(entry["algorithm"].as_u64()?, &hex(key)))
    };
    let keys = certificates.iter().filter_map(|(name, entry)| Some((name.parse().ok()?, published(entry)?)));
    let keys: HashMap<Hotkey, PublishedKey> = keys.collect();
    assert_eq!(keys.len(), 5, "Ferdie's address is none");
    let own = published(&certificates["self"]);
    let look_ups = Cache::new(
        Dependency::Neurons,
        cache::Options::default(),
        Clock::Steady,
        Handle::current(),
        move |(_, hotkey): (NetUid, Option<Hotkey>)| Box::pin(async move { Ok(own.filter(|_| hotkey.is_none())) }),
    );
    let neurons = Neurons::new([NETUID], Duration::from_mins(1), Clock::Steady).with_look_ups(look_ups);
    neurons.publish(NETUID, Subnet { block: 1, keys, neurons: None });
    neurons
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn registry() -> Neurons {
    neurons(&serde_json::from_str(include_str!("../../../tests/data/nexus/registry.json")).unwrap())
}

fn vectors() -> Vec<Value> {
    let document: Value = serde_json::from_str(include_str!("../../../tests/data/nexus/vectors.json")).unwrap();
    let mut vectors = document["vectors"].as_array().unwrap().clone();
    // The others are vectors of what a header may hold instead.
    vectors.retain(|vector| vector["cert_pem"].as_str().is_some_and(|pem| pem.starts_with(BEGIN)));
    vectors
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

fn parse(vector: &Value) -> Result<ClientCertificate, MalformedCertificate> {
    let base64 = vector["cert_pem"].as_str().unwrap().strip_prefix(BEGIN).unwrap();
    let base64 = base64.split_once('-').unwrap().0.replace('\n', "");
    ClientCertificate::parse(&BASE64_STANDARD.decode(base64).unwrap())
}

/// What is said of a vector's certificate: the reason, and whom `X-Hotkey` names.
async fn verdict(vector: &Value, rules: Rules, neurons: &Neurons) -> (String, Option<String>) {
    let Ok(certificate) = parse(vector) else {
        return ("malformed_certificate".into(), None);
    };
    // The one hotkey about which the registry cannot be asked.
    let unknown = Neurons::new([NETUID], Duration::from_mins(1), Clock::Steady);
    let neurons = if vector["name"] == "registry_500" { &unknown } else { neurons };
    match identify(&certificate, rules, NETUID, neurons, NOW).await {
        Ok(identity) => ("ok".into(), Some(identity.subject.hotkey().unwrap().into_owned())),
        Err(denial) => (denial.reason().to_owned(), None),
    }
}

#[tokio::test]
async fn the_strict_rules_say_what_is_recommended() {
    let neurons = registry();
    let mut tried = 0;
    for vector in vectors() {
        let name = vector["name"].as_str().unwrap();
        let (reason, hotkey) = verdict(&vector, Rules::Strict, &neurons).await;
        let recommended = &vector["recommended"];
        let (word, _) = recommended["reason"]
            .as_str()
            .unwrap()
            .split_once(' ')
            .unwrap_or((recommended["reason"].as_str().unwrap(), ""));
        let expected = match word {
            // It names Ferdie with a wrong checksum: what the registry says of him no longer matters.
            "registry_malformed" if name == "registry_short_key" => "invalid_hotkey",
            "registry_unavailable" => "neurons_unavailable",
            word => word,
        };
        assert_eq!(reason, expected, "{name}");
        assert_eq!(hotkey.is_some(), recommended["accept"].as_bool().unwrap(), "{name}");
        tried += 1;
    }
    assert!(tried >= 50, "only {tried} vectors");
}

#[tokio::test]
async fn the_rules_of_nexus_auth_say_what_was_measured() {
    let neurons = registry();
    for vector in vectors() {
        let name = vector["name"].as_str().unwrap();
        let (reason, hotkey) = verdict(&vector, Rules::NexusAuth, &neurons).await;
        let measured = &vector["nexus_auth"];
        let body = match reason.as_str() {
            "ok" => "Access granted",
            "malformed_certificate" => "Access denied: Invalid certificate",
            "no_organization" => "Access denied: No organization in certificate",
            "unsupported_key_algorithm" | "key_mismatch" => "Access denied: Certificate validation failed",
            _ => "Access denied: Organization not authorized",
        };
        // The one vector whose verdict differs: a key is published with 0x before it, which says nothing about the key.
        if name == "registry_0x_prefix" {
            assert_eq!((reason.as_str(), measured["status"].as_u64()), ("ok", Some(403)), "{name}");
            continue;
        }
        match name {
            // Spoilt on its way in the header.
            "plus_not_escaped" => continue,
            // Its address has a wrong checksum, which nobody had looked at: refused either way.
            "registry_short_key" => assert_eq!(reason, "invalid_hotkey"),
            _ => assert_eq!(body, measured["body"].as_str().unwrap(), "{name}"),
        }
        // Whoever is let in is named by the one spelling of the hotkey, not by what the certificate says.
        let expected = match name {
            "org_alias_slash" | "org_alias_dots" | "org_alias_backslash" => {
                assert_ne!(hotkey.as_deref(), measured["x_hotkey"].as_str(), "{name}");
                Some("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
            }
            _ => measured["x_hotkey"].as_str(),
        };
        assert_eq!(hotkey.as_deref(), expected, "{name}");
    }
}

#[tokio::test]
async fn what_is_published_and_no_key_of_ed25519_admits_nobody() {
    let certificate = parse(vectors().iter().find(|vector| vector["name"] == "valid").unwrap()).unwrap();
    let alice: Hotkey = certificate.organizations[0].hotkey.unwrap();
    let reasons = async |certificate: &ClientCertificate, published: PublishedKey| {
        let neurons = Neurons::new([NETUID], Duration::from_mins(1), Clock::Steady);
        neurons.publish(NETUID, Subnet { block: 1, keys: [(alice, published)].into(), neurons: None });
        let mut reasons = Vec::new();
        for rules in [Rules::Strict, Rules::NexusAuth] {
            let identified = identify(certificate, rules, NETUID, &neurons, NOW).await;
            reasons.push(identified.unwrap_err().reason());
        }
        reasons
    };
    let [short, other] = [PublishedKey::new(1, &[1; 31]), PublishedKey::new(2, &[1; 32])];
    assert_eq!(reasons(&certificate, short).await, ["registry_malformed", "key_mismatch"]);
    assert_eq!(reasons(&certificate, other).await, ["registry_malformed", "registry_malformed"]);
    let rsa = ClientCertificate { key: CertificateKey::Other, ..certificate };
    assert_eq!(reasons(&rsa, short).await, ["unsupported_key_algorithm", "unsupported_key_algorithm"]);
    assert_eq!(reasons(&rsa, other).await, ["unsupported_key_algorithm", "registry_malformed"]);
}

#[tokio::test]
async fn clocks_may_differ_a_little() {
    let neurons = registry();
    let vectors = vectors();
    let valid = vectors.iter().find(|vector| vector["name"] == "valid").unwrap();
    let certificate = parse(valid).unwrap();
    let (from, to) = (certificate.not_before.0, certificate.not_after.0);
    for (now, refused) in [
        (from - 61, Some("not_yet_valid")),
        (from - 60, None),
        (to + 60, None),
        (to + 61, Some("expired")),
        (i64::MIN, Some("not_yet_valid")),
        (i64::MAX, Some("expired")),
    ] {
        let identified = identify(&certificate, Rules::Strict, NETUID, &neurons, Timestamp(now)).await;
        assert_eq!(identified.err().map(|denial| denial.reason()), refused, "{now}");
        assert!(identify(&certificate, Rules::NexusAuth, NETUID, &neurons, Timestamp(now)).await.is_ok());
    }
    // Somebody else's subnet is nobody's.
    let elsewhere = identify(&certificate, Rules::Strict, NetUid(3), &neurons, NOW).await;
    assert_eq!(elsewhere.err().map(|denial| denial.reason()), Some("neurons_unavailable"));
}

#[test]
fn only_a_hotkey_or_self_remains_of_an_organisation() {
    let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    for text in [
        alice,
        " 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY/..",
        "5Grwva\\EF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
    ] {
        assert_eq!(looked_up_by_nexus_auth(text), Some(Subject::Hotkey(alice.parse().unwrap())), "{text}");
    }
    for text in ["self", "/self", " se..lf", ".\\.self"] {
        assert_eq!(looked_up_by_nexus_auth(text), Some(Subject::OwnNeuron), "{text}");
    }
    // A dot that is left over is no character of a name.
    for text in ["", " ", "/", "./.", ".....self", "SELF", "self\n", "self?", "latest", "séлf"] {
        assert_eq!(looked_up_by_nexus_auth(text), None, "{text:?}");
    }
}
