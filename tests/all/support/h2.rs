//! An HTTP/2 client, over TLS as browsers do it.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::{run, spawn, upstream::texts};

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// A connection.
pub struct Client(hyper::client::conn::http2::SendRequest<Body>);

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether it came to its end.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        super::client::values(&self.headers, name).first().copied()
    }
}

impl Client {
    /// The configuration must offer `h2`.
    pub fn connect(address: SocketAddr, name: &str, config: Arc<rustls::ClientConfig>) -> Self {
        run(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
            let executor = hyper_util::rt::TokioExecutor::new();
            let stream = hyper_util::rt::TokioIo::new(stream);
            let (client, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
            spawn(connection);
            Self(client)
        })
    }

    /// A request whose body, if it has one, is sent as these frames.
    pub fn send(&mut self, request: http::request::Builder, frames: Vec<Frame<Bytes>>) -> Answer {
        let (sender, receiver) = mpsc::channel(frames.len().max(1));
        for frame in frames {
            sender.try_send(frame).unwrap();
        }
        drop(sender);
        self.stream(request, receiver).finish()
    }

    pub fn get(&mut self, url: &str, token: Option<&str>) -> Answer {
        let mut request = http::Request::get(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.send(request, Vec::new())
    }

    /// A request whose body comes out of a channel. Returns when the answer's header is there.
    pub fn stream(&mut self, request: http::request::Builder, frames: mpsc::Receiver<Frame<Bytes>>) -> Stream {
        let empty = frames.is_closed() && frames.is_empty();
        let frames = futures_util::stream::unfold(frames, |mut frames| async move {
            frames.recv().await.map(|frame| (Ok::<_, std::convert::Infallible>(frame), frames))
        });
        let body = if empty { http_body_util::Empty::new().boxed() } else { BodyExt::boxed(StreamBody::new(frames)) };
        let request = request.body(body).unwrap();
        let response = run(self.0.send_request(request)).unwrap();
        let (parts, body) = response.into_parts();
        Stream { status: parts.status.as_u16(), headers: texts(&parts.headers), body }
    }
}

/// An answer whose body is still to come.
pub struct Stream {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: hyper::body::Incoming,
}

impl Stream {
    /// The next piece of the body.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let frame = run(self.body.frame())?.unwrap();
        frame.into_data().ok().map(|data| data.to_vec())
    }

    pub fn finish(self) -> Answer {
        let (mut data, mut trailers, mut complete) = (Vec::new(), Vec::new(), true);
        let mut body = self.body;
        run(async {
            while let Some(frame) = body.frame().await {
                match frame.map(Frame::into_data) {
                    Ok(Ok(bytes)) => data.extend_from_slice(&bytes),
                    Ok(Err(frame)) => trailers = texts(frame.trailers_ref().unwrap()),
                    Err(_) => {
                        complete = false;
                        return;
                    }
                }
            }
        });
        Answer { status: self.status, headers: self.headers, body: data, trailers, complete }
    }
}
