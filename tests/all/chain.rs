//! Balances from a real node: anvil, whose path is in `TOLLGATE_TEST_ANVIL`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use alloy::primitives::{Address, Bytes, eip191_hash_message, hex};
use serde_json::{Value, json};
use tollgate::{
    chain::{
        evm::{Evm, Options},
        fault::Fault,
        http,
    },
    model::{address::EvmAddress, credits::Credits, did::Did},
};
use url::Url;

use crate::support::{
    gateway::{Gateway, Settings},
    oauth::Server,
};

/// A contract with `balanceOf(address,uint256)`; any other call stores its third word as the balance of the first
/// (holder) and the second (id). Balances are kept at holder xor id. `balanceOf` of nobody reverts, as ERC-1155 does.
///
/// ```text
/// 00 push1 37 dup1 push1 0b push1 00 codecopy push1 00 return        constructor: give back what follows
///
/// 00 push1 00 calldataload push1 e0 shr push3 fdd58e eq push1 1a jumpi
/// 0e push1 44 calldataload push1 24 calldataload push1 04 calldataload xor sstore stop
/// 1a jumpdest push1 04 calldataload iszero push1 32 jumpi
/// 22 push1 24 calldataload push1 04 calldataload xor sload push1 00 mstore push1 20 push1 00 return
/// 32 jumpdest push1 00 dup1 revert
/// ```
const CONTRACT: &str = "0x603780600b6000396000f3\
    60003560e01c62fdd58e14601a57\
    604435602435600435185500\
    5b60043515603257\
    602435600435185460005260206000f3\
    5b600080fd";

/// Anvil's first account, which it signs for.
const FUNDED: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";

struct Anvil {
    process: Child,
    url: Url,
}

impl Anvil {
    #[expect(clippy::disallowed_methods, reason = "a test is told where its tools are")]
    fn start() -> Self {
        let path = std::env::var("TOLLGATE_TEST_ANVIL").expect("TOLLGATE_TEST_ANVIL must be the path of anvil");
        let mut process =
            Command::new(path).args(["--port", "0", "--host", "127.0.0.1"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned)).unwrap();
        // Keep reading, so that anvil never waits for us.
        std::thread::spawn(move || lines.count());
        Self { process, url: Url::parse(&format!("http://{address}/")).unwrap() }
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        let client = http::client(&self.url, &patience()).unwrap();
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer: Value = client.post(self.url.clone()).json(&request).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer.get("error"), None, "{method}");
        answer["result"].clone()
    }

    /// Sends a transaction, which anvil mines at once, and returns its receipt.
    async fn send(&self, mut transaction: Value) -> Value {
        transaction["from"] = json!(FUNDED);
        let hash = self.rpc("eth_sendTransaction", json!([transaction])).await;
        let begun = std::time::Instant::now();
        let mut receipt = Value::Null;
        // It is mined at once, and its receipt may be a moment later.
        while receipt.is_null() && begun.elapsed() < Duration::from_secs(20) {
            receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await;
        }
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn patience() -> http::Options {
    http::Options { timeout: Duration::from_secs(20), extra_ca_pem: None }
}

#[tokio::test]
async fn balances_come_from_the_contract() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let anvil = Anvil::start();
    let receipt = anvil.send(json!({"data": CONTRACT})).await;
    let contract: EvmAddress = receipt["contractAddress"].as_str().unwrap().parse().unwrap();
    let holder = EvmAddress([0xab; 20]);
    let (plan, other) = (Did([0x22; 32]), Did([0x33; 32]));
    let holder_word = format!("{}{}", "00".repeat(12), "ab".repeat(20));
    let set = |amount: String| json!({"to": contract.to_string(), "data": format!("0x00000001{holder_word}{}{amount}", plan.digits())});

    let evm = Evm::new(&Options { url: anvil.url.clone(), http: patience() }).unwrap();
    assert_eq!(evm.balance(contract, holder, plan).await, Ok(Credits::ZERO));
    anvil.send(set(format!("{:064x}", 100))).await;
    assert_eq!(evm.balance(contract, holder, plan).await, Ok(Credits::new(100)));
    assert_eq!(evm.balance(contract, holder, other).await, Ok(Credits::ZERO));
    anvil.send(set("f".repeat(64))).await;
    assert_eq!(evm.balance(contract, holder, plan).await, Ok(Credits::MAX));

    let nobody = evm.balance(contract, EvmAddress([0; 20]), plan).await.unwrap_err();
    assert_eq!(nobody.fault, Fault::Reverted, "{nobody}");
    let nowhere = evm.balance(EvmAddress([9; 20]), holder, plan).await.unwrap_err();
    assert_eq!(nowhere.fault, Fault::Malformed, "an address without a contract has no balances: {nowhere}");

    drop(anvil);
    let gone = evm.balance(contract, holder, plan).await.unwrap_err();
    assert_eq!(gone.fault, Fault::Transport, "{gone}");
}

/// A wallet that takes a signature for its own if it begins with what was signed; anything else it throws at.
///
/// ```text
/// 00 push1 64 calldataload push1 04 calldataload eq push1 0e jumpi push1 00 dup1 revert
/// 0e jumpdest push4 1626ba7e push1 e0 shl push1 00 mstore push1 20 push1 00 return
/// ```
const WALLET: &str = "601f80600b6000396000f3606435600435146\
    00e57600080fd5b631626ba7e60e01b60005260206000f3";

