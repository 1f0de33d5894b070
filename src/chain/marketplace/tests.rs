use std::time::Duration;

use serde_json::json;

use super::*;
use crate::chain::fake::{self, Reply, Server};

pub const SERVICE: Did = Did([0x11; 32]);
pub const PLAN: Did = Did([0x22; 32]);
pub const CONTRACT: &str = "0x5FbDB2315678afecb367f032d93F642f64180aa3";

/// The plan of nevermined.md section 7.3.
pub fn plan_ddo() -> Value {
    json!({"@context": "https://w3id.org/did/v1", "id": PLAN.to_string(), "created": "2024-01-01T00:00:00Z",
        "publicKey": [{"id": PLAN.to_string(), "type": "EthereumECDSAKey", "owner": "0xPublisher"}], "authentication": [],
        "proof": {"type": "DDOIntegritySignature", "created": "2024-01-01T00:00:00Z", "creator": "0xPublisher",
            "signatureValue": "", "checksum": {}},
        "service": [{"type": "metadata", "index": 0, "attributes": {"main": {"name": "Credits plan",
            "type": "subscription", "subscription": {"subscriptionType": "credits"}}}}]})
}

/// The service of nevermined.md section 7.3.
pub fn service_ddo() -> Value {
    json!({"@context": "https://w3id.org/did/v1", "id": SERVICE.to_string(), "created": "2024-01-01T00:00:00Z",
        "publicKey": [{"id": SERVICE.to_string(), "type": "EthereumECDSAKey", "owner": "0xPublisher"}],
        "authentication": [],
        "proof": {"type": "DDOIntegritySignature", "created": "2024-01-01T00:00:00Z", "creator": "0xCreator",
            "signatureValue": "", "checksum": {}},
        "service": [
            {"type": "metadata", "index": 0, "attributes": {"main": {"name": "API", "type": "service", "ercType": 1155,
                "nftType": "nft1155-credit", "webService": {"type": "RESTful",
                    "endpoints": [{"POST": "https://api.example.com/v1/(.*)"}],
                    "openEndpoints": ["https://api.example.com/openapi.json"],
                    "chargeType": "dynamic", "encryptedAttributes": "…"}}}},
            {"type": "nft-access", "index": 2, "attributes": {
                "main": {"name": "nft1155AccessAgreement", "creator": "0xPublisher", "nftAttributes": {
                    "amount": "2", "minCreditsRequired": "3", "minCreditsToCharge": "1", "maxCreditsToCharge": "10",
                    "tokenId": PLAN.digits(), "duration": 0}},
                "serviceAgreementTemplate": {"contractName": "NFTAccessTemplate", "conditions": [
                    {"name": "nftHolder", "contractName": "NFTHolderCondition", "functionName": "fulfill",
                        "parameters": [
                            {"name": "_did", "type": "bytes32", "value": SERVICE.digits()},
                            {"name": "_holderAddress", "type": "address", "value": ""},
                            {"name": "_numberNfts", "type": "uint256", "value": "1"},
                            {"name": "_contractAddress", "type": "address", "value": CONTRACT},
                            {"name": "_tokenId", "type": "bytes32", "value": PLAN.digits()}]}]}}}]})
}

pub fn with(mut ddo: Value, at: &str, value: Value) -> Value {
    *ddo.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value;
    ddo
}

pub fn without(mut ddo: Value, at: &str) -> Value {
    let (parent, name) = at.rsplit_once('/').unwrap();
    let parent = ddo.pointer_mut(parent).unwrap_or_else(|| panic!("{at}"));
    match parent {
        Value::Array(items) => drop(items.remove(name.parse().unwrap())),
        _ => drop(parent.as_object_mut().unwrap().remove(name).unwrap_or_else(|| panic!("{at}"))),
    }
    ddo
}

pub const MAIN: &str = "/service/0/attributes/main";
const NFT: &str = "/service/1/attributes/main/nftAttributes";
const CONDITIONS: &str = "/service/1/attributes/serviceAgreementTemplate/conditions";

fn plan(ddo: &Value) -> Result<PlanFacts, Failed> {
    parse_plan(PLAN, ddo.to_string().as_bytes())
}

fn service(ddo: &Value) -> Result<Described, Failed> {
    parse_service(SERVICE, ddo.to_string().as_bytes())
}

fn price(ddo: &Value) -> Price {
    service(ddo).unwrap().credits.unwrap().price.clone()
}

