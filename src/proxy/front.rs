//! The front door: from an accepted TCP connection to requests.
//!
//! Pingora's own listener would do TLS with a fixed 60 s timeout, and would let a client send its header one byte a
//! minute for ever. Here the handshake and the header have deadlines of ours, connections are counted, and each
//! connection knows by which listener it came.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::{
    apps::{HttpServerApp, ServerApp},
    listeners::tls::Acceptor,
    protocols::{
        ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
        TimingDigest, UniqueID, UniqueIDType, http::ServerSession, l4::stream::Stream as TcpStream,
        raw_connect::ProxyDigest, tls::SslDigest,
    },
    server::ShutdownWatch,
};
use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::credentials::Peer;

/// One listener, as the front door needs it.
pub struct Door {
    /// Its name in the log.
    pub name: Arc<str>,
    /// What it is bound to.
    pub address: SocketAddr,
    /// Its certificates, if it speaks TLS.
    pub acceptor: Option<Acceptor>,
    /// Open connections.
    pub open: IntGauge,
    /// Connections refused because there were too many.
    pub crowded: IntCounter,
    /// Connections whose handshake failed or took too long.
    pub handshake_failed: IntCounter,
    /// Connections without a certificate where one is required.
    pub no_certificate: IntCounter,
    /// Connections whose client's certificate cannot be read, or is not the client's.
    pub bad_certificate: IntCounter,
}

impl Door {
    /// Does the handshake. None: it failed, and is counted.
    async fn handshake(&self, acceptor: &Acceptor, stream: TcpStream, deadline: Duration) -> Option<Stream> {
        let stream = match tokio::time::timeout(deadline, acceptor.tls_handshake(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let reason = error.to_string();
                self.failed(&reason).inc();
                tracing::debug!(listener = &*self.name, reason, "TLS handshake failed");
                return None;
            }
            Err(_) => {
                self.handshake_failed.inc();
                tracing::debug!(listener = &*self.name, reason = "timeout", "TLS handshake failed");
                return None;
            }
        };
        // A certificate that does not reach the requests would make them look as if there were none.
        let presented = stream.get_ssl().is_some_and(|tls| tls.peer_certificate_der().is_some());
        let handed_over = stream.ssl_digest().is_some_and(|digest| digest.extension.get::<Peer>().is_some());
        if presented && !handed_over {
            self.bad_certificate.inc();
            tracing::debug!(listener = &*self.name, "the certificate of a resumed session cannot be read");
            return None;
        }
        Some(Box::new(stream))
    }

    /// Where a failed handshake is counted. Pingora keeps only the text of what rustls says.
    fn failed(&self, reason: &str) -> &IntCounter {
        if reason.contains(NO_CERTIFICATE) {
            &self.no_certificate
        } else if reason.contains(BAD_CERTIFICATE) {
            &self.bad_certificate
        } else {
            &self.handshake_failed
        }
    }
}

/// How `rustls::Error::NoCertificatesPresented` and `InvalidCertificate` read.
const NO_CERTIFICATE: &str = "peer sent no certificates";
const BAD_CERTIFICATE: &str = "invalid peer certificate";

/// Limits on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A handshake, and after it a request's header, must be complete within this.
    pub header_timeout: Duration,
    /// How long an idle connection is kept.
    pub keepalive: Duration,
    /// Open connections, over all listeners.
    pub max_connections: usize,
    /// Bytes of one header. Somewhat more is read, so that a client can be told; much more ends the connection.
    pub max_header_bytes: usize,
}

/// The application behind every listener.
pub struct FrontDoor<P> {
    doors: Vec<Door>,
    proxy: Arc<P>,
    limits: Limits,
    open: Arc<AtomicUsize>,
}

impl<P> FrontDoor<P> {
    /// Leads from `doors` to `proxy`. `open` is the number of open connections, which whoever stops the server watches.
    pub fn new(doors: Vec<Door>, proxy: Arc<P>, limits: Limits, open: Arc<AtomicUsize>) -> Self {
        Self { doors, proxy, limits, open }
    }

    fn door(&self, stream: &Stream) -> Option<&Door> {
        let digest = stream.get_socket_digest()?;
        let local = *digest.local_addr()?.as_inet()?;
        bound_to(&self.doors, |door| door.address, local)
    }
}

/// The listener that a connection with this local address came in by: the one bound to just that address, or else the
/// one bound to its port on all of them.
pub(super) fn bound_to<T>(listeners: &[T], bound: impl Fn(&T) -> SocketAddr, local: SocketAddr) -> Option<&T> {
    let by_port = |listener: &&T| bound(listener).port() == local.port();
    let exact = |listener: &&T| bound(listener).ip().to_canonical() == local.ip().to_canonical();
    listeners.iter().find(|listener| by_port(listener) && exact(listener)).or_else(|| listeners.iter().find(by_port))
}

