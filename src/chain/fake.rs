//! A server on loopback that answers whatever a test wants, byte for byte.

use std::sync::{
    Arc, Once,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;
use reqwest::Url;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What to do with a request.
#[derive(Clone)]
pub enum Reply {
    /// Send these bytes and close.
    Raw(Vec<u8>),
    /// Send these bytes and neither anything else nor the end.
    Hang(Vec<u8>),
}

pub struct Server {
    pub url: Url,
    requests: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
    replies: Arc<Mutex<Vec<(String, Reply)>>>,
}

impl Server {
    pub async fn start(reply: Reply) -> Self {
        install_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = Self {
            url,
            requests: Arc::default(),
            last: Arc::default(),
            replies: Arc::new(Mutex::new(vec![(String::new(), reply)])),
        };
        let (requests, last, replies) =
            (Arc::clone(&server.requests), Arc::clone(&server.last), Arc::clone(&server.replies));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (requests, last, replies) = (Arc::clone(&requests), Arc::clone(&last), Arc::clone(&replies));
                tokio::spawn(async move {
                    let Some(request) = read_request(&mut stream).await else { return };
                    let reply = replies.lock().iter().rev().find(|(part, _)| request.contains(part)).unwrap().1.clone();
                    *last.lock() = request;
                    requests.fetch_add(1, SeqCst);
                    let (Reply::Raw(bytes) | Reply::Hang(bytes)) = &reply;
                    let _ = stream.write_all(bytes).await;
                    if matches!(reply, Reply::Hang(_)) {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        server
    }

    pub async fn json(body: impl AsRef<[u8]>) -> Self {
        Self::start(ok(body)).await
    }

    pub fn reply(&self, reply: Reply) {
        self.reply_to("", reply);
    }

    /// From now on for requests that contain `part`.
    pub fn reply_to(&self, part: &str, reply: Reply) {
        self.replies.lock().push((part.to_owned(), reply));
    }

    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    /// The head and the body of the last request.
    pub fn last(&self) -> String {
        self.last.lock().clone()
    }
}

pub fn ok(body: impl AsRef<[u8]>) -> Reply {
    status("200 OK", body)
}

pub fn status(status: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    Reply::Raw([head.as_bytes(), body].concat())
}

/// The address of a port where nobody listens.
pub async fn nobody() -> Url {
    install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap()
}

pub fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return Some(text);
            }
        }
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
}
