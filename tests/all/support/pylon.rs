//! Pylon, which reads the chain of neurons for others (nexus.md section 4), over `tests/data/nexus/registry.json`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use tollgate::tls::neuron::NeuronKey;

use super::{
    Reply, Settings,
    upstream::{Received, Upstream},
};

const REGISTRY: &str = include_str!("../../data/nexus/registry.json");
/// The token of the registry's identity.
pub const TOKEN: &str = "test-token";

/// A Pylon.
pub struct Pylon {
    pub server: Upstream,
    state: Arc<Mutex<State>>,
}

/// What it knows and how it behaves.
struct State {
    identity: String,
    netuid: u16,
    /// What `/identities` says, if not the truth.
    netuid_said: Option<u16>,
    /// None: like a Pylon before 2.0, which has no tokens and redirects nobody.
    token: Option<String>,
    /// None: like a Pylon before 1.2, which does not say.
    block: Option<u64>,
    certificates: BTreeMap<String, Value>,
    neurons: Option<Value>,
    /// None: nothing in its memory.
    recent_neurons: bool,
    /// Whose wallet the identity has.
    wallet: String,
    /// How many keys it has made: the seed of the next one is 32 times the next number.
    made: u8,
    /// What it answers after it has made and published a key, if not that key.
    made_answer: Option<Reply>,
    instead: Option<Reply>,
    instead_at: BTreeMap<String, Reply>,
    /// Other identities, each with what is asked as it.
    others: BTreeMap<String, State>,
}

impl Pylon {
    /// A Pylon of version 2.3 that knows the registry's certificates, with a token.
    pub fn start() -> Self {
        let registry: Value = serde_json::from_str(REGISTRY).unwrap();
        let (identity, netuid) = (registry["identity"].as_str().unwrap(), registry["netuid"].as_u64().unwrap());
        let mut state = State::new(identity, netuid.try_into().unwrap(), TOKEN);
        state.certificates = registry["certificates"].as_object().unwrap().clone().into_iter().collect();
        let state = Arc::new(Mutex::new(state));
        let server = Upstream::answering({
            let state = Arc::clone(&state);
            move |request| state.lock().unwrap().answer(request)
        });
        Self { server, state }
    }

    /// The same as it was before 1.2: neither tokens nor `/block/latest`.
    pub fn old() -> Self {
        let pylon = Self::start();
        (pylon.state().token, pylon.state().block) = (None, None);
        pylon
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        self.server.url("")
    }

    /// The sections of a gateway that asks it.
    pub fn configured(&self, settings: Settings, neurons: &str) -> Settings {
        let (url, netuid) = (self.url(), self.state().netuid);
        settings
            .with(&format!("[neurons]\nnetuid = {netuid}\n{neurons}"))
            .with(&format!("[pylon]\nurl = \"{url}\"\nidentity = \"miner\"\ntoken = \"{TOKEN}\"\n"))
    }

    /// Another identity, which belongs to another subnet, where nobody has published anything.
    pub fn add(&self, identity: &str, netuid: u16, token: &str) {
        let other = State::new(identity, netuid, token);
        self.state().others.insert(identity.to_owned(), other);
    }

    /// Publishes an Ed25519 key on the subnet of another identity.
    pub fn publish_for(&self, identity: &str, hotkey: &str, key: &[u8; 32]) {
        let entry = json!({"algorithm": 1, "public_key": alloy::hex::encode(key)});
        self.state().others.get_mut(identity).unwrap().certificates.insert(hotkey.to_owned(), entry);
    }

    /// Publishes an Ed25519 key, in a new block.
    pub fn publish(&self, hotkey: &str, key: &[u8; 32]) {
        self.put(hotkey, Some(json!({"algorithm": 1, "public_key": alloy::hex::encode(key)})));
    }

