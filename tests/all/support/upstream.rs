//! Servers behind the gateway: HTTP/1.1 written by hand, so that what arrives is kept exactly as it arrived and any
//! misbehaviour can be had; HTTP/2 by hyper.
//!
//! A target that begins with `/stream/`, `/ws` or `/early/` is answered on its header alone; every other one after its
//! body has arrived.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{client::values, loopback, run, spawn};

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The head, exactly. Empty for HTTP/2.
    pub head: Vec<u8>,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub trailers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its end before the answer began.
    pub complete: bool,
    pub http2: bool,
    /// Which connection it came by, counted from 0.
    pub connection: usize,
}

impl Received {
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// The only value of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() < 2, "{name} came more than once: {:?}", self.headers);
        values.first().copied()
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

/// Holds something back until the test opens it.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// A piece of a body that is sent in pieces.
#[derive(Clone)]
pub enum Part {
    Data(Vec<u8>),
    Wait(Gate),
    /// The connection is reset (HTTP/2: the stream).
    Reset,
    /// The connection is closed without the end that was announced.
    Close,
}

/// What is answered.
#[derive(Clone)]
pub enum Reply {
    /// A whole body with its length.
    Whole { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// A body in pieces, chunked in HTTP/1.1, and trailers.
    Parts { status: u16, headers: Vec<(String, String)>, parts: Vec<Part>, trailers: Vec<(String, String)> },
    /// These bytes and nothing else (HTTP/1.1); the connection is closed afterwards.
    Raw(Vec<Part>),
    /// The request's body, as it arrives.
    Echo,
    /// `101` and the same bytes back.
    WebSocket,
    /// Nothing, until the gate opens; then what follows.
    After(Gate, Box<Reply>),
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200, body)
    }

