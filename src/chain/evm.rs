//! Balances of an ERC-1155 contract, over JSON-RPC.
//!
//! Types and encoding are alloy's; the one HTTP request is ours. Alloy's own transport reads answers of any length, and
//! names the node's URL, which usually contains a key, in its tracing spans.

use std::fmt;

use alloy::{
    primitives::{Address, U256},
    sol,
    sol_types::SolCall as _,
};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use super::{Calls, Failed, Fault, http};
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
        let balance = self.call(contract, balance_of(holder, id)).await.and_then(|answer| one_number(&answer));
        call.end(balance.as_ref().err());
        Ok(Credits::new(balance?.saturating_to()))
    }

    /// The questions so far.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// `eth_call` at the latest block.
    async fn call(&self, to: EvmAddress, input: Vec<u8>) -> Result<Vec<u8>, Failed> {
        let transaction = Transaction { to: Address::from(to.0), input: input.into() };
        let request = Request { jsonrpc: "2.0", id: 1, method: "eth_call", params: (transaction, "latest") };
        let response = self.client.post(self.url.clone()).json(&request).send().await.map_err(http::failed)?;
        let status = response.status();
        let body = http::read(response, ANSWER_LIMIT).await?;
        // Nodes also send their errors with other statuses than 200, and then the body says more.
        let Ok(answer) = serde_json::from_slice::<Response>(&body) else {
            return Err(if status.is_success() {
                malformed("the answer is not JSON-RPC")
            } else {
                Failed::new(Fault::Status, format!("the node answered {}", status.as_u16()))
            });
        };
        match answer {
            Response { error: Some(error), .. } => Err(self.refused(&error)),
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
    to: Address,
    /// `data` is the older name, which every node understands.
    #[serde(rename = "data")]
    input: alloy::primitives::Bytes,
}

#[derive(Deserialize)]
struct Response {
    id: Option<u64>,
    result: Option<alloy::primitives::Bytes>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    #[serde(default)]
    message: String,
}
