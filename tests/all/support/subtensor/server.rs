//! The node's socket: JSON-RPC 2.0 over HTTP and `WebSocket`.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use soketto::handshake::server::Response as Handshake;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::{super::run, Chain, Subscriber, Subscription, Trouble, hex, mine_soon};

/// A JSON-RPC error: its code and its message.
pub(super) type RpcError = (i64, String);

/// Ends with its connections when it is dropped.
pub(super) struct Server(watch::Sender<()>);

type Shared = Arc<Mutex<Chain>>;

impl Server {
    pub(super) async fn start(address: SocketAddr, chain: Shared) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (alive, ended) = watch::channel(());
        let accept = {
            let ended = ended.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(alive_until(ended.clone(), serve(Arc::clone(&chain), stream)));
                }
            }
        };
        tokio::spawn(alive_until(ended, accept));
        Self(alive)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also waits until the socket is free again.
        let _ = self.0.send(());
        run(self.0.closed());
    }
}

async fn serve(chain: Shared, stream: TcpStream) {
    let Some(upgrades) = wants_to_upgrade(&stream).await else { return };
    let refused = match chain.lock().unwrap().trouble {
        Some(Trouble::Status(status)) => Some(status),
        _ => None,
    };
    if !upgrades {
        let service = service_fn(move |request| answer_http(Arc::clone(&chain), request, refused));
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        return;
    }
    let mut handshake = soketto::handshake::Server::new(stream.compat());
    let Ok(request) = handshake.receive_request().await else { return };
    let response = match refused {
        Some(status_code) => Handshake::Reject { status_code },
        None => Handshake::Accept { key: request.key(), protocol: None },
    };
    if handshake.send_response(&response).await.is_ok() && refused.is_none() {
        converse(chain, handshake.into_builder().finish()).await;
    }
}