    pub fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Whole { status, headers: Vec::new(), body: body.into() }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::ok(value.to_string()).header("Content-Type", "application/json")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Whole { headers, .. } | Self::Parts { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub fn credits(self, credits: &str) -> Self {
        self.header("NVMCreditsConsumed", credits)
    }

    pub fn parts(parts: impl IntoIterator<Item = Part>) -> Self {
        Self::Parts { status: 200, headers: Vec::new(), parts: parts.into_iter().collect(), trailers: Vec::new() }
    }

    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        if let Self::Parts { trailers, .. } = &mut self {
            trailers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// These bytes, and the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Raw(vec![Part::Data(bytes.into())])
    }

    pub fn after(gate: &Gate, reply: Self) -> Self {
        Self::After(gate.clone(), Box::new(reply))
    }
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

/// A running server.
pub struct Upstream {
    pub address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    handler: Box<Handler>,
    paths: Mutex<HashMap<String, Reply>>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Answers `ok` to everything that nothing else is said about ([`Self::on`]).
    pub fn start() -> Self {
        Self::answering(|_| Reply::ok("ok"))
    }

    pub fn answering(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::at(loopback(0), None, handler)
    }

    /// With TLS, whose settings say which protocols are offered.
    pub fn tls(config: Arc<rustls::ServerConfig>) -> Self {
        Self::at(loopback(0), Some(config), |_| Reply::ok("ok"))
    }

    /// HTTP/2 in clear text, without asking.
    pub fn h2c() -> Self {
        Self::listen(loopback(0), None, true, |_| Reply::ok("ok"))
    }

    pub fn at(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(address, tls, false, handler)
    }

    fn listen(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        h2c: bool,
        handler: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        // Only a test that needs a port of its own may have to wait for it.
        let listener = super::eventually("the port is free", || run(TcpListener::bind(address)).ok());
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            paths: Mutex::default(),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
        let task = spawn({
            let shared = Arc::clone(&shared);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let _ = stream.set_nodelay(true);
                    let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                    spawn(async move {
                        match acceptor {
                            None if h2c => http2(stream, shared, number).await,
                            None => http1(Tcp(stream), shared, number).await,
                            Some(acceptor) => {
                                let Ok(stream) = acceptor.accept(stream).await else { return };
                                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                                    http2(stream, shared, number).await;
                                } else {
                                    http1(Plain(stream), shared, number).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { address, scheme, shared, task }
    }

    /// From now on this path is answered so.
    pub fn on(&self, path: &str, reply: Reply) {
        self.shared.paths.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// A URL here, by address.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The endpoint that covers everything here.
    pub fn everything(&self) -> String {
        self.url("/(.*)")
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn requests(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    /// The only request that arrived since this was last asked.
    #[track_caller]
    pub fn only(&self) -> Received {
        let mut received = self.take();
        assert_eq!(received.len(), 1, "{received:?}");
        received.remove(0)
    }

    /// What has arrived since this was last asked.
    pub fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.shared.received.lock().unwrap())
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn reply(&self, request: &Received) -> Reply {
        let scripted = self.paths.lock().unwrap().get(request.path()).cloned();
        scripted.unwrap_or_else(|| (self.handler)(request))
    }

    fn record(&self, request: Received) {
        self.received.lock().unwrap().push(request);
    }
}

fn on_header_alone(target: &str) -> bool {
    ["/stream/", "/ws", "/early/"].iter().any(|prefix| target.starts_with(prefix))
}

/// What HTTP/1.1 is spoken over, and how it is reset.
trait Wire: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;
    fn stream(&mut self) -> &mut Self::Stream;
    fn reset(self);
}

struct Tcp(TcpStream);
struct Plain<S>(S);

impl Wire for Tcp {
    type Stream = TcpStream;
    fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }
    fn reset(self) {
        let _ = self.0.set_zero_linger();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for Plain<S> {
    type Stream = S;
    fn stream(&mut self) -> &mut S {
        &mut self.0
    }
    fn reset(self) {}
}

async fn http1<W: Wire>(mut wire: W, shared: Arc<Shared>, connection: usize) {
    let mut input = Vec::new();
    loop {
        let Some(mut request) = read_head(wire.stream(), &mut input).await else { return };
        request.connection = connection;
        if on_header_alone(&request.target) {
            shared.record(request.clone());
        } else {
            let expects = request.values("expect").iter().any(|value| value.eq_ignore_ascii_case("100-continue"));
            if expects && wire.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.is_err() {
                return;
            }
            let mut body = Body::of(&request);
            let mut whole = Vec::new();
            while let Some(data) = body.next(wire.stream(), &mut input).await {
                whole.extend(data);
            }
            request.body = whole;
            request.complete = !body.broken;
            request.trailers = body.trailers;
            shared.record(request.clone());
        }
        let mut reply = shared.reply(&request);
        while let Reply::After(gate, then) = reply {
            gate.passed().await;
            reply = *then;
        }
        match answer(&mut wire, &mut input, &request, reply).await {
            Some(Next::Again) => {}
            Some(Next::Reset) => return wire.reset(),
            Some(Next::Close) | None => {
                let _ = wire.stream().shutdown().await;
                return;
            }
        }
    }
}

enum Next {
    Again,
    Close,
    Reset,
}

async fn answer<W: Wire>(wire: &mut W, input: &mut Vec<u8>, request: &Received, reply: Reply) -> Option<Next> {
    let stream = wire.stream();
    let head = |status: u16, headers: &[(String, String)], framing: &str| {
        let fields = lines(headers);
        format!("HTTP/1.1 {status} Fine\r\n{fields}{framing}\r\n").into_bytes()
    };
    let bodiless = request.method == "HEAD";
    match reply {
        Reply::Whole { status, headers, body } => {
            let framing = if status == 204 || status == 304 {
                String::new()
            } else {
                format!("Content-Length: {}\r\n", body.len())
            };
            let mut bytes = head(status, &headers, &framing);
            if !bodiless {
                bytes.extend(body);
            }
            stream.write_all(&bytes).await.ok()?;
        }
        Reply::Parts { status, headers, parts, trailers } => {
            let length = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            stream
                .write_all(&head(status, &headers, if length { "" } else { "Transfer-Encoding: chunked\r\n" }))
                .await
                .ok()?;
            for part in parts {
                match part {
                    Part::Data(data) if length => stream.write_all(&data).await.ok()?,
                    Part::Data(data) => stream.write_all(&chunk(&data)).await.ok()?,
                    Part::Wait(gate) => gate.passed().await,
                    Part::Reset => return Some(Next::Reset),
                    Part::Close => return Some(Next::Close),
                }
                stream.flush().await.ok()?;
            }
            if !length {
                let fields = lines(&trailers);
                stream.write_all(format!("0\r\n{fields}\r\n").as_bytes()).await.ok()?;
            }
        }
        Reply::Raw(parts) => {
            for part in parts {
                match part {
                    Part::Data(data) => stream.write_all(&data).await.ok()?,
                    Part::Wait(gate) => gate.passed().await,
                    Part::Reset => return Some(Next::Reset),
                    Part::Close => return Some(Next::Close),
                }
                stream.flush().await.ok()?;
            }
            return Some(Next::Close);
        }
        Reply::Echo => {
            stream.write_all(&head(200, &[], "Transfer-Encoding: chunked\r\n")).await.ok()?;
            stream.flush().await.ok()?;
            let mut body = Body::of(request);
            while let Some(data) = body.next(stream, input).await {
                stream.write_all(&chunk(&data)).await.ok()?;
                stream.flush().await.ok()?;
            }
            if body.broken {
                return Some(Next::Close);
            }
            stream.write_all(b"0\r\n\r\n").await.ok()?;
        }
        Reply::WebSocket => {
            let accept =
                [("Upgrade".to_owned(), "websocket".to_owned()), ("Connection".to_owned(), "Upgrade".to_owned())];
            stream.write_all(&head(101, &accept, "")).await.ok()?;
            stream.write_all(input).await.ok()?;
            stream.flush().await.ok()?;
            let mut data = [0; 4096];
            loop {
                let read = stream.read(&mut data).await.ok()?;
                if read == 0 {
                    return Some(Next::Close);
                }
                stream.write_all(&data[..read]).await.ok()?;
                stream.flush().await.ok()?;
            }
        }
        Reply::After(..) => unreachable!("resolved before"),
    }
    stream.flush().await.ok()?;
    Some(Next::Again)
}

/// Fields as HTTP/1.1 writes them.
fn lines(fields: &[(String, String)]) -> String {
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    lines.concat()
}

fn chunk(data: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

async fn more(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> bool {
    let mut data = vec![0; 64 * 1024];
    match stream.read(&mut data).await {
        Ok(read) if read > 0 => {
            input.extend_from_slice(&data[..read]);
            true
        }
        _ => false,
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if !more(stream, input).await {
            return None;
        }
    };
    let head: Vec<u8> = input.drain(..end).collect();
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Some(Received { head, method, target, headers, ..Received::default() })
}

/// A request's body as it arrives.
struct Body {
    left: usize,
    chunked: bool,
    ended: bool,
    broken: bool,
    trailers: Vec<(String, String)>,
}

impl Body {
    fn of(request: &Received) -> Self {
        let chunked = request.values("transfer-encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = request.values("content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
        Self { left: length, chunked, ended: !chunked && length == 0, broken: false, trailers: Vec::new() }
    }

    async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        if !self.chunked {
            if input.is_empty() && !more(stream, input).await {
                (self.ended, self.broken) = (true, true);
                return None;
            }
            let take = self.left.min(input.len());
            self.left -= take;
            self.ended = self.left == 0;
            return Some(input.drain(..take).collect());
        }
        let line = self.line(stream, input).await?;
        let length = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        if length == 0 {
            while let Some(line) = self.line(stream, input).await.filter(|line| !line.is_empty()) {
                let (name, value) = line.split_once(':')?;
                self.trailers.push((name.to_owned(), value.trim().to_owned()));
            }
            self.ended = true;
            return None;
        }
        while input.len() < length + 2 {
            if !more(stream, input).await {
                (self.ended, self.broken) = (true, true);
                return None;
            }
        }
        let data = input.drain(..length).collect();
        input.drain(..2);
        Some(data)
    }

    async fn line(&mut self, stream: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> Option<String> {
        loop {
            if let Some(at) = input.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = input.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).ok();
            }
            if !more(stream, input).await {
                (self.ended, self.broken) = (true, true);
                return None;
            }
        }
    }
}

async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, shared: Arc<Shared>, connection: usize) {
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer2(request, &shared, connection).await) }
    });
    let executor = hyper_util::rt::TokioExecutor::new();
    let stream = hyper_util::rt::TokioIo::new(stream);
    let _ = hyper::server::conn::http2::Builder::new(executor).serve_connection(stream, service).await;
}

type Sent = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

pub fn texts(headers: &http::HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}

async fn answer2(
    request: hyper::Request<hyper::body::Incoming>,
    shared: &Shared,
    connection: usize,
) -> hyper::Response<Sent> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let mut headers = texts(&parts.headers);
    if let Some(authority) = parts.uri.authority() {
        headers.push((":authority".to_owned(), authority.to_string()));
    }
    let mut received =
        Received { method: parts.method.to_string(), target, headers, http2: true, connection, ..Received::default() };
    let mut body = Some(body);
    if !on_header_alone(&received.target)
        && let Some(body) = body.take()
        && let Ok(whole) = body.collect().await
    {
        received.trailers = whole.trailers().map(texts).unwrap_or_default();
        received.body = whole.to_bytes().to_vec();
        received.complete = true;
    }
    shared.record(received.clone());
    let mut reply = shared.reply(&received);
    while let Reply::After(gate, then) = reply {
        gate.passed().await;
        reply = *then;
    }
    match reply {
        Reply::Whole { status, headers, body } => {
            let body = http_body_util::Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
            response(status, &headers, body)
        }
        Reply::Parts { status, headers, parts, trailers } => {
            let (sender, frames) = tokio::sync::mpsc::channel::<std::io::Result<Frame<Bytes>>>(1);
            spawn(async move {
                for part in parts {
                    let sent = match part {
                        Part::Data(data) => sender.send(Ok(Frame::data(Bytes::from(data)))).await,
                        Part::Wait(gate) => {
                            gate.passed().await;
                            Ok(())
                        }
                        Part::Reset | Part::Close => {
                            let _ = sender.send(Err(std::io::Error::other("reset"))).await;
                            return;
                        }
                    };
                    if sent.is_err() {
                        return;
                    }
                }
                if !trailers.is_empty() {
                    let trailers = trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
                    let _ = sender.send(Ok(Frame::trailers(trailers.collect::<http::HeaderMap>()))).await;
                }
            });
            response(status, &headers, BodyExt::boxed(StreamBody::new(stream_of(frames))))
        }
        Reply::Echo => {
            let body = body.expect("an echo is asked for below /stream/");
            response(200, &[], body.map_err(std::io::Error::other).boxed())
        }
        Reply::Raw(_) | Reply::WebSocket | Reply::After(..) => panic!("not in HTTP/2"),
    }
}

fn stream_of<T: Send>(receiver: tokio::sync::mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> + Send {
    futures_util::stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|item| (item, receiver)))
}

fn response(status: u16, headers: &[(String, String)], body: Sent) -> hyper::Response<Sent> {
    let mut response = hyper::Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    response
}
