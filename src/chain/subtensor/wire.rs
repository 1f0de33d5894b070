//! The connection to a node, as subxt wants it: JSON-RPC over a `WebSocket` or over HTTP, with our limits and our words
//! for what goes wrong. No address appears in an error: a node's URL often contains its key.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use subxt::{
    ext::jsonrpsee::{
        client_transport::ws::{WsHandshakeError, WsTransportClientBuilder},
        core::client::{self, TransportReceiverT, TransportSenderT},
    },
    rpcs::{
        Error, RpcClientT, UserError,
        client::{JsonrpseeRpcClient, RawRpcFuture, RawRpcSubscription, RawValue},
    },
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{METHOD_NOT_FOUND, Options};
use crate::chain::{
    fault::{Calls, Failed, Fault},
    http,
};

/// Metadata takes 600 kB; nothing else comes near it.
const ANSWER_LIMIT: u32 = 16 << 20;
/// Questions under way on one connection. Each who asks over it asks one after the other.
const QUESTIONS: usize = 64;
/// News of blocks that nobody has looked at yet. With more the connection counts as broken.
const NEWS: usize = 1_024;

/// How a node is reached.
#[derive(Clone)]
pub(super) enum Way {
    /// Over a `WebSocket`, with TLS or without.
    Socket(Option<TlsConnector>),
    /// Over HTTP, one question at a time.
    Http(Client),
}

impl Way {
    pub(super) fn to(options: &Options) -> Result<Self, http::ClientError> {
        match options.url.scheme() {
            "wss" => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                Ok(Self::Socket(Some(TlsConnector::from(Arc::new(config)))))
            }
            "ws" => Ok(Self::Socket(None)),
            _ => {
                let http = http::Options { timeout: options.timeout, extra_ca_pem: None };
                http::client(&options.url, &http).map(Self::Http)
            }
        }
    }
}

/// One who asks over a connection, which others may share.
pub(super) struct Wire {
    transport: Arc<Transport>,
    url: Url,
    timeout: Duration,
    questions: Arc<Calls>,
    /// What became of the last question, if it failed. subxt's own errors wrap it in words without saying what it is.
    last: Mutex<Option<Failed>>,
}

/// Why there is nothing to work with.
pub(super) enum Explained {
    /// There was no answer.
    Unanswered(Failed),
    /// There was, and the metadata does not describe what we look for in it.
    Undecodable(String),
}

impl From<Explained> for Failed {
    fn from(explained: Explained) -> Self {
        match explained {
            Explained::Unanswered(failed) => failed,
            Explained::Undecodable(detail) => Self::new(Fault::Malformed, detail),
        }
    }
}

enum Transport {
    Socket(JsonrpseeRpcClient),
    Http { client: Client, next_id: AtomicU64 },
}

impl Wire {
    pub(super) async fn connect(way: &Way, options: &Options, questions: Arc<Calls>) -> Result<Self, Failed> {
        let transport = match way {
            Way::Http(client) => Transport::Http { client: client.clone(), next_id: AtomicU64::new(1) },
            Way::Socket(tls) => {
                let connecting = timeout(options.timeout, connect(&options.url, tls.as_ref(), options.timeout));
                let late = |_| Failed::new(Fault::Timeout, "no connection in time");
                Transport::Socket(connecting.await.map_err(late)??)
            }
        };
        let (transport, url) = (Arc::new(transport), options.url.clone());
        Ok(Self { transport, url, timeout: options.timeout, questions, last: Mutex::default() })
    }

    /// Another who asks over the same connection: what fails for the one is not what failed for the other.
    pub(super) fn another(&self) -> Self {
        Self {
            transport: Arc::clone(&self.transport),
            url: self.url.clone(),
            timeout: self.timeout,
            questions: Arc::clone(&self.questions),
            last: Mutex::default(),
        }
    }

    /// Whether both ask over the same connection.
    pub(super) fn shares_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.transport, &other.transport)
    }

    /// What a failure of subxt's means: what became of the last question, or else that its answer cannot be decoded.
    pub(super) fn explain(&self, error: &impl fmt::Display) -> Explained {
        let last = self.last.lock().take();
        last.map_or_else(
            || Explained::Undecodable(http::harmless(&self.url, &error.to_string())),
            Explained::Unanswered,
        )
    }

    pub(super) fn can_subscribe(&self) -> bool {
        matches!(*self.transport, Transport::Socket(_))
    }

    async fn ask(&self, method: &str, params: Option<Box<RawValue>>) -> Result<Box<RawValue>, Error> {
        match &*self.transport {
            Transport::Socket(socket) => socket.request_raw(method, params).await,
            Transport::Http { client, next_id } => {
                let id = next_id.fetch_add(1, Relaxed);
                post(client, &self.url, &Question { jsonrpc: "2.0", id, method, params }).await
            }
        }
    }

    /// Asks, within the time limit, and keeps in mind what went wrong.
    async fn watched<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let call = self.questions.begin();
        let answer = timeout(self.timeout, question).await;
        let answer = answer.unwrap_or_else(|_| Err(ours(Failed::new(Fault::Timeout, "no answer in time"))));
        let failed = answer.as_ref().err().map(|error| failed(&self.url, error));
        call.end(failed.as_ref());
        *self.last.lock() = failed;
        answer
    }
}

impl RpcClientT for Wire {
    fn request_raw<'a>(&'a self, method: &'a str, params: Option<Box<RawValue>>) -> RawRpcFuture<'a, Box<RawValue>> {
        Box::pin(self.watched(async move {
            let asked = if method == "state_queryStorageAt" { params.clone() } else { None };
            let answer = self.ask(method, params).await?;
            match asked {
                Some(asked) if !same_block(&asked, &answer) => {
                    Err(ours(Failed::new(Fault::Malformed, "the node answered with another block than was asked for")))
                }
                _ => Ok(answer),
            }
        }))
    }