/// Whether the first request is for a `WebSocket`. None: there is none.
async fn wants_to_upgrade(stream: &TcpStream) -> Option<bool> {
    let mut head = [0; 4096];
    loop {
        let read = stream.peek(&mut head).await.ok().filter(|read| *read > 0)?;
        let text = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
        if text.contains("\r\n\r\n") {
            return Some(text.contains("upgrade: websocket"));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs something until the server ends.
async fn alive_until(mut ended: watch::Receiver<()>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = ended.changed() => {}
    }
}

async fn answer_http(
    chain: Shared,
    request: Request<Incoming>,
    refused: Option<u16>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let plain = |status: u16, body: String| Response::builder().status(status).body(Full::new(body.into())).unwrap();
    if let Some(status) = refused {
        return Ok(plain(status, "no".to_owned()));
    }
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    match answer(&chain, &body, None) {
        Some(text) => Ok(plain(200, text)),
        None => std::future::pending().await,
    }
}

type Socket<T> = (soketto::Sender<T>, soketto::Receiver<T>);

async fn converse<T>(chain: Shared, (mut sender, mut receiver): Socket<T>)
where
    T: futures_util::io::AsyncRead + futures_util::io::AsyncWrite + Unpin + Send + 'static,
{
    let (to, mut answers) = mpsc::unbounded_channel::<String>();
    let asked = async {
        let mut message = Vec::new();
        while receiver.receive_data(&mut message).await.is_ok() {
            answer(&chain, &message, Some(&to));
            message.clear();
        }
    };
    let answered = async {
        while let Some(text) = answers.recv().await {
            if sender.send_text_owned(text).await.is_err() || sender.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asked => {}
        () = answered => {}
    }
}

/// The answer to a question; None: none is given. Over a `WebSocket` it is sent before anybody else can have news sent:
/// what comes before the subscription has its number is lost on the client.
fn answer(shared: &Shared, message: &[u8], to: Option<&mpsc::UnboundedSender<String>>) -> Option<String> {
    let question: Value = serde_json::from_slice(message).unwrap();
    let method = question["method"].as_str().unwrap();
    let params = question["params"].as_array().cloned().unwrap_or_default();
    let mut chain = shared.lock().unwrap();
    *chain.asked.entry(method.to_owned()).or_default() += 1;
    let about = params.first().and_then(Value::as_str).unwrap_or_default();
    let concerned = chain.trouble_about.iter().filter(|(beginning, _)| about.starts_with(beginning.as_str()));
    let trouble = chain.trouble.clone().or_else(|| concerned.map(|(_, trouble)| trouble.clone()).next());
    let result = match trouble {
        Some(Trouble::Silence) => return None,
        Some(Trouble::Garbage) => {
            let text = "<html>no</html>".to_owned();
            if let Some(to) = to {
                let _ = to.send(text.clone());
            }
            return Some(text);
        }
        Some(Trouble::Error(code, message)) => Err((code, message.to_owned())),
        _ if chain.without.contains(method) => Err((-32601, "Method not found".to_owned())),
        _ => chain.method(method, &params, to),
    };
    let submitted = method.starts_with("author_submit") && result.is_ok();
    if submitted && chain.automatic {
        mine_soon(shared);
    }
    let answer = match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": question["id"], "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": question["id"], "error": {"code": code, "message": message}})
        }
    };
    if let Some(to) = to {
        // Who is gone is not told.
        let _ = to.send(answer.to_string());
        chain.greet();
    }
    Some(answer.to_string())
}

impl Chain {
    fn method(
        &mut self,
        method: &str,
        params: &[Value],
        to: Option<&mpsc::UnboundedSender<String>>,
    ) -> Result<Value, RpcError> {
        let text = |index: usize| params.get(index).and_then(Value::as_str);
        let elsewhere = matches!(self.trouble, Some(Trouble::AnotherBlock));
        match method {
            "chain_getBlockHash" => match params.first().and_then(Value::as_u64) {
                None => Ok(json!(self.best)),
                Some(number) => Ok(json!(self.canonical(number))),
            },
            "chain_getFinalizedHead" => Ok(json!(self.finalized)),
            "chain_getHeader" => {
                let mut header = self.block(text(0)).map_or(Value::Null, |block| block.header.clone());
                if elsewhere {
                    header["number"] = json!("0xffff");
                }
                Ok(header)
            }
            "chain_getBlock" => {
                let Ok(block) = self.block(text(0)) else { return Ok(Value::Null) };
                let extrinsics: Vec<_> = block.extrinsics.iter().map(|bytes| hex(bytes)).collect();
                let block = json!({"header": block.header, "extrinsics": extrinsics});
                Ok(json!({"block": block, "justifications": null}))
            }
            "state_getStorage" | "state_getStorageAt" => {
                Ok(json!(self.block(text(1))?.state.get(text(0).unwrap_or_default())))
            }
            "state_getKeysPaged" => {
                let (prefix, start) = (text(0).unwrap_or_default(), text(2).unwrap_or_default());
                let most = usize::try_from(params[1].as_u64().unwrap()).unwrap();
                let block = self.block(text(3))?;
                let keys = block.state.range(prefix.to_owned()..).map(|(key, _)| key);
                let keys = keys.take_while(|key| key.starts_with(prefix)).filter(|key| key.as_str() > start);
                Ok(json!(keys.take(most).collect::<Vec<_>>()))
            }
            "state_queryStorageAt" => {
                let block = self.block(text(1))?;
                let keys = params[0].as_array().unwrap().iter();
                let changes: Vec<_> = keys.map(|key| json!([key, block.state.get(key.as_str().unwrap())])).collect();
                let at = if elsewhere { self.genesis.as_str() } else { text(1).unwrap_or(&self.best) };
                Ok(json!([{"block": at, "changes": changes}]))
            }
            "state_call" => self.call(text(0).unwrap_or_default(), text(1).unwrap_or_default(), text(2)),
            "state_getRuntimeVersion" => {
                let version = self.block(text(0))?.runtime.spec_version;
                Ok(json!({"specName": "node-subtensor", "implName": "node-subtensor", "authoringVersion": 1,
                    "specVersion": version, "implVersion": 1, "apis": [], "transactionVersion": 1, "stateVersion": 1}))
            }
            "state_getMetadata" => Ok(json!(hex(self.block(text(0))?.runtime.bytes))),
            "system_health" => Ok(json!({"peers": 3, "isSyncing": self.syncing, "shouldHavePeers": true})),
            "system_chain" => Ok(json!("Development")),
            "system_accountNextIndex" => {
                let account = text(0).unwrap_or_default().parse::<tollgate::model::hotkey::Hotkey>();
                Ok(json!(self.nonce(account.map_err(|error| (-32602, error.to_string()))?.0)))
            }
            "author_submitExtrinsic" => {
                self.submit(&alloy::hex::decode(text(0).unwrap_or_default()).unwrap()).map(Value::from)
            }
            _ => self.subscription(method, text(0), to),
        }
    }

    /// Subscriptions, which need a `WebSocket`.
    fn subscription(
        &mut self,
        method: &str,
        first: Option<&str>,
        to: Option<&mpsc::UnboundedSender<String>>,
    ) -> Result<Value, RpcError> {
        if let "chain_unsubscribeNewHeads" | "chain_unsubscribeFinalizedHeads" | "author_unwatchExtrinsic" = method {
            self.subscribers.retain(|subscriber| Some(subscriber.id.as_str()) != first);
            return Ok(json!(true));
        }
        let unknown = || (-32601, format!("Method not found: {method}"));
        let to = to.ok_or_else(unknown)?.clone();
        let what = match method {
            "chain_subscribeNewHeads" => Subscription::BestHeads,
            "chain_subscribeFinalizedHeads" => Subscription::FinalizedHeads,
            "author_submitAndWatchExtrinsic" => {
                let bytes = alloy::hex::decode(first.unwrap_or_default()).unwrap();
                self.submit(&bytes)?;
                Subscription::Extrinsic(bytes, None)
            }
            _ => return Err(unknown()),
        };
        self.made += 1;
        let subscriber = Subscriber { to, id: format!("subscription-{}", self.made), what, greeted: false };
        let id = json!(subscriber.id);
        self.subscribers.push(subscriber);
        Ok(id)
    }

    /// Tells those who have just subscribed where things stand.
    fn greet(&mut self) {
        let header = |hash: &str| self.blocks[hash].header.clone();
        let (best, finalized) = (header(&self.best), header(&self.finalized));
        for subscriber in self.subscribers.iter_mut().filter(|subscriber| !subscriber.greeted) {
            subscriber.greeted = true;
            match subscriber.what {
                Subscription::BestHeads => subscriber.tell("chain_newHead", &best),
                Subscription::FinalizedHeads => subscriber.tell("chain_finalizedHead", &finalized),
                Subscription::Extrinsic(..) => subscriber.tell("author_extrinsicUpdate", &json!("ready")),
            }
        }
    }

    fn call(&self, method: &str, argument: &str, hash: Option<&str>) -> Result<Value, RpcError> {
        let block = self.block(hash)?;
        let bytes = || alloy::hex::decode(argument).unwrap();
        let recorded = || {
            let answer = self.calls.get(method)?.get(argument)?;
            Some(alloy::hex::decode(answer.as_str()?).unwrap())
        };
        let missing = || (-32603, format!("Execution failed: Other: Function to start was not found: {method}"));
        let answer = match method {
            "Metadata_metadata_versions" => block.runtime.formats(),
            "Metadata_metadata_at_version" => block.runtime.metadata_at(&bytes()),
            "Core_version" => block.runtime.version(&recorded().unwrap()),
            "AccountNonceApi_account_nonce" => {
                let account = bytes().try_into().map_err(|_| (-32602, "an account has 32 bytes".to_owned()))?;
                self.nonce(account).to_le_bytes().to_vec()
            }
            "SubnetInfoRuntimeApi_get_selective_metagraph" => {
                let netuid = u16::from_le_bytes([bytes()[0], bytes()[1]]);
                match (block.neurons.get(&netuid), recorded()) {
                    (Some(neurons), _) => block.runtime.metagraph(netuid, block.number, neurons),
                    (None, Some(recorded)) => recorded,
                    (None, None) if netuid == super::NETUID => {
                        let neurons = super::runtime::recorded_neurons(&self.calls);
                        block.runtime.metagraph(netuid, block.number, &neurons)
                    }
                    // There is no such subnet.
                    (None, None) => vec![0],
                }
            }
            _ => recorded().ok_or_else(missing)?,
        };
        Ok(json!(hex(&answer)))
    }
}
