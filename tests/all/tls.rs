//! The TLS side of the front door.

use std::sync::Arc;

use super::support::{Client, Gateway, Request, Settings, Upstream, eventually, h2, tls::Authority};

fn served(authority: &Authority, directory: &std::path::Path, upstream: &Upstream) -> Settings {
    let (certificate, key) = authority.leaf(&["gate.test"]).write(directory, "gate");
    Settings::file().open(upstream.address, "").tls(&certificate, &key)
}

#[test]
fn both_versions_and_both_protocols_are_spoken() {
    let (authority, upstream, directory) = (Authority::new(), Upstream::start(), tempfile::tempdir().unwrap());
    let gateway = Gateway::start(served(&authority, directory.path(), &upstream));
    for (version, expected) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        for (offered, chosen) in [
            (vec!["http/1.1"], Some("http/1.1")),
            (vec!["h2", "http/1.1"], Some("h2")),
            (vec!["http/1.1", "h2"], Some("h2")),
            (vec![], None),
        ] {
            let config = authority.client(&offered, &[version]);
            let (mut client, agreed) = Client::tls(gateway.tls, "gate.test", config).unwrap();
            assert_eq!((agreed.version, agreed.alpn.as_deref()), (expected, chosen), "{offered:?}");
            if chosen != Some("h2") {
                assert_eq!(client.send(&Request::get("/")).status, 200);
            }
        }
        let mut client = h2::Client::connect(gateway.tls, "gate.test", authority.client(&["h2"], &[version]));
        assert_eq!(client.get("https://gate.test/", None).status, 200);
    }
    assert!(
        Client::tls(gateway.tls, "gate.test", authority.client(&["h3"], rustls::ALL_VERSIONS)).is_err(),
        "no protocol in common"
    );
}

#[test]
fn sessions_are_resumed() {
    let (authority, upstream, directory) = (Authority::new(), Upstream::start(), tempfile::tempdir().unwrap());
    let gateway = Gateway::start(served(&authority, directory.path(), &upstream));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = authority.client(&["http/1.1"], &[version]);
        let connect = || {
            let (mut client, agreed) = Client::tls(gateway.tls, "gate.test", Arc::clone(&config)).unwrap();
            assert_eq!(client.send(&Request::get("/")).status, 200);
            agreed.resumed
        };
        assert!(!connect());
        assert!(connect(), "{version:?}");
    }
}

#[test]
fn the_certificate_follows_the_name() {
    let (authority, upstream, directory) = (Authority::new(), Upstream::start(), tempfile::tempdir().unwrap());
    let leaves = [("one", "one.test"), ("two", "*.two.test")].map(|(file, name)| {
        let leaf = authority.leaf(&[name]);
        let files = leaf.write(directory.path(), file);
        (leaf.der, files)
    });
    let mut gateway = Gateway::prepare(Settings::file().open(upstream.address, ""));
    let text = std::fs::read_to_string(gateway.directory().join("tollgate.toml")).unwrap();
    let more: Vec<String> = leaves
        .iter()
        .map(|(_, (cert, key))| {
            format!("[[listener.tls.certificate]]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display())
        })
        .collect();
    let listener =
        format!("[[listener]]\nname = \"tls\"\naddress = \"{}\"\n[listener.tls]\n{}", gateway.tls, more.concat());
    std::fs::write(gateway.directory().join("tollgate.toml"), format!("{text}\n{listener}")).unwrap();
    gateway.launch();
    gateway.ready();
    for (name, expected) in [("one.test", 0), ("a.two.test", 1), ("ONE.test", 0)] {
        let (_, agreed) = Client::tls(gateway.tls, name, authority.http1()).unwrap();
        assert_eq!(agreed.certificate.as_ref(), Some(&leaves[expected].0), "{name}");
    }
    assert!(
        Client::tls(gateway.tls, "three.test", authority.http1()).is_err(),
        "the first one is shown, and is for another name"
    );
}

#[test]
fn changed_certificates_are_used_and_open_connections_stay() {
    let (authority, upstream, directory) = (Authority::new(), Upstream::start(), tempfile::tempdir().unwrap());
    let mut gateway = Gateway::start(served(&authority, directory.path(), &upstream));
    let (mut open, before) = Client::tls(gateway.tls, "gate.test", authority.http1()).unwrap();
    let mut open2 = h2::Client::connect(gateway.tls, "gate.test", authority.http2());
    assert_eq!(open.send(&Request::get("/")).status, 200);
    let renewed = authority.leaf(&["gate.test"]);
    renewed.write(directory.path(), "gate");
    eventually("new connections get the new certificate", || {
        let (_, now) = Client::tls(gateway.tls, "gate.test", authority.http1()).unwrap();
        (now.certificate.as_ref() == Some(&renewed.der)).then_some(())
    });
    assert_ne!(before.certificate, Some(renewed.der.clone()));
    assert_eq!(open.send(&Request::get("/")).status, 200, "the open connection stays");
    assert_eq!(open2.get("https://gate.test/", None).status, 200);

    // A file that cannot be used is told, and changes nothing.
    gateway.expect_error("changed certificates cannot be used");
    std::fs::write(directory.path().join("gate.crt"), "half a file").unwrap();
    eventually("it is told", || {
        gateway.log().iter().any(|line| line.contains("changed certificates cannot be used")).then_some(())
    });
    let (mut client, now) = Client::tls(gateway.tls, "gate.test", authority.http1()).unwrap();
    assert_eq!(now.certificate, Some(renewed.der));
    assert_eq!(client.send(&Request::get("/")).status, 200);
}

#[test]
fn what_is_no_handshake_is_counted_and_harms_nobody() {
    let (authority, upstream, directory) = (Authority::new(), Upstream::start(), tempfile::tempdir().unwrap());
    let gateway = Gateway::start(served(&authority, directory.path(), &upstream).server("header_timeout = \"300ms\""));
    let mut plain = Client::connect(gateway.tls);
    plain.write(Request::get("/").bytes());
    plain.rest();
    let mut silent = Client::connect(gateway.tls);
    assert!(silent.is_closed(), "who says nothing is not waited for");
    eventually("both are counted", || {
        (gateway.metric("tollgate_connections_refused_total", &["handshake"]) >= 2).then_some(())
    });
    let (mut client, _) = Client::tls(gateway.tls, "gate.test", authority.http1()).unwrap();
    assert_eq!(client.send(&Request::get("/")).status, 200);
    assert!(gateway.metric("tollgate_certificate_days", &["gate.test"]) > 1);
}

#[test]
fn a_key_of_another_certificate_stops_the_start() {
    let (authority, upstream, directory) = (Authority::new(), Upstream::start(), tempfile::tempdir().unwrap());
    let settings = served(&authority, directory.path(), &upstream);
    let (_, other) = authority.leaf(&["gate.test"]).write(directory.path(), "other");
    let (code, message) = super::support::gateway::refused(settings.tls(&directory.path().join("gate.crt"), &other));
    assert_eq!(code, 2, "{message}");
    assert!(message.contains("other.key") && message.contains("tollgate.toml:"), "{message}");
}
