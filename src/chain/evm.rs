//! Balances of an ERC-1155 contract, and signatures of accounts that are contracts, over JSON-RPC.
//!
//! Types and encoding are alloy's; the one HTTP request is ours. Alloy's own transport reads answers of any length, and
//! names the node's URL, which usually contains a key, in its tracing spans.

mod account;

use std::fmt;

use alloy::{
    primitives::{Address, U256},
    sol,
    sol_types::SolCall as _,
};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

pub use self::account::LONGEST_SIGNATURE;
use super::{
    fault::{Calls, Failed, Fault},
    http,
    http::Object,
};
use crate::model::{address::EvmAddress, credits::Credits, did::Did};

sol! {
    /// The part of ERC-1155 that we use.
    interface Erc1155 {
        /// How many of token `id` the `account` holds.
        function balanceOf(address account, uint256 id) external view returns (uint256);
    }
}

/// Where the node is and how it is asked.
#[derive(Clone)]
pub struct Options {
    /// Its address, which may contain a key.
    pub url: Url,
    /// How to reach it.
    pub http: http::Options,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("url", &"***").field("http", &self.http).finish()
    }
}

/// A node.
pub struct Evm {
    client: Client,
    url: Url,
    calls: Calls,
}

/// More than any answer to `balanceOf` or any honest error message needs.
const ANSWER_LIMIT: usize = 64 * 1024;

impl Evm {
    /// A node. Nothing is asked yet.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(options: &Options) -> Result<Self, http::ClientError> {
        let client = http::client(&options.url, &options.http)?;
        Ok(Self { client, url: options.url.clone(), calls: Calls::default() })
    }

    /// What `holder` has of token `id` at the latest block. Never more than [`Credits::MAX`].
    ///
    /// # Errors
    /// When the node could not be asked, or did not answer with exactly one number. An address without a contract
    /// answers nothing, so that too is an error.
    pub async fn balance(&self, contract: EvmAddress, holder: EvmAddress, id: Did) -> Result<Credits, Failed> {
        let call = self.calls.begin();
        let balance = self.call(Some(contract), balance_of(holder, id)).await.and_then(|answer| one_number(&answer));
        call.end(balance.as_ref().err());
        Ok(Credits::new(balance?.saturating_to()))
    }

    /// The questions so far.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// `eth_call` at the latest block. Without a recipient the input is code that is run.
    async fn call(&self, to: Option<EvmAddress>, input: Vec<u8>) -> Result<Vec<u8>, Failed> {
        let transaction = Transaction { to: to.map(|to| Address::from(to.0)), input: input.into() };
        let request = Request { jsonrpc: "2.0", id: 1, method: "eth_call", params: (transaction, "latest") };
        let response = self.client.post(self.url.clone()).json(&request).send().await.map_err(http::failed)?;
        let status = response.status();
        let body = http::read(response, ANSWER_LIMIT).await?;
        // Nodes also send their errors with other statuses than 200, and then the body says more.
        let Ok(Object(answer)) = serde_json::from_slice::<Object<Response>>(&body) else {
            return Err(if status.is_success() {
                malformed("the answer is not JSON-RPC")
            } else {
                Failed::new(Fault::Status, format!("the node answered {}", status.as_u16()))
            });
        };
        match answer {
            Response { error: Some(Object(error)), .. } => Err(self.refused(&error)),
            _ if !status.is_success() => {
                Err(Failed::new(Fault::Status, format!("the node answered {}", status.as_u16())))
            }
            Response { result: Some(result), id: Some(1), .. } => Ok(result.into()),
            _ => Err(malformed("the answer is not to our question")),
        }
    }

    fn refused(&self, error: &RpcError) -> Failed {
        // Code 3 is geth's; others say it in words only.
        let reverted = error.code == 3 || error.message.to_ascii_lowercase().contains("revert");
        let fault = if reverted { Fault::Reverted } else { Fault::Rpc };
        Failed::new(fault, format!("error {}: {}", error.code, self.harmless(&error.message)))
    }

    /// A message of the node's for the log: short, on one line, and without any part of the URL that may be a key.
    fn harmless(&self, message: &str) -> String {
        let query = self.url.query_pairs().map(|(_, value)| value.into_owned());
        let path = self.url.path_segments().into_iter().flatten().map(str::to_owned);
        let password = self.url.password().map(str::to_owned);
        let secrets = path.chain(query).chain(password).chain([self.url.username().to_owned()]);
        let message = secrets
            .filter(|part| part.len() >= 6)
            .fold(message.to_owned(), |message, part| message.replace(&part, "***"));
        message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
    }
}