    fn subscribe_raw<'a>(
        &'a self,
        method: &'a str,
        params: Option<Box<RawValue>>,
        end: &'a str,
    ) -> RawRpcFuture<'a, RawRpcSubscription> {
        Box::pin(self.watched(async move {
            match &*self.transport {
                Transport::Socket(socket) => socket.subscribe_raw(method, params, end).await,
                Transport::Http { .. } => Err(Error::User(UserError {
                    code: METHOD_NOT_FOUND,
                    message: "there are no subscriptions over HTTP".to_owned(),
                    data: None,
                })),
            }
        }))
    }
}

/// Opens a `WebSocket`. Names are resolved without blocking, and no redirect is followed.
async fn connect(url: &Url, tls: Option<&TlsConnector>, limit: Duration) -> Result<JsonrpseeRpcClient, Failed> {
    let transport = |error: std::io::Error| Failed::new(Fault::Transport, error.to_string());
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or_default();
    let stream = TcpStream::connect((host, port)).await.map_err(transport)?;
    stream.set_nodelay(true).map_err(transport)?;
    let builder = WsTransportClientBuilder::default()
        .max_response_size(ANSWER_LIMIT)
        .max_redirections(0)
        .connection_timeout(limit);
    let refused = |error: WsHandshakeError| match error {
        WsHandshakeError::Rejected { status_code } | WsHandshakeError::Redirected { status_code, .. } => {
            Failed::new(Fault::Status, format!("the node answered {status_code}"))
        }
        WsHandshakeError::Timeout(_) => Failed::new(Fault::Timeout, "no connection in time"),
        other => Failed::new(Fault::Transport, http::harmless(url, &other.to_string())),
    };
    Ok(match tls {
        None => {
            let (sender, receiver) = builder.build_with_stream(url.clone(), stream).await.map_err(refused)?;
            client(sender, receiver, limit)
        }
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned());
            let name = name.map_err(|_| Failed::new(Fault::Transport, "the node's name cannot be verified"))?;
            let stream = tls.connect(name, stream).await.map_err(transport)?;
            let (sender, receiver) = builder.build_with_stream(url.clone(), stream).await.map_err(refused)?;
            client(sender, receiver, limit)
        }
    })
}

fn client(
    sender: impl TransportSenderT + Send,
    receiver: impl TransportReceiverT + Send,
    limit: Duration,
) -> JsonrpseeRpcClient {
    client::Client::builder()
        .request_timeout(limit)
        .max_concurrent_requests(QUESTIONS)
        .max_buffer_capacity_per_subscription(NEWS)
        .build_with_tokio(sender, receiver)
}

#[derive(Serialize)]
struct Question<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    /// Also `null`, which is an answer.
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: i32,
    #[serde(default)]
    message: String,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

async fn post(client: &Client, url: &Url, question: &Question<'_>) -> Result<Box<RawValue>, Error> {
    let response = client.post(url.clone()).json(question).send().await.map_err(|error| ours(http::failed(error)))?;
    let status = response.status();
    let body = http::read(response, ANSWER_LIMIT as usize).await.map_err(ours)?;
    // Nodes also send their errors with other statuses than 200, and then the body says more.
    let Ok(answer) = serde_json::from_slice::<Answer>(&body) else {
        return Err(ours(if status.is_success() {
            Failed::new(Fault::Malformed, "the answer is not JSON-RPC")
        } else {
            Failed::new(Fault::Status, format!("the node answered {}", status.as_u16()))
        }));
    };
    match answer {
        Answer { error: Some(AnswerError { code, message }), .. } => {
            Err(Error::User(UserError { code, message, data: None }))
        }
        _ if !status.is_success() => {
            Err(ours(Failed::new(Fault::Status, format!("the node answered {}", status.as_u16()))))
        }
        Answer { result: Some(result), id: Some(id), .. } if id == question.id => Ok(result),
        _ => Err(ours(Failed::new(Fault::Malformed, "the answer is not to our question"))),
    }
}

/// Whether values are of the block that they were asked of. A question without a block is of any.
fn same_block(question: &RawValue, answer: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Values {
        block: String,
    }
    fn read<T: DeserializeOwned>(value: &RawValue) -> Option<T> {
        serde_json::from_str(value.get()).ok()
    }
    let Some((_, block)) = read::<(IgnoredAny, String)>(question) else { return true };
    let values = read::<Vec<Values>>(answer).unwrap_or_default();
    values.iter().all(|values| values.block.eq_ignore_ascii_case(&block))
}

fn ours(failed: Failed) -> Error {
    Error::Client(Box::new(failed))
}

/// What an error of the connection means to us.
fn failed(url: &Url, error: &Error) -> Failed {
    let text = || http::harmless(url, &error.to_string());
    match error {
        Error::User(error) => {
            Failed::new(Fault::Rpc, format!("error {}: {}", error.code, http::harmless(url, &error.message)))
        }
        Error::Client(inner) => match (inner.downcast_ref::<Failed>(), inner.downcast_ref::<client::Error>()) {
            (Some(failed), _) => failed.clone(),
            (_, Some(client::Error::RequestTimeout)) => Failed::new(Fault::Timeout, "no answer in time"),
            (_, Some(client::Error::ParseError(_))) => Failed::new(Fault::Malformed, text()),
            _ => Failed::new(Fault::Transport, text()),
        },
        Error::DisconnectedWillReconnect(_) => Failed::new(Fault::Transport, text()),
        _ => Failed::new(Fault::Malformed, text()),
    }
}
