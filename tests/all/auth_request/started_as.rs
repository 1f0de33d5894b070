//! Started as nexus-auth was: with its variables and flags, and nothing else.

use std::{collections::BTreeSet, path::Path};

use super::*;

/// Its variables, for a Pylon.
fn settings(pylon: &Pylon) -> Settings {
    Settings::nexus_auth()
        .variable("NEXUS_PYLON_ENDPOINT", format!(" {}// ", pylon.url()))
        .variable("NEXUS_PYLON_NETUID", "2")
        .variable("NEXUS_PYLON_IDENTITY_NAME", "miner")
        .variable("NEXUS_PYLON_IDENTITY_TOKEN", super::super::support::pylon::TOKEN)
}

/// The ports that a process listens on.
fn listening(pid: u32) -> BTreeSet<u16> {
    let sockets: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"].map(|name| Path::new("/proc").join(pid.to_string()).join("net").join(name)) {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            // The state is 0A while a socket listens.
            if words[3] == "0A" && sockets.contains(&format!("socket:[{}]", words[9])) {
                ports.insert(u16::from_str_radix(words[1].rsplit(':').next().unwrap(), 16).unwrap());
            }
        }
    }
    ports
}

#[test]
fn with_its_variables_alone_only_its_port_is_open_and_it_is_strict() {
    let pylon = Pylon::start();
    let gateway = Gateway::start(settings(&pylon));
    knows_neurons(&gateway);
    let open = listening(gateway.pid());
    assert_eq!(open, [gateway.auth_request.port(), gateway.admin.port()].into());
    assert_eq!(ask(&gateway, &asking(&header("expired"))).text(), NOT_VALID);
    assert_eq!(ask(&gateway, &asking(&header("org_self"))).text(), NOT_AUTHORIZED);
    assert_eq!(ask(&gateway, &Request::get("/healthz")).status, 200);
}

#[test]
fn its_verdicts_come_back_when_they_are_asked_for() {
    let pylon = Pylon::start();
    let gateway = Gateway::start(settings(&pylon).variable("TOLLGATE_COMPATIBILITY", "nexus-auth"));
    knows_neurons(&gateway);
    assert_eq!(ask(&gateway, &asking(&header("expired"))).text(), GRANTED);
    let answer = ask(&gateway, &asking(&header("org_self")));
    assert_eq!(verdict(&answer), (200, GRANTED.to_owned(), Some("self".to_owned())));
}

#[test]
fn its_command_and_flags_work() {
    let pylon = Pylon::start();
    let other = Pylon::start();
    other.set_netuid(9);
    let url = pylon.url();
    for words in [
        &["run", "-net-uid", "2", "-pylon-endpoint", &url][..],
        &["run", "--net-uid=2", "-pylon-endpoint=", "-pylon-endpoint", &url, "word", "-net-uid", "3"],
        // A number below 0, and an empty text, count as not given.
        &["run", "-net-uid", "-1", "-listen-addr", ""],
    ] {
        let mut settings = settings(&pylon).words(words);
        if words.contains(&&*url) {
            settings = settings.variable("NEXUS_PYLON_NETUID", "3").variable("NEXUS_PYLON_ENDPOINT", other.url());
        }
        let gateway = Gateway::start(settings);
        knows_neurons(&gateway);
    }
    let elsewhere = super::super::support::free_port();
    let address = format!(":{elsewhere}");
    let gateway = Gateway::start(settings(&pylon).words(&["run", "-listen-addr", &address]));
    let valid = asking(&header("valid"));
    let there = super::super::support::loopback(elsewhere);
    eventually("somebody is admitted", || (Client::connect(there).send(&valid).status == 200).then_some(()));
    assert!(listening(gateway.pid()).contains(&elsewhere));
    assert!(gateway.log().iter().any(|line| line.contains("TOLLGATE_AUTH_TRUSTED_PEERS")));
}

#[test]
fn what_it_only_noticed_later_keeps_us_from_starting() {
    let pylon = Pylon::start();
    for name in ["NEXUS_PYLON_NETUID", "NEXUS_PYLON_IDENTITY_NAME", "NEXUS_PYLON_IDENTITY_TOKEN"] {
        for words in [&["serve"][..], &["run"]] {
            let (code, log) = super::super::support::gateway::refused(settings(&pylon).unset(name).words(words));
            assert_eq!(code, 2, "{log}");
            assert!(log.contains(&format!("environment: {name}: is not set")), "{log}");
        }
    }
    for words in [&["run", "-net-uid", "x"][..], &["run", "-other"], &["run", "-listen-addr"], &["walk"]] {
        let (code, log) = super::super::support::gateway::refused(settings(&pylon).words(words));
        assert_eq!(code, 2, "{words:?}: {log}");
    }
    // An address that is taken.
    let (code, log) = super::super::support::gateway::refused(
        settings(&pylon).variable("NEXUS_AUTH_LISTEN_ADDR", pylon.server.address.to_string()),
    );
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("auth_request"), "{log}");
}

#[test]
fn beside_the_nevermined_proxy_both_run() {
    let pylon = Pylon::start();
    let both =
        ["NEXUS_PYLON_ENDPOINT", "NEXUS_PYLON_NETUID", "NEXUS_PYLON_IDENTITY_NAME", "NEXUS_PYLON_IDENTITY_TOKEN"];
    let values = [pylon.url(), "2".into(), "miner".into(), super::super::support::pylon::TOKEN.into()];
    let port = super::super::support::free_port();
    let settings = both
        .into_iter()
        .zip(values)
        .fold(Settings::drop_in(), |settings, (name, value)| settings.variable(name, value));
    let gateway = Gateway::start(settings.variable("NEXUS_AUTH_LISTEN_ADDR", format!("127.0.0.1:{port}")));
    let open = listening(gateway.pid());
    assert_eq!(
        open,
        [gateway.http, gateway.admin, gateway.introspection].map(|it| it.port()).into_iter().chain([port]).collect()
    );
}
