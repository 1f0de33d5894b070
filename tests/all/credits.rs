//! Credits are spent once, charged as the plan says, and asked for no more often than needed.

use std::time::{Duration, Instant};

use tollgate::model::address::EvmAddress;

use super::support::{
    Answer, Gate, Gateway, Part, Reply, Request, Settings, Token, Upstream, eventually,
    gateway::storm,
    market::{Market, Node, nonsense},
    token::{HOLDER, OWNER, PLAN, SERVICE},
    within,
};

/// A gateway whose credits are on chain.
fn on_chain(market: &Market, node: &Node) -> Settings {
    Settings::file().with(&format!(
        "[marketplace]\nurl = \"{}\"\n[chain]\nrpc = \"{}\"\ntimeout = \"500ms\"\n[[route]]\nname = \"paid\"\nupstream = \"token\"\n",
        market.url(),
        node.url()
    ))
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn charged(gateway: &Gateway) -> u64 {
    gateway.usage().iter().map(|row| row["charged"].as_u64().unwrap()).sum()
}

#[test]
fn a_thousand_requests_at_once_on_ten_local_credits_are_served_ten_times() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid(""));
    gateway.grant(&HOLDER, 10);
    let token = Token::covering(upstream.everything()).mint();
    let answers = storm(gateway.http, &Request::get("/x").token(&token), 1000, 200);
    assert_eq!((count(&answers, 200), count(&answers, 402)), (10, 990));
    assert_eq!(upstream.requests(), 10);
    assert_eq!(charged(&gateway), 10);
    assert!(
        gateway
            .cli(&["credits", "list"])
            .lines()
            .any(|line| line.contains(&HOLDER.to_string()) && line.contains("  0  "))
    );
}

#[test]
fn a_thousand_requests_at_once_on_ten_credits_on_chain_are_served_ten_times() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    node.set(HOLDER, 10);
    let gateway = Gateway::start(on_chain(&market, &node));
    let token = Token::covering(upstream.everything()).mint();
    let answers = storm(gateway.http, &Request::get("/x").token(&token), 1000, 200);
    assert_eq!((count(&answers, 200), count(&answers, 402)), (10, 990));
    assert_eq!(upstream.requests(), 10);
    assert_eq!(charged(&gateway), 10);
    assert_eq!(market.server.requests(), 2, "one question for the plan, one for the service");
    // Nothing burns: however often the balance is asked for, the ten stay spent.
    eventually("the balance has been asked for again", || {
        assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 402);
        (node.calls() >= 3).then_some(())
    });
}

#[test]
fn a_request_holds_the_most_it_may_cost_until_it_has_ended() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid("charge = \"dynamic\"\nminimum = 1\nmaximum = 6"));
    gateway.grant(&HOLDER, 10);
    let token = Token::covering(upstream.everything()).mint();
    let gate = Gate::closed();
    upstream.on("/slow", Reply::after(&gate, Reply::ok("").credits("2")));
    let mut slow = gateway.client();
    slow.write(Request::get("/slow").token(&token).bytes());
    eventually("it is on its way", || (upstream.requests() == 1).then_some(()));
    let refused = gateway.send(&Request::get("/x").token(&token));
    assert_eq!((refused.status, refused.error().as_str()), (402, "insufficient_credits"), "6 of 10 are held");
    gate.open();
    assert_eq!(slow.answer("GET").status, 200);
    assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 200, "what was held too much is free again");
    assert_eq!(charged(&gateway), 3);
}

#[test]
fn charges_follow_the_plan() {
    let upstream = Upstream::start();
    for (plan, cases) in [
        (
            "charge = \"dynamic\"\namount = 4\nminimum = 2\nmaximum = 10",
            [
                (200, Some("5"), 5),
                (200, Some("2"), 2),
                (200, Some("10"), 10),
                (200, Some("1"), 2),
                (200, Some("0"), 2),
                (200, Some("99"), 10),
                (200, Some("9"), 9),
                (200, None, 4),
                (200, Some(""), 4),
                (200, Some("abc"), 4),
                (200, Some("-5"), 4),
                (200, Some("1.5"), 4),
                (200, Some("0x10"), 4),
                (200, Some("1e3"), 4),
                (200, Some("Infinity"), 4),
                (200, Some("7, 7"), 4),
                (200, Some(" 9 "), 9),
                (200, Some("99999999999999999999999"), 10),
                (201, Some("3"), 3),
                (206, Some("3"), 3),
                (301, Some("3"), 0),
                (304, Some("3"), 0),
                (404, Some("3"), 0),
                (500, Some("3"), 0),
                (503, None, 0),
            ]
            .as_slice(),
        ),
        (
            "charge = \"fixed\"\namount = 3\nminimum = 1\nmaximum = 10",
            [(200, Some("5"), 3), (200, Some("0"), 3), (200, None, 3), (404, None, 0), (500, Some("9"), 0)].as_slice(),
        ),
        (
            "charge = \"dynamic\"\namount = 1\nminimum = 0\nmaximum = 10",
            [(200, Some("0"), 0), (200, Some("7"), 7)].as_slice(),
        ),
        (
            "charge = \"dynamic\"\namount = 0\n",
            [(200, None, 0), (200, Some("7"), 7), (200, Some("5000000"), 793)].as_slice(),
        ),
    ] {
        let gateway = Gateway::start(Settings::file().paid(plan));
        gateway.grant(&HOLDER, 800);
        let token = Token::covering(upstream.everything()).mint();
        let mut client = gateway.client();
        let mut expected = Vec::new();
        for (status, reported, charge) in cases {
            let reply = Reply::status(*status, if *status == 304 { "" } else { "x" });
            upstream.on("/x", reported.map_or(reply.clone(), |reported| reply.credits(reported)));
            let answer = client.send(&Request::get("/x").token(&token));
            assert_eq!(answer.status, *status, "{}", answer.text());
            expected.push((
                answer.header("x-request-id").unwrap().to_owned(),
                *charge,
                format!("{plan} {status} {reported:?}"),
            ));
        }
        let usage = gateway.usage();
        for (id, charge, case) in expected {
            let row = usage.iter().find(|row| row["request_id"] == id).unwrap();
            assert_eq!(row["charged"], charge, "{case}");
        }
    }
}

