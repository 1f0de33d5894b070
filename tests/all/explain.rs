//! A charge can be explained, from the request's id to its burn, and the backend hears of it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::support::{
    Gateway, IN_QUERY, Reply, Request, Settings, Token, Upstream,
    database::Database,
    eventually,
    market::{CONTRACT, Node},
    secret,
    token::{HOLDER, OWNER, PLAN, SERVICE},
};

/// The same story in both databases.
fn told(settings: Settings) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(settings.paid("charge = \"dynamic\"\namount = 2\nminimum = 1\nmaximum = 5"));
    gateway.grant(&HOLDER, 100);
    let token = Token::covering(upstream.everything()).mint();
    upstream.on("/asked", Reply::ok("").credits("4"));
    upstream.on("/too-much", Reply::ok("").credits("50"));
    upstream.on("/silent", Reply::ok(""));
    upstream.on("/failed", Reply::status(500, "").credits("4"));
    let mut ids = Vec::new();
    for path in ["/asked", "/too-much", "/silent", "/failed"] {
        let answer = gateway.send(&Request::post(&format!("{path}?{IN_QUERY}"), "").token(&token));
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    gateway.settle();
    for (id, charged, because) in [
        (&ids[0], 4, "as the service reported"),
        (&ids[1], 5, "reported 50"),
        (&ids[2], 2, "the plan's ordinary price"),
        (&ids[3], 0, "status 500 is no delivery"),
    ] {
        let text = gateway.cli(&["usage", "show", id]);
        assert!(text.contains(because) && text.contains(id.as_str()) && text.contains(&SERVICE.to_string()), "{text}");
        assert!(!text.contains(IN_QUERY));
        let json: Value = serde_json::from_str(&gateway.cli(&["usage", "show", id, "--json"])).unwrap();
        assert_eq!(
            (&json["charged"], &json["request_id"], &json["event_id"]),
            (&json!(charged), &json!(id), &json!(id)),
            "{json}"
        );
        assert_eq!(
            (&json["plan"], &json["holder"], &json["method"]),
            (&json!(PLAN.to_string()), &json!(HOLDER.to_string()), &json!("POST"))
        );
        assert_eq!(json["burned_at"].is_string(), charged > 0, "local credits are burned as they are charged: {json}");
    }
    let table = gateway.cli(&["usage", "list"]);
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(ids.iter().all(|id| table.contains(id.as_str())), "{table}");
    let limited = gateway.cli(&["usage", "list", "--limit", "1", "--json"]);
    assert!(limited.contains(&ids[3]) && limited.lines().count() == 1, "the latest first: {limited}");
    for (by, key) in [
        ("holder", HOLDER.to_string()),
        ("plan", PLAN.to_string()),
        ("service", SERVICE.to_string()),
        ("route", "paid".to_owned()),
    ] {
        let sum: Value = serde_json::from_str(&gateway.cli(&["usage", "sum", "--by", by, "--json"])).unwrap();
        assert_eq!(sum, json!({by: key, "requests": 4, "charged": 11, "unburned": 0}));
        assert!(gateway.cli(&["usage", "sum", "--by", by]).contains(&key));
    }
    let nobody = "0x0000000000000000000000000000000000000001";
    assert_eq!(gateway.cli(&["usage", "list", "--holder", nobody, "--json"]), "");
    assert_eq!(gateway.cli(&["usage", "list", "--until", "2020-01-01", "--json"]), "");
    let output = gateway.command().args(["usage", "show", "no-such-id"]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no-such-id"));
    assert!(gateway.cli(&["credits", "list"]).contains("89"));
}

#[test]
fn a_charge_is_explained_out_of_sqlite() {
    told(Settings::file());
}

#[test]
fn a_charge_is_explained_out_of_postgres() {
    let database = Database::fresh();
    told(Settings::file().database(&format!("url = \"{}\"", database.url)));
}

#[test]
fn the_backend_hears_of_every_charge_on_chain_in_spite_of_failures() {
    let (node, upstream) = (Node::start(), Upstream::start());
    node.set(HOLDER, 100);
    let attempts = Arc::<AtomicUsize>::default();
    let backend = Upstream::answering({
        let attempts = Arc::clone(&attempts);
        move |_| match attempts.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::status(500, ""),
            1 => Reply::raw("nonsense"),
            _ => Reply::status(201, "{}"),
        }
    });
    let token_of_backend = secret("backend-secret");
    let gateway = Gateway::start(
        Settings::file()
            .paid(&format!(
                "charge = \"dynamic\"\nmaximum = 5\ncredits = \"chain\"\ncontract = \"{}\"\n[chain]\nrpc = \"{}\"",
                CONTRACT.checksummed(),
                node.url()
            ))
            .with(&format!("[usage.report]\nurl = \"{}\"\ntoken = \"{token_of_backend}\"\n", backend.url(""))),
    );
    let token = Token::covering(upstream.everything()).mint();
    upstream.on("/three", Reply::ok("").credits("3"));
    upstream.on("/failed", Reply::status(500, ""));
    for path in ["/three", "/failed", "/one"] {
        gateway.send(&Request::get(&format!("{path}?{IN_QUERY}")).token(&token));
    }
    let expected = |path: &str, credits: u64| {
        json!({"did": SERVICE.to_string(), "owner": OWNER.checksummed(), "consumer": HOLDER.checksummed(), "assetType": "Service",
            "endpoint": upstream.url(path), "accessResult": "200", "nvmCredits": credits})
    };
    let told = || {
        let requests = backend.received();
        let bodies = requests.iter().map(|request| serde_json::from_slice::<Value>(&request.body).unwrap());
        bodies.collect::<Vec<_>>()
    };
    super::support::within(std::time::Duration::from_secs(40), "both are told", || {
        let (told, attempts) = (told(), attempts.load(Ordering::SeqCst));
        let both = [expected("/three", 3), expected("/one", 1)].iter().all(|report| told.contains(report));
        (both && attempts >= 4).then_some(())
    });
    assert!(
        told().iter().all(|report| !report["endpoint"].as_str().unwrap().contains("/failed")),
        "only what was delivered"
    );
    for request in backend.received() {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/api/v1/metrics/asset/access"));
        assert_eq!(request.header("authorization"), Some("Bearer backend-secret"));
        assert_eq!(request.header("content-type"), Some("application/json"));
    }
    let settled = backend.requests();
    gateway.send(&Request::get("/one").token(&token));
    eventually("the next one is told", || (backend.requests() > settled).then_some(()));
    assert_eq!(backend.requests(), settled + 1, "what was taken is not told again");
}

#[test]
fn what_is_paid_locally_is_not_told_to_a_backend_that_would_burn_it_again() {
    let (upstream, backend) = (Upstream::start(), Upstream::answering(|_| Reply::status(201, "{}")));
    let report = format!("[usage.report]\nurl = \"{}\"\ntoken = \"{}\"\n", backend.url(""), secret("backend-secret"));
    let gateway = Gateway::start(Settings::file().paid("").with(&report));
    gateway.grant(&HOLDER, 100);
    let token = Token::covering(upstream.everything()).mint();
    assert_eq!(gateway.send(&Request::get("/one").token(&token)).status, 200);
    eventually("the charge is in the store", || (gateway.usage().len() == 1).then_some(()));
    assert_eq!(gateway.metric("tollgate_reports", &["told"]), 0);
    assert_eq!(backend.requests(), 0);
}
