//! The listener of the `auth_request` endpoint: bounded in connections, in the size of a head and in patience, because the
//! proxy in front of it passes on what strangers send.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use prometheus::IntCounter;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{decision::auth_request::Endpoint, metrics::Metrics};

/// Connections of trusted proxies at a time. A proxy needs one for each request that it is asking about.
const MAX_CONNECTIONS: usize = 4096;
/// Those of everybody else, who get nothing but a refusal, or are asking how we are.
const MAX_STRANGERS: usize = 64;
/// The largest head of a request: a certificate of the largest size, every character of it escaped, and the client's own
/// headers. Larger ones are answered 431.
const MAX_HEAD_BYTES: usize = 192 << 10;
/// How long a head may take, or a connection be idle: longer than nginx keeps one, which otherwise would sometimes ask on a
/// connection that is just being closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// The same for strangers.
const STRANGERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long questions in flight may take when the gateway stops.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// A socket that listens, and the endpoint that it leads to, which a reload replaces.
pub struct AuthListener {
    listener: TcpListener,
    endpoint: Arc<ArcSwap<Endpoint>>,
    /// Connections that there was no room for.
    crowded: IntCounter,
}

impl AuthListener {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(
        address: SocketAddr,
        endpoint: Arc<ArcSwap<Endpoint>>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let crowded = metrics.connections_refused.with_label_values(&["auth_request", "too_many"]);
        Ok(Self { listener, endpoint, crowded })
    }

    /// Serves until told to stop, and then what has been asked.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let [known, strangers] = [MAX_CONNECTIONS, MAX_STRANGERS].map(|most| Arc::new(Semaphore::new(most)));
        let mut connections = JoinSet::new();
        let mut stopped = pin!(super::lifecycle::told_to_stop(stop.clone()));
        loop {
            let accepted = tokio::select! {
                () = &mut stopped => break,
                // So that ended connections are forgotten.
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "the auth_request listener cannot accept");
                    // Too many open files, most likely: some must be closed first.
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (room, patience) = if self.endpoint.load().trusts(peer) {
                (&known, HEAD_TIMEOUT)
            } else {
                (&strangers, STRANGERS_TIMEOUT)
            };
            let Ok(place) = Arc::clone(room).try_acquire_owned() else {
                self.crowded.inc();
                continue;
            };
            let (endpoint, stop) = (Arc::clone(&self.endpoint), stop.clone());
            connections.spawn(async move {
                converse(stream, peer, patience, endpoint, stop).await;
                drop(place);
            });
        }
        drop(self.listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS, all_ended).await.is_err() {
            tracing::warn!("stopped with questions of auth_request unanswered");
        }
    }
}

/// One connection.
async fn converse(
    stream: TcpStream,
    peer: IpAddr,
    patience: Duration,
    endpoint: Arc<ArcSwap<Endpoint>>,
    stop: watch::Receiver<bool>,
) {
    // Answers are small, and waited for.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(MAX_HEAD_BYTES)
        .title_case_headers(true);
    let service = service_fn(|request| {
        let endpoint = endpoint.load_full();
        async move { Ok::<_, Infallible>(endpoint.answer(peer, &request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = super::lifecycle::told_to_stop(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(error, "a connection of auth_request ended");
    }
}