#[test]
fn two_reports_that_differ_are_none() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid("charge = \"dynamic\"\namount = 4\nmaximum = 10"));
    gateway.grant(&HOLDER, 100);
    let token = Token::covering(upstream.everything()).mint();
    upstream.on("/differ", Reply::ok("").credits("7").credits("8"));
    upstream.on("/agree", Reply::ok("").credits("7").credits("7"));
    for (path, charge) in [("/differ", 4), ("/agree", 7)] {
        assert_eq!(gateway.send(&Request::get(path).token(&token)).status, 200);
        let row = gateway.usage().into_iter().find(|row| row["endpoint"].as_str().unwrap().ends_with(path)).unwrap();
        assert_eq!(row["charged"], charge, "{path}");
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_is_charged() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid("charge = \"dynamic\"\nmaximum = 10"));
    gateway.grant(&HOLDER, 100);
    let token = Token::covering(upstream.everything()).mint();
    let gate = Gate::closed();
    let endless = [Part::Data(b"begun".to_vec()), Part::Wait(gate.clone())].into_iter();
    let endless = endless.chain(std::iter::repeat_n(Part::Data(vec![b'x'; 64 << 10]), 64));
    upstream.on("/long", Reply::parts(endless).credits("6"));
    let mut client = gateway.client();
    client.write(Request::get("/long").token(&token).bytes());
    let head = client.head().unwrap();
    assert_eq!(client.chunk().unwrap(), b"begun");
    drop(client);
    gate.open();
    let id = head.header("x-request-id").unwrap().to_owned();
    let line = gateway.logged(|line| line["request_id"] == *id);
    assert_eq!(line["charged"], 6, "{line}");
    assert_eq!(gateway.usage_of(&head)["charged"], 6);
}

#[test]
fn a_client_that_leaves_before_the_answer_is_not_charged() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid(""));
    gateway.grant(&HOLDER, 1);
    let token = Token::covering(upstream.everything()).mint();
    let gate = Gate::closed();
    upstream.on("/slow", Reply::after(&gate, Reply::ok("late")));
    let mut client = gateway.client();
    client.write(Request::get("/slow").token(&token).bytes());
    eventually("it is on its way", || (upstream.requests() == 1).then_some(()));
    drop(client);
    gateway.logged(|line| line["path"] == "/slow");
    gate.open();
    assert_eq!(charged(&gateway), 0);
    assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 200, "its hold is gone");
}

#[test]
fn the_owner_of_a_service_pays_nothing_and_nobody_else_is_its_owner() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    let gateway = Gateway::start(on_chain(&market, &node));
    let owner = gateway.send(&Request::get("/x").token(&Token::covering(upstream.everything()).of(OWNER).mint()));
    assert_eq!(owner.status, 200);
    assert_eq!(gateway.usage_of(&owner)["charged"], 0);
    assert_eq!(node.calls(), 0);
    // The token's `owner` says who owns the service; that let everybody in for nothing.
    let user = gateway.send(&Request::get("/x").token(&Token::covering(upstream.everything()).of(HOLDER).mint()));
    assert_eq!((user.status, user.error().as_str()), (402, "insufficient_credits"));
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_balance_that_cannot_be_had_is_no_answer() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    let mut gateway = Gateway::start(on_chain(&market, &node));
    gateway.expect_error("chain");
    for (number, (what, instead)) in (1_u8..).zip(nonsense()) {
        // Somebody of whom nothing is known yet.
        let holder = EvmAddress([number; 20]);
        node.set(holder, 5);
        node.answer_instead(Some(instead));
        let token = Token::covering(upstream.everything()).of(holder).mint();
        let before = upstream.requests();
        let answer = gateway.send(&Request::get("/x").token(&token));
        assert_eq!((answer.status, answer.error().as_str()), (503, "unavailable"), "{what}");
        assert!(answer.header("retry-after").is_some(), "{what}");
        assert_eq!(
            gateway.logged(|line| line["request_id"] == answer.json()["request_id"])["reason"],
            "chain_unavailable"
        );
        assert_eq!(upstream.requests(), before, "{what}");
        node.answer_instead(None);
        within(Duration::from_secs(5), "it is served again", || {
            (gateway.send(&Request::get("/x").token(&token)).status == 200).then_some(())
        });
    }
}