fn balance_of(holder: EvmAddress, id: Did) -> Vec<u8> {
    Erc1155::balanceOfCall { account: Address::from(holder.0), id: U256::from_be_bytes(id.0) }.abi_encode()
}

fn one_number(answer: &[u8]) -> Result<U256, Failed> {
    let word: [u8; 32] = answer
        .try_into()
        .map_err(|_| malformed(&format!("balanceOf answered {} bytes instead of 32", answer.len())))?;
    Ok(U256::from_be_bytes(word))
}

fn malformed(detail: &str) -> Failed {
    Failed::new(Fault::Malformed, detail)
}

#[derive(Serialize)]
struct Request {
    jsonrpc: &'static str,
    id: u64,
    method: &'static str,
    params: (Transaction, &'static str),
}

#[derive(Serialize)]
struct Transaction {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Address>,
    /// `data` is the older name, which every node understands.
    #[serde(rename = "data")]
    input: alloy::primitives::Bytes,
}

#[derive(Deserialize)]
struct Response {
    id: Option<u64>,
    result: Option<alloy::primitives::Bytes>,
    error: Option<Object<RpcError>>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    #[serde(default)]
    message: String,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chain::fake::{self, Reply, Server};

    const HOLDER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
    const ID: &str = "36fdd6f76f1327a934b42fa4d34efce4fe38d6307d549b0f351164e22cf8adfa";
    const CONTRACT: &str = "0x5fbdb2315678afecb367f032d93f642f64180aa3";
    const CALLDATA: &str = "0x00fdd58e0000000000000000000000003c44cdddb6a900fa2b585dd299e03d12fa4293bc36fdd6f76f1327a934b42fa4d34efce4fe38d6307d549b0f351164e22cf8adfa";

    fn at(url: Url, timeout: Duration) -> Evm {
        Evm::new(&Options { url, http: http::Options { timeout, extra_ca_pem: None } }).unwrap()
    }

    async fn ask(evm: &Evm) -> Result<Credits, Failed> {
        evm.balance(CONTRACT.parse().unwrap(), HOLDER.parse().unwrap(), Did::from_digits(ID).unwrap()).await
    }

    async fn ask_at(url: &Url) -> Result<Credits, Failed> {
        ask(&at(url.clone(), Duration::from_secs(10))).await
    }

    fn result(words: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":"0x{words}"}}"#)
    }

    #[test]
    fn the_question_is_the_reference_s() {
        let calldata = balance_of(HOLDER.parse().unwrap(), Did::from_digits(ID).unwrap());
        assert_eq!(alloy::hex::encode_prefixed(calldata), CALLDATA);
    }