    /// Replaces an entry, or removes it, in a new block. An entry with `_status` is answered with that error.
    pub fn put(&self, hotkey: &str, entry: Option<Value>) {
        let mut state = self.state();
        match entry {
            Some(entry) => state.certificates.insert(hotkey.to_owned(), entry),
            None => state.certificates.remove(hotkey),
        };
        state.block = state.block.map(|block| block + 1);
    }

    /// Who is registered, as Pylon describes neurons: by hotkey.
    pub fn neurons(&self, neurons: &Value) {
        self.state().neurons = Some(json!({"block": {"number": 1, "hash": "0x00"}, "neurons": neurons}));
    }

    /// It has nothing in its memory and must ask the chain.
    pub fn forget_neurons(&self) {
        self.state().recent_neurons = false;
    }

    pub fn set_block(&self, block: u64) {
        self.state().block = Some(block);
    }

    /// The identity belongs to another subnet.
    pub fn set_netuid(&self, netuid: u16) {
        self.state().netuid = netuid;
    }

    /// `/identities` says so, whatever is true.
    pub fn say_netuid(&self, netuid: u16) {
        self.state().netuid_said = Some(netuid);
    }

    pub fn set_identity(&self, identity: &str) {
        identity.clone_into(&mut self.state().identity);
    }

    /// The identity has the wallet of this hotkey, which has published nothing.
    pub fn set_wallet(&self, hotkey: &str) {
        let mut state = self.state();
        for name in ["self", hotkey] {
            state.certificates.remove(name);
        }
        hotkey.clone_into(&mut state.wallet);
    }

    /// How many keys it has made.
    pub fn made(&self) -> u8 {
        self.state().made
    }

    /// It makes and publishes keys and answers with something else.
    pub fn answer_made(&self, reply: Option<Reply>) {
        self.state().made_answer = reply;
    }

    /// Answers everything with this.
    pub fn answer_instead(&self, reply: Option<Reply>) {
        self.state().instead = reply;
    }

    /// Answers what ends so with this.
    pub fn answer_at(&self, end: &str, reply: Option<Reply>) {
        match reply {
            Some(reply) => self.state().instead_at.insert(end.to_owned(), reply),
            None => self.state().instead_at.remove(end),
        };
    }

    /// How many requests there were whose path ends so.
    pub fn asked(&self, end: &str) -> usize {
        self.server.received().iter().filter(|request| request.path().ends_with(end)).count()
    }
}

fn problem(status: u16, detail: &str) -> String {
    json!({"status_code": status, "detail": detail}).to_string()
}

fn error(status: u16, detail: &str) -> Reply {
    Reply::status(status, problem(status, detail)).header("Content-Type", "application/json")
}

impl State {
    /// Version 2.3, where nobody has published anything.
    fn new(identity: &str, netuid: u16, token: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            netuid,
            netuid_said: None,
            token: Some(super::secret(token)),
            block: Some(1_000),
            certificates: BTreeMap::new(),
            neurons: None,
            recent_neurons: true,
            wallet: String::new(),
            made: 0,
            made_answer: None,
            instead: None,
            instead_at: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }

    fn answer(&mut self, request: &Received) -> Reply {
        let path = request.path();
        if let Some(reply) = &self.instead {
            return reply.clone();
        }
        if let Some((_, reply)) = self.instead_at.iter().find(|(end, _)| path.ends_with(end.as_str())) {
            return reply.clone();
        }
        let Some(path) = path.strip_prefix("/api/v1/") else { return error(404, "Not Found") };
        match path {
            "identities" => {
                let said = |state: &Self| (state.identity.clone(), state.netuid_said.unwrap_or(state.netuid));
                let all: BTreeMap<_, _> = self.others.values().map(said).chain([said(self)]).collect();
                return Reply::json(&json!({"identities": all}));
            }
            "block/latest" => {
                let known = |number| Reply::json(&json!({"number": number, "hash": "0x00", "timestamp": 0}));
                return self.block.map_or_else(|| error(404, "Not Found"), known);
            }
            _ => {}
        }
        let Some((identity, netuid, rest)) = scope(path) else { return error(404, "Not Found") };
        if let Some(other) = self.others.get_mut(identity) {
            return other.answer(request);
        }
        if let Some(refusal) = self.unauthorized(request, identity) {
            return refusal;
        }
        if netuid != self.netuid {
            if self.token.is_none() {
                return Reply::json(&json!({}));
            }
            let right = request.path().replacen(&format!("/subnet/{netuid}"), &format!("/subnet/{}", self.netuid), 1);
            return Reply::status(308, "{}").header("Location", &right);
        }
        if request.method == "POST" && rest == "certificates/self" { self.make(request) } else { self.read(rest) }
    }