#[test]
fn a_marketplace_that_says_nothing_sensible_is_no_answer() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    node.set(HOLDER, 100);
    let settings = || on_chain(&market, &node);
    for (what, instead) in nonsense().into_iter().filter(|(what, _)| *what != "nothing" && *what != "an error") {
        let mut gateway = Gateway::start(settings());
        gateway.expect_error("marketplace");
        market.answer_instead(Some(instead));
        let token = Token::covering(upstream.everything()).mint();
        let answer = gateway.send(&Request::get("/x").token(&token));
        assert_eq!((answer.status, answer.error().as_str()), (503, "unavailable"), "{what}");
        market.answer_instead(None);
        within(Duration::from_secs(15), "it is served again", || {
            (gateway.send(&Request::get("/x").token(&token)).status == 200).then_some(())
        });
    }
}

#[test]
fn a_known_service_is_served_while_the_marketplace_is_away() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    node.set(HOLDER, 100);
    let settings = on_chain(&market, &node).with("");
    let gateway = Gateway::start(settings);
    let token = Token::covering(upstream.everything()).mint();
    assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 200);
    market.answer_instead(Some(Reply::status(500, "")));
    node.answer_instead(Some(Reply::status(500, "")));
    for _ in 0..20 {
        assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 200);
    }
}

#[test]
fn services_that_do_not_exist_or_do_not_fit_are_refused() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    node.set(HOLDER, 100);
    let gateway = Gateway::start(on_chain(&market, &node));
    let token = |service, plan| Token::covering(upstream.everything()).service(service).plan(plan).mint();
    let unknown = tollgate::model::did::Did([0x77; 32]);
    for (what, token) in [
        ("unknown service", token(unknown, PLAN)),
        ("unknown plan", token(SERVICE, unknown)),
        ("a plan for a service", token(PLAN, PLAN)),
    ] {
        let answer = gateway.send(&Request::get("/x").token(&token));
        assert_eq!(answer.status, 403, "{what}: {}", answer.text());
    }
    // "There is none" is remembered too.
    let before = market.server.requests();
    for _ in 0..20 {
        assert_eq!(gateway.send(&Request::get("/x").token(&token(unknown, PLAN))).status, 403);
    }
    assert_eq!(market.server.requests(), before);
    assert_eq!(upstream.requests(), 0);
}

#[test]
fn facts_are_asked_for_once_however_many_wait_for_them() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    node.set(HOLDER, 10_000);
    let gateway = Gateway::start(on_chain(&market, &node));
    let token = Token::covering(upstream.everything()).mint();
    let answers = storm(gateway.http, &Request::get("/x").token(&token), 300, 100);
    assert_eq!(count(&answers, 200), 300);
    assert_eq!(market.server.requests(), 2);
    assert_eq!(node.calls(), 1);
    assert_eq!(gateway.metric("tollgate_lookups", &["answered", "services"]), 1);
}

#[test]
fn a_top_up_is_seen_within_about_a_second() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    let gateway = Gateway::start(on_chain(&market, &node));
    let token = Token::covering(upstream.everything()).mint();
    assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 402);
    node.set(HOLDER, 5);
    let topped_up = Instant::now();
    within(Duration::from_secs(5), "the top-up is seen", || {
        (gateway.send(&Request::get("/x").token(&token)).status == 200).then_some(())
    });
    assert!(topped_up.elapsed() < Duration::from_millis(2500), "{:?}", topped_up.elapsed());
    assert!(node.calls() <= 5, "those who have nothing are not asked about at every request: {}", node.calls());
}

#[test]
fn a_local_grant_is_seen_within_about_a_second() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(Settings::file().paid(""));
    let token = Token::covering(upstream.everything()).mint();
    assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 402);
    gateway.grant(&HOLDER, 3);
    let granted = Instant::now();
    eventually("the grant is seen", || (gateway.send(&Request::get("/x").token(&token)).status == 200).then_some(()));
    assert!(granted.elapsed() < Duration::from_millis(2500), "{:?}", granted.elapsed());
}

#[test]
fn a_restart_forgets_no_charge() {
    let (market, node, upstream) = (Market::start(), Node::start(), Upstream::start());
    node.set(HOLDER, 10);
    let mut gateway = Gateway::start(on_chain(&market, &node));
    let token = Token::covering(upstream.everything()).mint();
    for _ in 0..6 {
        assert_eq!(gateway.send(&Request::get("/x").token(&token)).status, 200);
    }
    gateway.kill();
    gateway.restart();
    let answers = storm(gateway.http, &Request::get("/x").token(&token), 50, 10);
    assert_eq!(count(&answers, 200), 4);
    assert_eq!(charged(&gateway), 10);
}