    #[tokio::test]
    async fn one_question_one_balance() {
        let server = Server::json(result(&format!("{:064x}", 42))).await;
        let evm = at(server.url.join("v3/key").unwrap(), Duration::from_secs(10));
        assert_eq!(ask(&evm).await, Ok(Credits::new(42)));
        let last = server.last();
        assert!(last.starts_with("POST /v3/key HTTP/1.1\r\n"), "{last}");
        let (_, body) = last.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(body).unwrap(),
            serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "eth_call",
                "params": [{"to": CONTRACT, "data": CALLDATA}, "latest"]}),
        );
        assert_eq!(server.requests(), 1);
        assert_eq!(evm.calls().answered.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(evm.calls().in_flight.load(std::sync::atomic::Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_balance_beyond_our_numbers_is_the_most_there_is() {
        for word in [
            "f".repeat(64),
            format!("{:064x}", u64::MAX),
            format!("{:064x}", 1_u128 << 64),
            format!("1{}", "0".repeat(63)),
        ] {
            let server = Server::json(result(&word)).await;
            assert_eq!(ask_at(&server.url).await, Ok(Credits::MAX), "{word}");
        }
        let server = Server::json(result(&"0".repeat(64))).await;
        assert_eq!(ask_at(&server.url).await, Ok(Credits::ZERO));
    }

    #[tokio::test]
    async fn no_wrong_answer_is_a_balance() {
        use Fault::{Malformed, Reverted, Rpc, Status, TooLarge, Transport};
        let word = format!("{:064x}", 42);
        let error = |code: i64, message: &str| {
            fake::ok(format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"{message}"}}}}"#))
        };
        for (reply, fault) in [
            (fake::ok(result("")), Malformed), // an address without a contract
            (fake::ok(result(&word[2..])), Malformed),
            (fake::ok(result(&format!("{word}00"))), Malformed),
            (fake::ok(result(&format!("{word}{word}"))), Malformed),
            (fake::ok(result("zz")), Malformed),
            (fake::ok(r#"{"jsonrpc":"2.0","id":1,"result":42}"#), Malformed),
            (fake::ok(r#"{"jsonrpc":"2.0","id":1,"result":null}"#), Malformed),
            (fake::ok(r#"{"jsonrpc":"2.0","id":1}"#), Malformed),
            (fake::ok(result(&word).replace("\"id\":1", "\"id\":2")), Malformed),
            (fake::ok(format!("[{}]", result(&word))), Malformed),
            (fake::ok(format!(r#"[1, "0x{word}", null]"#)), Malformed),
            (fake::ok(""), Malformed),
            (fake::ok("<html>"), Malformed),
            (fake::ok(b"\xff\xfe".as_slice()), Malformed),
            (fake::status("500 Internal Server Error", "oops"), Status),
            (fake::status("429 Too Many Requests", result(&word)), Status),
            (fake::status("302 Found\r\nlocation: http://127.0.0.1:1/", ""), Status),
            (error(3, "execution reverted"), Reverted),
            (error(-32000, "VM Exception: REVERT opcode"), Reverted),
            (error(-32005, "limit exceeded"), Rpc),
            (fake::status("429 Too Many Requests", r#"{"id":null,"error":{"code":-32005}}"#), Rpc),
            (fake::ok(format!(r#"{{"id":1,"result":"0x{word}","error":{{"code":1,"message":""}}}}"#)), Rpc),
            (fake::ok(result(&"0".repeat(100_000))), TooLarge),
            (
                Reply::Raw(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
                        .iter()
                        .copied()
                        .chain(std::iter::repeat_n(b' ', 100_000))
                        .collect(),
                ),
                TooLarge,
            ),
            (Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_vec()), Transport),
            (Reply::Raw(b"".to_vec()), Transport),
            (Reply::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()), Transport),
        ] {
            let (Reply::Raw(bytes) | Reply::Hang(bytes)) = &reply;
            let bytes = String::from_utf8_lossy(bytes).chars().take(200).collect::<String>();
            let server = Server::start(reply).await;
            let failed = ask_at(&server.url).await.expect_err(&bytes);
            assert_eq!(failed.fault, fault, "{bytes}: {failed}");
        }
    }

    #[tokio::test]
    async fn a_late_answer_is_no_answer() {
        for head in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
            let server = Server::start(Reply::Hang(head.as_bytes().to_vec())).await;
            let evm = at(server.url.clone(), Duration::from_millis(50));
            assert_eq!(ask(&evm).await.unwrap_err().fault, Fault::Timeout, "{head}");
            assert_eq!(evm.calls().failed(Fault::Timeout), 1);
        }
    }

    #[tokio::test]
    async fn the_key_in_the_address_never_shows() {
        let key = "s3cr3t-k3y";
        let secret = |url: &Url| {
            let mut url = url.join(&format!("v3/{key}?apikey={key}")).unwrap();
            url.set_password(Some(key)).unwrap();
            url
        };
        let telling =
            Server::json(format!(r#"{{"id":1,"error":{{"code":-1,"message":"project {key}\n is {key}"}}}}"#)).await;
        let hanging = Server::start(Reply::Hang(Vec::new())).await;
        let broken = Server::start(Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_vec())).await;
        for url in [&telling.url, &hanging.url, &broken.url, &fake::nobody().await] {
            let evm = at(secret(url), Duration::from_millis(200));
            let failed = ask(&evm).await.unwrap_err();
            let text = format!("{failed} {failed:?}");
            assert!(!text.contains(key) && !text.contains('\n'), "{text}");
            assert!(!text.contains("127.0.0.1"), "{text}");
        }
        let options =
            Options { url: secret(&telling.url), http: http::Options { timeout: Duration::ZERO, extra_ca_pem: None } };
        assert!(!format!("{options:?}").contains(key));
    }
}
