use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use super::{
    fake::{Reply, Server},
    marketplace::tests::{CONTRACT, MAIN, PLAN, SERVICE, plan_ddo, service_ddo, with, without},
    *,
};
use crate::model::credits::ChargeType;

const HOUR: Duration = Duration::from_hours(1);
const HOLDER: EvmAddress = EvmAddress([7; 20]);

struct Fixture {
    facts: Facts,
    server: Server,
    clock: Clock,
}

impl Fixture {
    /// A marketplace that knows one service and its plan, and is also the node.
    async fn start() -> Self {
        let server = Server::start(fake::status("404 Not Found", "{}")).await;
        server.reply_to(&SERVICE.to_string(), fake::ok(service_ddo().to_string()));
        server.reply_to(&PLAN.to_string(), fake::ok(plan_ddo().to_string()));
        let http = http::Options { timeout: Duration::from_secs(10), extra_ca_pem: None };
        let options = Options {
            marketplace: Some(marketplace::Options {
                url: server.url.clone(),
                http: http.clone(),
                answer_limit: 64 * 1024,
            }),
            node: Some(evm::Options { url: server.url.join("node").unwrap(), http }),
            cache: cache::Options::default(),
        };
        let clock = Clock::manual();
        let facts = Facts::new(options, &clock, Handle::current()).unwrap();
        Self { facts, server, clock }
    }

    async fn service(&self) -> Result<Arc<ServiceFacts>, FactError> {
        self.facts.service(SERVICE, PLAN).await
    }
}

fn configured(service: Did, plan: Option<Did>) -> ServiceFacts {
    let one = Credits::new(1);
    ServiceFacts {
        service,
        plan,
        plan_kind: PlanKind::Credits,
        price: Price { charge_type: ChargeType::Fixed, amount: one, minimum: None, maximum: None, required: one },
        owner: "us".to_owned(),
        creator: String::new(),
        source: CreditSource::Local,
        open_endpoints: vec!["http://localhost/open".to_owned()],
    }
}

#[tokio::test]
async fn a_service_is_looked_up_once_and_then_known() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.facts.peek_service(SERVICE, PLAN), None);
    let facts = fixture.service().await.unwrap();
    assert_eq!((facts.service, facts.plan, facts.plan_kind), (SERVICE, Some(PLAN), PlanKind::Credits));
    assert_eq!(facts.source, CreditSource::Chain { contract: CONTRACT.parse().unwrap() });
    assert_eq!(fixture.server.requests(), 2);
    let known = fixture.facts.peek_service(SERVICE, PLAN).unwrap();
    assert!(Arc::ptr_eq(&known, &facts), "nothing is made anew for a request");
    assert!(Arc::ptr_eq(&fixture.service().await.unwrap(), &facts));
    assert_eq!(fixture.server.requests(), 2);
    assert_eq!(fixture.facts.service_statistics().unwrap().fetches.answered.load(SeqCst), 1);
    assert_eq!(fixture.facts.plan_statistics().unwrap().fetches.answered.load(SeqCst), 1);
}

#[tokio::test]
async fn the_plan_of_another_service_opens_nothing() {
    let fixture = Fixture::start().await;
    let other = Did([0x33; 32]);
    let ddo = with(plan_ddo(), "/id", json!(other.to_string()));
    let time = with(ddo.clone(), &format!("{MAIN}/subscription/subscriptionType"), json!("time"));
    for ddo in [ddo, time] {
        fixture.server.reply_to(&other.to_string(), fake::ok(ddo.to_string()));
        let refused = fixture.facts.service(SERVICE, other).await.unwrap_err();
        assert_eq!(refused, FactError::Unusable("plan_of_another_service"));
        assert_eq!(Denial::from(refused).status(), 403);
        assert_eq!(fixture.facts.peek_service(SERVICE, other), None);
        fixture.clock.advance(2 * HOUR);
    }
}

#[tokio::test]
async fn a_time_plan_pays_nothing_even_where_credits_could_not_be_paid() {
    let fixture = Fixture::start().await;
    let time = with(plan_ddo(), &format!("{MAIN}/subscription/subscriptionType"), json!("time"));
    fixture.server.reply_to(&SERVICE.to_string(), fake::ok(without(service_ddo(), "/service/1").to_string()));
    assert_eq!(fixture.service().await, Err(FactError::Unusable("service_not_payable")));
    fixture.clock.advance(2 * HOUR);
    fixture.server.reply_to(&PLAN.to_string(), fake::ok(time.to_string()));
    let facts = fixture.service().await.unwrap();
    assert_eq!((facts.plan_kind, facts.price.most(), facts.plan), (PlanKind::Time, Credits::ZERO, None));
}

#[tokio::test]
async fn a_time_plan_is_enough_without_the_service_that_it_pays_for() {
    let fixture = Fixture::start().await;
    let time = with(plan_ddo(), &format!("{MAIN}/subscription/subscriptionType"), json!("time"));
    fixture.server.reply_to(&PLAN.to_string(), fake::ok(time.to_string()));
    let stranger = Did([0x44; 32]);
    let facts = fixture.facts.service(stranger, PLAN).await.unwrap();
    assert_eq!((facts.plan_kind, facts.service, facts.price.most()), (PlanKind::Time, stranger, Credits::ZERO));
}

