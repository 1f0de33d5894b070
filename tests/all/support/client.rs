//! A raw HTTP/1.1 client: exact bytes out, exact bytes in.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use super::PATIENCE;

/// One request, to be written exactly so.
#[derive(Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub host: Option<String>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub length: bool,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: Some("gate.test".to_owned()),
            ..Self::default()
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), length: true, ..Self::new("POST", target) }
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if let Some(host) = &self.host {
            bytes.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
        }
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if self.length {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether the body came to the end that its framing announced.
    pub complete: bool,
    /// The head, exactly.
    pub head: String,
}

impl Answer {
    pub fn values(&self, name: &str) -> Vec<&str> {
        values(&self.headers, name)
    }

    /// The only value of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() < 2, "{name} is there more than once: {}", self.head);
        values.first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.text()))
    }

    /// The word in our own error documents.
    #[track_caller]
    pub fn error(&self) -> String {
        let document = self.json();
        assert!(document["request_id"].as_str().is_some_and(|id| id.len() == 36), "{document}");
        assert!(document["message"].as_str().is_some_and(|text| !text.is_empty()), "{document}");
        document["error"].as_str().unwrap().to_owned()
    }
}

pub fn values<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A connection to the gateway.
pub struct Client {
    stream: Box<dyn Duplex>,
    tcp: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// A connection from an address of this machine that is not the usual one.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = super::run(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket.connect(address).await?.into_std()
        });
        let tcp = socket.unwrap();
        tcp.set_nonblocking(false).unwrap();
        Self::over(tcp).unwrap()
    }

    fn over(tcp: TcpStream) -> io::Result<Self> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        Ok(Self { stream: Box::new(tcp.try_clone()?), tcp, buffer: Vec::new() })
    }

    /// A connection with TLS. Says what was agreed on.
    pub fn tls(address: SocketAddr, name: &str, config: Arc<rustls::ClientConfig>) -> io::Result<(Self, Agreed)> {
        let mut tcp = TcpStream::connect(address)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = rustls::ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut tcp)?;
        }
        let agreed = Agreed {
            version: connection.protocol_version().unwrap(),
            alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            certificate: connection.peer_certificates().and_then(<[_]>::first).map(|der| der.to_vec()),
        };
        let stream = rustls::StreamOwned::new(connection, tcp.try_clone()?);
        Ok((Self { stream: Box::new(stream), tcp, buffer: Vec::new() }, agreed))
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).unwrap();
    }

    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        self.tcp.shutdown(Shutdown::Write).unwrap();
    }

    pub fn send(&mut self, request: &Request) -> Answer {
        self.write(request.bytes());
        self.answer(&request.method)
    }

    pub fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).unwrap()
    }

    /// Reads an answer. An error: there was none at all, or it broke off in its head.
    pub fn try_answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.head()?;
        if method == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304) {
            answer.complete = true;
        } else if answer
            .values("transfer-encoding")
            .first()
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            answer.complete = self.chunks(&mut answer);
        } else if let Some(length) =
            answer.values("content-length").first().map(|length| length.parse::<usize>().unwrap())
        {
            while self.buffer.len() < length && self.fill().is_ok_and(|more| more) {}
            let have = length.min(self.buffer.len());
            answer.body = self.buffer.drain(..have).collect();
            answer.complete = have == length;
        } else {
            while self.fill()? {}
            answer.body = std::mem::take(&mut self.buffer);
            answer.complete = true;
        }
        Ok(answer)
    }

    /// Reads an answer's head alone.
    pub fn head(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            if !self.fill()? {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    String::from_utf8_lossy(&self.buffer).into_owned(),
                ));
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap();
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"));
        let headers = lines.filter_map(field).collect();
        Ok(Answer { status, headers, head, ..Answer::default() })
    }

    /// Reads one chunk of a chunked body. None: the last one, or the connection's end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line()?;
        let length = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).unwrap();
        while self.buffer.len() < length + 2 {
            if !self.fill().is_ok_and(|more| more) {
                return None;
            }
        }
        let data = self.buffer.drain(..length).collect();
        if length > 0 {
            self.buffer.drain(..2);
        }
        Some(data)
    }

    fn chunks(&mut self, answer: &mut Answer) -> bool {
        loop {
            match self.chunk() {
                None => return false,
                Some(data) if data.is_empty() => break,
                Some(data) => answer.body.extend(data),
            }
        }
        while let Some(line) = self.line() {
            match field(&line) {
                Some(trailer) => answer.trailers.push(trailer),
                None => return true,
            }
        }
        false
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).ok();
            }
            if !self.fill().is_ok_and(|more| more) {
                return None;
            }
        }
    }

    /// Exactly as many bytes as asked for.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.fill().unwrap(), "the connection ended");
        }
        self.buffer.drain(..length).collect()
    }

    /// Everything up to the connection's end.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill().is_ok_and(|more| more) {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the connection has been closed and nothing more came.
    pub fn is_closed(&mut self) -> bool {
        !self.fill().unwrap_or(false)
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = vec![0; 64 * 1024];
        let read = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..read]);
        Ok(read > 0)
    }
}

/// What a TLS handshake agreed on.
pub struct Agreed {
    pub version: rustls::ProtocolVersion,
    pub alpn: Option<String>,
    pub resumed: bool,
    pub certificate: Option<Vec<u8>>,
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_owned(), value.trim().to_owned()))
}