#[test]
fn only_time_waives_the_balance() {
    let kind = format!("{MAIN}/subscription/subscriptionType");
    for (written, read) in [
        (json!("credits"), PlanKind::Credits),
        (json!("time"), PlanKind::Time),
        (json!("both"), PlanKind::Credits),
        (json!(""), PlanKind::Credits),
        (json!("Time"), PlanKind::Credits),
        (json!("something new"), PlanKind::Credits),
        (json!(null), PlanKind::Credits),
    ] {
        assert_eq!(plan(&with(plan_ddo(), &kind, written.clone())), Ok(PlanFacts { kind: read }), "{written}");
    }
    for absent in [kind, format!("{MAIN}/subscription")] {
        assert_eq!(plan(&without(plan_ddo(), &absent)), Ok(PlanFacts { kind: PlanKind::Credits }), "{absent}");
    }
}

#[test]
fn a_service_is_read_whole() {
    let described = service(&service_ddo()).unwrap();
    let facts = ServiceFacts {
        service: SERVICE,
        plan: Some(PLAN),
        plan_kind: PlanKind::Credits,
        price: Price {
            charge_type: ChargeType::Dynamic,
            amount: Credits::new(2),
            minimum: Some(Credits::new(1)),
            maximum: Some(Credits::new(10)),
            required: Credits::new(3),
        },
        owner: "0xPublisher".to_owned(),
        creator: "0xCreator".to_owned(),
        source: CreditSource::Chain { contract: CONTRACT.parse().unwrap() },
        open_endpoints: vec!["https://api.example.com/openapi.json".to_owned()],
    };
    assert_eq!(*described.open, OpenService::new(SERVICE, facts.owner.clone(), &facts.open_endpoints));
    assert_eq!(described.time.plan_kind, PlanKind::Time);
    assert_eq!(described.time.plan, Some(PLAN));
    assert_eq!(described.time.price.most(), Credits::ZERO);
    assert_eq!(described.time.source, CreditSource::Local);
    for (claim, owns) in
        [("0xPublisher", true), ("0xCreator", true), ("0xpublisher", false), ("", false), ("0xSomebody", false)]
    {
        assert_eq!(facts.owned_by(claim), owns, "{claim}");
    }
    assert_eq!(*described.credits.unwrap(), facts);
}

#[test]
fn amounts_are_digits_or_numbers() {
    for (written, read) in [
        (json!("5"), 5),
        (json!(5), 5),
        (json!("0"), 0),
        (json!(0), 0),
        (json!("007"), 7),
        (json!("99999999999999999999999999"), i64::MAX as u64),
        (json!(u64::MAX), i64::MAX as u64),
    ] {
        let ddo = ["amount", "minCreditsRequired", "minCreditsToCharge", "maxCreditsToCharge"]
            .iter()
            .fold(service_ddo(), |ddo, name| with(ddo, &format!("{NFT}/{name}"), written.clone()));
        let read = Credits::new(read);
        let price = price(&ddo);
        assert_eq!((price.amount, price.minimum, price.maximum, price.required), (read, Some(read), Some(read), read));
    }
}

#[test]
fn what_is_absent_from_a_price_has_its_default() {
    let bounds = ["minCreditsRequired", "minCreditsToCharge", "maxCreditsToCharge"];
    let absent = bounds.iter().fold(service_ddo(), |ddo, name| without(ddo, &format!("{NFT}/{name}")));
    let null = bounds.iter().fold(service_ddo(), |ddo, name| with(ddo, &format!("{NFT}/{name}"), json!(null)));
    let empty = bounds.iter().fold(service_ddo(), |ddo, name| with(ddo, &format!("{NFT}/{name}"), json!("")));
    for ddo in [absent, null, empty] {
        let price = price(&ddo);
        assert_eq!((price.minimum, price.maximum, price.required), (None, None, Credits::new(1)));
    }
    let charge = format!("{MAIN}/webService/chargeType");
    assert_eq!(price(&without(service_ddo(), &charge)).charge_type, ChargeType::Fixed);
    assert_eq!(price(&with(service_ddo(), &charge, json!("fixed"))).charge_type, ChargeType::Fixed);
    assert_eq!(price(&without(service_ddo(), &format!("{MAIN}/webService"))).charge_type, ChargeType::Fixed);
}

#[test]
fn what_cannot_be_paid_with_credits_is_said_so_and_is_still_open_to_others() {
    for ddo in [
        without(service_ddo(), "/service/1"),
        with(service_ddo(), "/service/1/type", json!("access")),
        without(service_ddo(), NFT),
        with(service_ddo(), NFT, json!(null)),
        without(service_ddo(), "/service/1/attributes/serviceAgreementTemplate"),
        with(service_ddo(), CONDITIONS, json!([])),
        with(service_ddo(), &format!("{CONDITIONS}/0/name"), json!("nft721Holder")),
    ] {
        let described = service(&ddo).unwrap();
        assert_eq!(described.credits, Err(NOT_PAYABLE));
        assert_eq!(described.time.plan, None);
        assert_eq!(described.open.open_endpoints.len(), 1);
    }
}