#[tokio::test]
async fn not_knowing_is_not_a_no_and_a_no_is_not_an_outage() {
    let fixture = Fixture::start().await;
    let stranger = Did([0x44; 32]);
    assert_eq!(fixture.facts.service(stranger, PLAN).await, Err(FactError::Unknown));
    assert_eq!(fixture.facts.service(SERVICE, stranger).await, Err(FactError::Unknown));
    let down = fake::status("503 Later", "");
    fixture.server.reply(down.clone());
    let elsewhere = Did([0x55; 32]);
    for (service, plan, error) in [
        (elsewhere, PLAN, FactError::Unavailable(Dependency::Marketplace)),
        (SERVICE, elsewhere, FactError::Unavailable(Dependency::Marketplace)),
        (stranger, elsewhere, FactError::Unknown), // the no is remembered, whatever the other answer would be
        (elsewhere, stranger, FactError::Unknown),
    ] {
        assert_eq!(fixture.facts.service(service, plan).await, Err(error), "{service} {plan}");
        assert_eq!(fixture.facts.peek_service(service, plan), None);
    }
    assert_eq!(Denial::from(FactError::Unavailable(Dependency::Marketplace)).status(), 503);
    assert_eq!(Denial::from(FactError::Unknown).reason(), "unknown_service");
}

#[tokio::test]
async fn an_outage_is_survived_as_long_as_what_is_known_may_be_used() {
    let fixture = Fixture::start().await;
    let facts = fixture.service().await.unwrap();
    fixture.server.reply(fake::status("500 Oops", ""));
    fixture.clock.advance(HOUR / 2);
    assert_eq!(fixture.facts.peek_service(SERVICE, PLAN), Some(Arc::clone(&facts)));
    assert_eq!(fixture.service().await, Ok(facts));
    fixture.clock.advance(HOUR / 2);
    assert_eq!(fixture.facts.peek_service(SERVICE, PLAN), None);
    assert_eq!(fixture.service().await, Err(FactError::Unavailable(Dependency::Marketplace)));
}

fn texts(open: &OpenService) -> Vec<&str> {
    open.open_endpoints.iter().map(Endpoint::as_str).collect()
}

#[tokio::test]
async fn what_the_configuration_says_is_not_asked_for() {
    let fixture = Fixture::start().await;
    let ours = Did([0x66; 32]);
    fixture.facts.configure([configured(SERVICE, Some(PLAN)), configured(ours, None)]);
    assert_eq!(*fixture.service().await.unwrap(), configured(SERVICE, Some(PLAN)));
    assert_eq!(*fixture.facts.peek_service(ours, SERVICE).unwrap(), configured(ours, None), "any plan does");
    assert_eq!(fixture.facts.peek_service(SERVICE, ours), None);
    let refused = fixture.facts.service(SERVICE, ours).await.unwrap_err();
    assert_eq!(refused, FactError::Unusable("plan_of_another_service"));
    assert_eq!(fixture.facts.peek_open(ours).unwrap().owner, "us");
    assert_eq!(texts(&fixture.facts.open_service(ours).await.unwrap()), ["http://localhost/open"]);
    assert_eq!(fixture.server.requests(), 0);

    fixture.facts.configure([]);
    assert_eq!(fixture.service().await.unwrap().owner, "0xPublisher", "a reload takes them away again");
}

#[tokio::test]
async fn without_a_marketplace_there_is_only_the_configuration() {
    let facts = Facts::new(Options::default(), &Clock::manual(), Handle::current()).unwrap();
    assert_eq!(facts.service(SERVICE, PLAN).await, Err(FactError::Unknown));
    assert_eq!(facts.open_service(SERVICE).await, Err(FactError::Unknown));
    assert_eq!((facts.peek_service(SERVICE, PLAN), facts.peek_open(SERVICE)), (None, None));
    let failed = facts.balance(EvmAddress([1; 20]), HOLDER, PLAN).await.unwrap_err();
    assert_eq!(FactError::from(failed), FactError::Unavailable(Dependency::Chain));
}

#[tokio::test]
async fn strangers_cannot_make_us_ask_for_ever() {
    let fixture = Fixture::start().await;
    let burst = usize::try_from(cache::Options::default().unvouched.burst).unwrap();
    for i in 0..burst {
        let made_up = Did([u8::try_from(0x80 + i).unwrap(); 32]);
        assert_eq!(fixture.facts.open_service(made_up).await, Err(FactError::Unknown));
        assert_eq!(fixture.facts.open_service(made_up).await, Err(FactError::Unknown), "which is remembered");
    }
    assert_eq!(fixture.server.requests(), burst);
    let refused = fixture.facts.open_service(SERVICE).await.unwrap_err();
    assert_eq!(refused, FactError::Limited { retry_after: Duration::from_millis(200) });
    assert_eq!(Denial::from(refused).status(), 429);
    assert_eq!(fixture.server.requests(), burst);
    assert!(fixture.service().await.is_ok(), "those with a token are not limited");
    let open = fixture.facts.open_service(SERVICE).await.unwrap();
    assert_eq!(texts(&open), ["https://api.example.com/openapi.json"]);
    assert_eq!(fixture.facts.peek_open(SERVICE), Some(open));
}

#[tokio::test]
async fn a_balance_is_asked_for_every_time() {
    let fixture = Fixture::start().await;
    for balance in [3, 2, 0] {
        fixture.server.reply_to("/node", fake::ok(format!(r#"{{"id":1,"result":"0x{balance:064x}"}}"#)));
        let answer = fixture.facts.balance(CONTRACT.parse().unwrap(), HOLDER, PLAN).await;
        assert_eq!(answer, Ok(Credits::new(balance)));
    }
    assert_eq!(fixture.server.requests(), 3);
    assert_eq!(fixture.facts.node_calls().unwrap().answered.load(SeqCst), 3);
    fixture.server.reply_to("/node", Reply::Raw(Vec::new()));
    let failed = fixture.facts.balance(CONTRACT.parse().unwrap(), HOLDER, PLAN).await.unwrap_err();
    assert_eq!(failed.fault, Fault::Transport);
}