/// Counts a connection for as long as it is open.
struct Counted<'a>(&'a AtomicUsize, &'a IntGauge);

impl<'a> Counted<'a> {
    fn new(all: &'a AtomicUsize, of_door: &'a IntGauge, most: usize) -> Option<Self> {
        if all.fetch_add(1, Ordering::Relaxed) >= most {
            all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        of_door.inc();
        Some(Self(all, of_door))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.dec();
    }
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static> ServerApp for FrontDoor<P> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let door = self.door(&stream)?;
        let Some(_counted) = Counted::new(&self.open, &door.open, self.limits.max_connections) else {
            door.crowded.inc();
            return None;
        };
        let stream: Stream = match &door.acceptor {
            None => stream,
            Some(acceptor) => {
                // The accepted stream is always a TCP connection: no listener is anything else.
                let tcp = *stream.into_any().downcast::<TcpStream>().ok()?;
                door.handshake(acceptor, tcp, self.limits.header_timeout).await?
            }
        };
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.proxy.process_new(stream, shutdown).await;
        }
        self.http1(stream, shutdown).await;
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

impl<P: HttpServerApp + Send + Sync + 'static> FrontDoor<P> {
    /// Pingora's loop over the requests of a connection, with a deadline armed before each.
    async fn http1(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let (guarded, watch) = Guarded::new(stream, self.limits);
        let mut session = ServerSession::new_http1(Box::new(guarded));
        let stopping = *shutdown.borrow();
        session.set_keepalive((!stopping).then_some(self.limits.keepalive.as_secs()));
        loop {
            watch.arm();
            let Some(reused) = self.proxy.process_new_http(session, shutdown).await else { return };
            let (stream, settings) = reused.consume();
            session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
        }
    }
}

/// A connection that must bring its request's header in time and in bounds. The deadline begins with the header's first
/// byte, and is looked at when further bytes arrive: a client that sends nothing more runs into Pingora's own timeout.
pub struct Guarded {
    stream: Stream,
    watch: Arc<HeaderWatch>,
}

/// What the connection's loop and the proxy tell the guard.
pub struct HeaderWatch {
    limits: Limits,
    header: Mutex<Option<Header>>,
}

#[derive(Default)]
struct Header {
    first_byte: Option<Instant>,
    bytes: usize,
}

impl HeaderWatch {
    /// A header is expected from now on.
    fn arm(&self) {
        *self.header.lock() = Some(Header::default());
    }

    /// The header is complete.
    pub fn disarm(&self) {
        *self.header.lock() = None;
    }

    fn received(&self, bytes: usize) -> std::io::Result<()> {
        let mut header = self.header.lock();
        let Some(header) = header.as_mut() else { return Ok(()) };
        if header.bytes > self.limits.max_header_bytes.saturating_mul(4) {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the request's header is too large"));
        }
        header.bytes = header.bytes.saturating_add(bytes);
        let Some(begun) = header.first_byte else {
            header.first_byte = Some(Instant::now());
            return Ok(());
        };
        if begun.elapsed() > self.limits.header_timeout {
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the request's header took too long"));
        }
        Ok(())
    }
}

impl Guarded {
    fn new(stream: Stream, limits: Limits) -> (Self, Arc<HeaderWatch>) {
        let watch = Arc::new(HeaderWatch { limits, header: Mutex::new(None) });
        (Self { stream, watch: Arc::clone(&watch) }, watch)
    }

    /// To tell that the header is complete.
    #[must_use]
    pub fn watch(&self) -> &HeaderWatch {
        &self.watch
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stream.fmt(f)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            this.watch.received(buf.filled().len().saturating_sub(before))?;
        }
        polled
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for Guarded {
    fn get_ssl(&self) -> Option<&pingora::protocols::tls::TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl GetTimingDigest for Guarded {
    /// Nobody asks, and Pingora would collect it for every request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

impl Peek for Guarded {}

/// Tells a connection's guard that its header is complete. HTTP/2 has limits of its own.
pub fn header_complete(session: &pingora_proxy::Session) {
    let stream = session.as_downstream().stream();
    if let Some(guarded) = stream.and_then(|stream| stream.as_any().downcast_ref::<Guarded>()) {
        guarded.watch().disarm();
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, Error};

    use super::*;

    #[test]
    fn the_texts_of_the_tls_library_are_known() {
        assert_eq!(Error::NoCertificatesPresented.to_string(), NO_CERTIFICATE);
        for wrong in [CertificateError::BadEncoding, CertificateError::BadSignature] {
            assert!(Error::InvalidCertificate(wrong).to_string().starts_with(BAD_CERTIFICATE));
        }
    }
}