#[test]
fn owners_and_open_endpoints_may_be_absent() {
    for ddo in [
        without(without(service_ddo(), "/publicKey"), "/proof"),
        without(without(service_ddo(), "/publicKey/0"), "/proof/creator"),
        without(without(service_ddo(), "/publicKey/0/owner"), "/proof"),
    ] {
        let facts = service(&without(ddo, &format!("{MAIN}/webService/openEndpoints"))).unwrap().credits.unwrap();
        assert_eq!((facts.owner.as_str(), facts.creator.as_str(), facts.open_endpoints.len()), ("", "", 0));
        assert!(!facts.owned_by(""));
    }
}

#[test]
fn the_first_of_several_elements_counts() {
    let mut ddo = service_ddo();
    let mut second = ddo["service"][1].clone();
    second["attributes"]["main"]["nftAttributes"]["amount"] = json!("99");
    let parts = ddo["service"].as_array_mut().unwrap();
    parts.push(second);
    parts.insert(0, json!({"type": "authorization", "index": 7, "attributes": "of no concern"}));
    parts.insert(0, json!({"type": "provenance"}));
    assert_eq!(price(&ddo).amount, Credits::new(2));
}

#[test]
fn what_is_misunderstood_is_never_an_answer() {
    let parameters = format!("{CONDITIONS}/0/parameters");
    let endpoints = format!("{MAIN}/webService/openEndpoints");
    let mut wrong = vec![
        with(service_ddo(), "/id", json!(PLAN.to_string())),
        with(service_ddo(), "/id", json!(SERVICE.digits())),
        with(service_ddo(), "/id", json!(7)),
        without(service_ddo(), "/id"),
        without(service_ddo(), "/service"),
        with(service_ddo(), "/service", json!({})),
        with(service_ddo(), "/service", json!([])),
        with(service_ddo(), "/service/0/type", json!("metadate")),
        without(service_ddo(), "/service/0/attributes"),
        without(service_ddo(), MAIN),
        with(service_ddo(), MAIN, json!([])),
        with(service_ddo(), MAIN, json!([{}])),
        with(service_ddo(), "/service/0", json!(["metadata", {"main": {}}])),
        with(service_ddo(), "/proof", json!(["0xCreator"])),
        with(service_ddo(), &format!("{MAIN}/webService"), json!("x")),
        with(service_ddo(), &format!("{MAIN}/webService/chargeType"), json!("dynamik")),
        with(service_ddo(), &format!("{MAIN}/webService/chargeType"), json!(1)),
        with(service_ddo(), &endpoints, json!("https://api.example.com/openapi.json")),
        with(service_ddo(), &endpoints, json!([{"GET": "https://api.example.com/openapi.json"}])),
        without(service_ddo(), "/service/1/attributes"),
        with(service_ddo(), "/service/1/attributes/main", json!(1)),
        with(service_ddo(), NFT, json!([1])),
        without(service_ddo(), &format!("{NFT}/amount")),
        with(service_ddo(), &format!("{NFT}/amount"), json!("")),
        with(service_ddo(), &format!("{parameters}/3/value"), json!("0xNft1155")),
        with(service_ddo(), &format!("{parameters}/3/value"), json!("0x5fbDB2315678afecb367f032d93F642f64180aa3")),
        with(service_ddo(), &format!("{parameters}/3/value"), json!(5)),
        without(service_ddo(), &format!("{parameters}/3")),
        with(service_ddo(), &format!("{parameters}/4/value"), json!("22")),
        with(service_ddo(), &format!("{parameters}/4/value"), json!(PLAN.to_string())),
        without(service_ddo(), &format!("{parameters}/4")),
        without(service_ddo(), &parameters),
        json!({"error": "not found"}),
        json!([service_ddo()]),
        json!(null),
    ];
    for amount in [
        json!("-1"),
        json!(-1),
        json!("1.5"),
        json!(1.5),
        json!(1.0),
        json!("+1"),
        json!(" 1"),
        json!("0x10"),
        json!("1e3"),
        json!(1e30),
        json!("one"),
        json!(true),
        json!([1]),
        json!({}),
        json!("٣"),
        json!("9".repeat(79)),
    ] {
        for name in ["amount", "minCreditsRequired", "minCreditsToCharge", "maxCreditsToCharge"] {
            wrong.push(with(service_ddo(), &format!("{NFT}/{name}"), amount.clone()));
        }
    }
    for ddo in wrong {
        let failed = service(&ddo).expect_err(&ddo.to_string());
        assert_eq!(failed.fault, Fault::Malformed, "{ddo}");
        assert!(failed.detail.chars().count() <= 200);
    }
    for ddo in [
        with(plan_ddo(), "/id", json!(SERVICE.to_string())),
        with(plan_ddo(), "/service", json!([])),
        with(plan_ddo(), &format!("{MAIN}/subscription"), json!("time")),
        with(plan_ddo(), &format!("{MAIN}/subscription/subscriptionType"), json!(["time"])),
    ] {
        assert_eq!(plan(&ddo).expect_err(&ddo.to_string()).fault, Fault::Malformed, "{ddo}");
    }
    let twice = plan_ddo().to_string().replacen("\"id\":", &format!("\"id\":\"{SERVICE}\",\"id\":"), 1);
    assert_eq!(parse_plan(PLAN, twice.as_bytes()).unwrap_err().fault, Fault::Malformed);
}