    /// A new key of the wallet, made, published, and answered with.
    fn make(&mut self, request: &Received) -> Reply {
        let patience: u32 = request.header("x-pylon-timeout").map_or(60, |seconds| seconds.parse().unwrap());
        assert!((1..=300).contains(&patience), "{patience}");
        assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), json!({"algorithm": 1}));
        if self.wallet.is_empty() {
            return error(502, "Could not generate certificate pair.");
        }
        self.made += 1;
        let seed = [self.made; 32];
        let public = alloy::hex::encode(NeuronKey::from_seed(&seed).unwrap().public());
        for name in ["self", &self.wallet] {
            self.certificates.insert(name.to_owned(), json!({"algorithm": 1, "public_key": public}));
        }
        let pair = json!({"algorithm": 1, "public_key": public, "private_key": alloy::hex::encode(seed)});
        let answer = Reply::status(201, pair.to_string()).header("Content-Type", "application/json");
        self.made_answer.clone().unwrap_or(answer)
    }

    /// The order is the service's: shape of the header, identity, token.
    fn unauthorized(&self, request: &Received, identity: &str) -> Option<Reply> {
        let token = self.token.as_ref();
        let words: Vec<_> = request.header("authorization").unwrap_or_default().split_whitespace().collect();
        if token.is_some() && words.is_empty() {
            return Some(error(401, "Authorization header is required"));
        }
        if token.is_some() && (words.len() != 2 || !words[0].eq_ignore_ascii_case("bearer")) {
            return Some(error(401, "Invalid Authorization header format. Expected: Bearer <token>"));
        }
        if identity != self.identity {
            return Some(error(404, &format!("Identity '{identity}' not found")));
        }
        token.is_some_and(|token| words[1] != token).then(|| error(403, "Invalid authorization token"))
    }

    fn read(&self, rest: &str) -> Reply {
        let entry = |hotkey: &str| match self.certificates.get(hotkey) {
            None => error(404, "Certificate not found or error fetching."),
            Some(entry) => match entry["_status"].as_u64() {
                Some(status) => error(status.try_into().unwrap(), "Internal Server Error"),
                None => Reply::json(entry),
            },
        };
        match rest {
            "block/latest/certificates" => {
                let listed =
                    self.certificates.iter().filter(|(name, entry)| *name != "self" && entry["_status"].is_null());
                let listed: BTreeMap<_, _> = listed.collect();
                Reply::json(&json!(listed))
            }
            "block/recent/neurons" if !self.recent_neurons => error(503, "Neurons are not available"),
            "block/recent/neurons" | "block/latest/neurons" => {
                let none = || json!({"block": {"number": 1, "hash": "0x00"}, "neurons": {}});
                Reply::json(&self.neurons.clone().unwrap_or_else(none))
            }
            _ => rest.strip_prefix("block/latest/certificates/").map_or_else(|| error(404, "Not Found"), entry),
        }
    }
}

/// `identity/NAME/subnet/NUMBER/REST`
fn scope(path: &str) -> Option<(&str, u16, &str)> {
    let (identity, rest) = path.strip_prefix("identity/")?.split_once("/subnet/")?;
    let (netuid, rest) = rest.split_once('/')?;
    Some((identity, netuid.parse().ok()?, rest))
}