/// A contract that deploys what it is sent, behind a salt, at an address that depends on both alone. Anvil has it.
const DEPLOYER: &str = "0x4e59b44847b379578588920ca78fbf26c0b4956c";

#[tokio::test]
async fn contracts_say_which_signatures_are_theirs() {
    use alloy::sol_types::SolValue as _;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let anvil = Anvil::start();
    let receipt = anvil.send(json!({"data": format!("0x{WALLET}")})).await;
    let wallet: EvmAddress = receipt["contractAddress"].as_str().unwrap().parse().unwrap();
    let evm = Evm::new(&Options { url: anvil.url.clone(), http: patience() }).unwrap();
    let (signed, other) = ([0x5a; 32], [0x5b; 32]);
    let nobody = EvmAddress([9; 20]);
    let accepts = async |account, digest, signature: &[u8]| evm.accepts_signature(account, digest, signature).await;

    assert_eq!(accepts(wallet, signed, &signed).await, Ok(true));
    assert_eq!(accepts(wallet, signed, &[signed.as_slice(), b"and more"].concat()).await, Ok(true));
    assert_eq!(accepts(wallet, signed, &other).await, Ok(false), "a contract that throws has said no");
    assert_eq!(accepts(wallet, signed, &[]).await, Ok(false));
    assert_eq!(accepts(nobody, signed, &signed).await, Ok(false), "there is no contract");
    assert_eq!(accepts(wallet, signed, &vec![0x5a; 20_000]).await, Ok(false), "too long to be asked for");

    // ERC-6492: not deployed yet.
    let code = hex::decode(WALLET).unwrap();
    let deployer: Address = DEPLOYER.parse().unwrap();
    let salt = [7; 32];
    let address = deployer.create2_from_code(salt, &code);
    let account = EvmAddress(address.into());
    let deploy = Bytes::from([salt.as_slice(), &code].concat());
    let wrap = |factory: Address, deploy: &Bytes, inner: &[u8]| {
        let inner = Bytes::copy_from_slice(inner);
        let mut wrapped = (factory, deploy.clone(), inner).abi_encode_params();
        wrapped.extend([0x64, 0x92].repeat(16));
        wrapped
    };
    assert_eq!(accepts(account, signed, &signed).await, Ok(false), "not deployed");
    assert_eq!(accepts(account, signed, &wrap(deployer, &deploy, &signed)).await, Ok(true));
    assert_eq!(accepts(account, other, &wrap(deployer, &deploy, &signed)).await, Ok(false));
    assert_eq!(accepts(account, signed, &wrap(deployer, &deploy, &other)).await, Ok(false));
    assert_eq!(accepts(nobody, signed, &wrap(deployer, &deploy, &signed)).await, Ok(false), "it deploys another one");
    assert_eq!(
        accepts(account, signed, &wrap(Address::ZERO, &deploy, &signed)).await,
        Ok(false),
        "that deploys nothing"
    );
    assert_eq!(
        accepts(wallet, signed, &wrap(Address::ZERO, &Bytes::new(), &signed)).await,
        Ok(true),
        "deployed already"
    );
    assert_eq!(accepts(account, signed, &[0x64, 0x92].repeat(16)).await, Ok(false), "nothing before the mark");
    assert_eq!(accepts(account, signed, &[[0xff; 96].as_slice(), &[0x64, 0x92].repeat(16)].concat()).await, Ok(false));
    assert_eq!(anvil.rpc("eth_getCode", json!([address, "latest"])).await, "0x", "nothing stays");

    drop(anvil);
    assert_eq!(accepts(wallet, signed, &signed).await.unwrap_err().fault, Fault::Transport, "nobody knows");
}

/// Whoever may sign for a contract signs in as it, and nobody else does; while the node is away nobody knows.
#[tokio::test]
async fn a_contract_signs_in() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let anvil = Anvil::start();
    let receipt = anvil.send(json!({"data": format!("0x{WALLET}")})).await;
    let wallet: EvmAddress = receipt["contractAddress"].as_str().unwrap().parse().unwrap();
    let keys = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::prepare(Settings::file().with(&format!(
        "[chain]\nrpc = \"{}\"\n[oauth]\npublic_url = \"http://localhost:3000\"\nproduction = false\nsigning_keys = {:?}\n\
         [oauth.limits]\nchallenges = 1000\n[[route]]\nname = \"sign-in\"\nupstream = \"authorization-server\"\n",
        anvil.url,
        keys.path()
    )));
    gateway.cli(&["key", "generate", "--algorithm", "ES256"]);
    gateway.launch();
    gateway.ready();
    let server = Server { gateway, database: None };

    let answer = |address: EvmAddress, sign: &dyn Fn(&str) -> Vec<u8>| {
        let address = address.checksummed();
        let challenge = server.post_json("/v1/auth/challenge", &json!({ "address": address })).json();
        let nonce = challenge["nonce"].as_str().unwrap();
        let signature = hex::encode_prefixed(sign(nonce));
        let body = json!({ "nonce": nonce, "address": address, "signature": signature });
        server.post_json("/v1/auth/verify", &body).status
    };
    let digest = |text: &str| eip191_hash_message(text).to_vec();
    assert_eq!(answer(wallet, &digest), 200);
    assert_eq!(answer(wallet, &|_| vec![0x5b; 32]), 401, "the contract says no");
    assert_eq!(answer(EvmAddress([9; 20]), &digest), 401, "there is no contract");
    drop(anvil);
    assert_eq!(answer(wallet, &digest), 503);
}
