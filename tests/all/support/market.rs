//! A marketplace that describes services (nevermined.md section 7.3), and a node that knows balances.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tollgate::model::{address::EvmAddress, did::Did};

use super::{
    token::{OWNER, PLAN, SERVICE},
    upstream::{Gate, Received, Reply, Upstream},
};

/// Where the credits of the marketplace's services are.
pub const CONTRACT: EvmAddress = EvmAddress([0xc0; 20]);

type Documents = Arc<Mutex<HashMap<Did, Value>>>;

/// A marketplace.
pub struct Market {
    pub server: Upstream,
    documents: Documents,
    /// What it answers instead, if anything.
    instead: Arc<Mutex<Option<Reply>>>,
}

impl Market {
    /// Knows the service and the plan that tokens of tests are for.
    pub fn start() -> Self {
        let market = Self::empty();
        market.put(PLAN, plan(PLAN, "credits"));
        market.put(SERVICE, Service::default().document());
        market
    }

    pub fn empty() -> Self {
        let documents = Documents::default();
        let instead: Arc<Mutex<Option<Reply>>> = Arc::default();
        let server = Upstream::answering({
            let (documents, instead) = (Arc::clone(&documents), Arc::clone(&instead));
            move |request| {
                if let Some(reply) = instead.lock().unwrap().clone() {
                    return reply;
                }
                let did = request
                    .target
                    .strip_prefix("/api/v1/metadata/assets/ddo/")
                    .and_then(|did| did.replace("%3A", ":").parse().ok());
                match did.and_then(|did: Did| documents.lock().unwrap().get(&did).cloned()) {
                    Some(document) => Reply::json(&document),
                    None => Reply::status(404, r#"{"error":"not found"}"#).header("Content-Type", "application/json"),
                }
            }
        });
        Self { server, documents, instead }
    }

    pub fn put(&self, did: Did, document: Value) {
        self.documents.lock().unwrap().insert(did, document);
    }

    pub fn answer_instead(&self, reply: Option<Reply>) {
        *self.instead.lock().unwrap() = reply;
    }

    pub fn url(&self) -> String {
        self.server.url("")
    }
}

/// A plan's document.
pub fn plan(did: Did, kind: &str) -> Value {
    document(
        did,
        &json!([{"type": "metadata", "index": 0, "attributes": {"main":
        {"name": "Plan", "type": "subscription", "subscription": {"subscriptionType": kind}}}}]),
    )
}

fn document(did: Did, service: &Value) -> Value {
    let (id, owner) = (did.to_string(), OWNER.checksummed());
    json!({"@context": "https://w3id.org/did/v1", "id": id, "created": "2024-01-01T00:00:00Z",
        "publicKey": [{"id": id, "type": "EthereumECDSAKey", "owner": owner}], "authentication": [],
        "proof": {"type": "DDOIntegritySignature", "created": "2024-01-01T00:00:00Z", "creator": owner, "signatureValue": "", "checksum": {}},
        "service": service})
}

/// A service's document.
pub struct Service {
    pub did: Did,
    pub plan: Did,
    pub charge: &'static str,
    pub amount: Value,
    pub minimum: Value,
    pub maximum: Value,
    pub open: Vec<String>,
}

impl Default for Service {
    fn default() -> Self {
        let (amount, minimum, maximum) = (json!("1"), json!("1"), json!("10"));
        Self { did: SERVICE, plan: PLAN, charge: "fixed", amount, minimum, maximum, open: Vec::new() }
    }
}

impl Service {
    pub fn document(&self) -> Value {
        let digits = self.plan.digits();
        document(
            self.did,
            &json!([
            {"type": "metadata", "index": 0, "attributes": {"main": {"name": "API", "type": "service", "ercType": 1155,
                "nftType": "nft1155-credit", "webService": {"type": "RESTful", "endpoints": [], "openEndpoints": self.open,
                "chargeType": self.charge, "encryptedAttributes": "…"}}}},
            {"type": "nft-access", "index": 2, "attributes": {"main": {"name": "nft1155AccessAgreement", "creator": OWNER.checksummed(),
                "nftAttributes": {"amount": self.amount, "minCreditsRequired": "1", "minCreditsToCharge": self.minimum,
                    "maxCreditsToCharge": self.maximum, "tokenId": digits, "duration": 0}},
              "serviceAgreementTemplate": {"contractName": "NFTAccessTemplate", "conditions": [{"name": "nftHolder",
                "contractName": "NFTHolderCondition", "functionName": "fulfill", "parameters": [
                    {"name": "_did", "type": "bytes32", "value": self.did.digits()},
                    {"name": "_holderAddress", "type": "address", "value": ""},
                    {"name": "_numberNfts", "type": "uint256", "value": "1"},
                    {"name": "_contractAddress", "type": "address", "value": CONTRACT.checksummed()},
                    {"name": "_tokenId", "type": "bytes32", "value": digits}]}]}}}]),
        )
    }
}

/// A JSON-RPC node that answers `balanceOf`.
pub struct Node {
    pub server: Upstream,
    balances: Arc<Mutex<HashMap<String, u64>>>,
    instead: Arc<Mutex<Option<Reply>>>,
    calls: Arc<AtomicUsize>,
}

impl Node {
    pub fn start() -> Self {
        let balances: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
        let instead: Arc<Mutex<Option<Reply>>> = Arc::default();
        let calls = Arc::<AtomicUsize>::default();
        let server = Upstream::answering({
            let (balances, instead, calls) = (Arc::clone(&balances), Arc::clone(&instead), Arc::clone(&calls));
            move |request| {
                calls.fetch_add(1, Ordering::SeqCst);
                instead.lock().unwrap().clone().unwrap_or_else(|| answer(request, &balances.lock().unwrap()))
            }
        });
        Self { server, balances, instead, calls }
    }

    pub fn set(&self, holder: EvmAddress, credits: u64) {
        self.balances.lock().unwrap().insert(digits(holder), credits);
    }

    pub fn answer_instead(&self, reply: Option<Reply>) {
        *self.instead.lock().unwrap() = reply;
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        self.server.url("/")
    }
}

fn digits(holder: EvmAddress) -> String {
    holder.to_string().trim_start_matches("0x").to_ascii_lowercase()
}

fn answer(request: &Received, balances: &HashMap<String, u64>) -> Reply {
    let call: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(call["method"], "eth_call", "{call}");
    let to = call["params"][0]["to"].as_str().unwrap();
    assert!(to.eq_ignore_ascii_case(&CONTRACT.to_string()), "{call}");
    let parameters = &call["params"][0];
    let data = parameters["input"].as_str().or(parameters["data"].as_str()).unwrap();
    let (selector, arguments) = data.trim_start_matches("0x").split_at(8);
    assert_eq!(selector, "00fdd58e");
    let balance = balances.get(&arguments[24..64]).copied().unwrap_or(0);
    Reply::json(&json!({"jsonrpc": "2.0", "id": call["id"], "result": format!("0x{balance:064x}")}))
}

/// Answers that are no answers.
pub fn nonsense() -> [(&'static str, Reply); 5] {
    [
        ("garbage", Reply::ok("<html>no</html>")),
        ("another document", Reply::json(&json!({"jsonrpc": "2.0", "id": 1, "result": {}}))),
        ("an error", Reply::json(&json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}}))),
        ("a failure", Reply::status(500, "broken")),
        ("nothing", Reply::After(Gate::closed(), Box::new(Reply::ok("")))),
    ]
}