#[test]
fn the_did_may_be_written_in_either_case() {
    let did = Did([0xab; 32]);
    let upper = format!("did:nv:{}", "AB".repeat(32));
    assert!(parse_plan(did, with(plan_ddo(), "/id", json!(upper)).to_string().as_bytes()).is_ok());
}

fn at(url: &Url, timeout: Duration) -> Marketplace {
    let http = http::Options { timeout, extra_ca_pem: None };
    Marketplace::new(&Options { url: url.clone(), http, answer_limit: 64 * 1024 }).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_description_is_asked_for_where_it_is() {
    let server = Server::json(service_ddo().to_string()).await;
    for (base, path) in [("", ""), ("market", "/market"), ("market/", "/market"), ("a%20b/", "/a%20b")] {
        let described = at(&server.url.join(base).unwrap(), PATIENCE).service(SERVICE).await;
        assert_eq!(described.unwrap().unwrap(), service(&service_ddo()).unwrap());
        let line = format!("GET {path}/api/v1/metadata/assets/ddo/{SERVICE} HTTP/1.1\r\n");
        assert!(server.last().starts_with(&line), "{}", server.last());
    }
    server.reply(fake::ok(plan_ddo().to_string()));
    assert_eq!(at(&server.url, PATIENCE).plan(PLAN).await, Ok(Some(PlanFacts { kind: PlanKind::Credits })));
}

#[tokio::test]
async fn only_404_means_that_there_is_none() {
    let server = Server::start(fake::status("404 Not Found", r#"{"error":"not found"}"#)).await;
    let market = at(&server.url, PATIENCE);
    assert_eq!(market.plan(PLAN).await, Ok(None));
    assert_eq!(market.service(SERVICE).await, Ok(None));
    let body = plan_ddo().to_string();
    for status in [
        "301 Moved\r\nlocation: /elsewhere",
        "400 Bad",
        "401 No",
        "403 No",
        "410 Gone",
        "429 Slow",
        "500 Oops",
        "503 Later",
    ] {
        server.reply(fake::status(status, &body));
        assert_eq!(market.plan(PLAN).await.unwrap_err().fault, Fault::Status, "{status}");
    }
    assert_eq!(server.requests(), 10, "no redirect is followed");
}

#[tokio::test]
async fn a_broken_answer_is_none() {
    let whole = plan_ddo().to_string();
    let long = format!("{whole}{}", " ".repeat(70_000));
    for (reply, fault) in [
        (fake::ok(""), Fault::Malformed),
        (fake::ok("<html>"), Fault::Malformed),
        (fake::ok(&whole[..whole.len() - 1]), Fault::Malformed),
        (fake::ok(format!("{whole}x")), Fault::Malformed),
        (fake::ok("[".repeat(10_000)), Fault::Malformed),
        (fake::ok(b"\xff".as_slice()), Fault::Malformed),
        (fake::status("204 No Content", ""), Fault::Malformed),
        (fake::ok(&long), Fault::TooLarge),
        (Reply::Raw(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{long}").into_bytes()), Fault::TooLarge),
        (Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()), Fault::TooLarge),
        (Reply::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n{whole}").into_bytes()), Fault::Transport),
        (Reply::Raw(Vec::new()), Fault::Transport),
    ] {
        let server = Server::start(reply).await;
        let failed = at(&server.url, PATIENCE).plan(PLAN).await.unwrap_err();
        assert_eq!(failed.fault, fault, "{failed}");
        assert!(!failed.to_string().contains("127.0.0.1"), "{failed}");
    }
    let failed = at(&fake::nobody().await, PATIENCE).plan(PLAN).await.unwrap_err();
    assert_eq!(failed.fault, Fault::Transport, "{failed}");
    let server = Server::start(Reply::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec())).await;
    let failed = at(&server.url, Duration::from_millis(50)).plan(PLAN).await.unwrap_err();
    assert_eq!(failed.fault, Fault::Timeout, "{failed}");
}
