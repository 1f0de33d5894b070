//! Whether a neuron may pass, for NGINX's `auth_request`: the endpoint of nexus-auth (nexus.md section 1).
//!
//! NGINX has verified that the client holds the key of its certificate, and passes the certificate on in a header. That
//! header proves nothing by itself, since certificates are public: only peers that the configuration names are believed.
//! Every method and path is the same question. What is refused is a 403, whatever the reason: NGINX turns anything else into
//! a 500.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use ipnet::IpNet;
use quick_cache::{Weighter, sync::Cache};

use crate::{
    authn::certificate::{
        self, Rules,
        forwarded::{self, Unreadable},
    },
    authz::neurons,
    chain::neurons::Neurons,
    config::NeuronPolicy,
    metrics::{Metrics, RouteMetrics},
    model::{
        certificate::ClientCertificate,
        clock::Timestamp,
        decision::{Denial, Reason},
        identity::Identity,
    },
};

/// Which certificate the client has presented to the proxy.
const CLIENT_CERT: &str = "x-client-cert";
/// Whose it is, in the answer.
const HOTKEY: &str = "x-hotkey";
/// This endpoint in the metrics.
const ROUTE: &str = "auth_request";

/// Bytes of certificates, and of the headers that they were in, that are remembered.
const REMEMBERED_BYTES: u64 = 8 << 20;
/// What an ordinary one takes.
const ORDINARY_BYTES: usize = 1 << 10;

/// What decides.
pub struct Endpoint {
    rules: Rules,
    policy: NeuronPolicy,
    neurons: Arc<Neurons>,
    trusted_peers: Vec<IpNet>,
    health_path: String,
    /// Certificates that could be read, by the header they were in. Whose they are is asked each time.
    read: Cache<Box<[u8]>, Arc<ClientCertificate>, Bytes>,
    metrics: Arc<Metrics>,
    answers: RouteMetrics,
}

/// Settings of an endpoint.
pub struct Options {
    /// Which certificates are good enough.
    pub rules: Rules,
    /// Which neurons may pass.
    pub policy: NeuronPolicy,
    /// Which proxies are believed.
    pub trusted_peers: Vec<IpNet>,
    /// The path that answers 200 to anybody who asks no question.
    pub health_path: String,
}

/// A refusal, and what the replaced system said of it (nexus.md section 1.2).
struct Refused {
    denial: Denial,
    body: &'static str,
    /// Whom the certificate names, as far as a log should have it.
    unverified_organization: Option<String>,
}

impl Refused {
    /// Before anybody was named.
    fn early(denial: Denial, body: &'static str) -> Self {
        Self { denial, body, unverified_organization: None }
    }
}

const GRANTED: &str = "Access granted";
const NO_CERTIFICATE: &str = "Access denied: No client certificate";
const BROKEN_ENCODING: &str = "Access denied: Invalid certificate encoding";
const MALFORMED: &str = "Access denied: Invalid certificate";
const NO_ORGANIZATION: &str = "Access denied: No organization in certificate";
const NOT_AUTHORIZED: &str = "Access denied: Organization not authorized";
const NOT_VALID: &str = "Access denied: Certificate validation failed";
/// The replaced system believed everybody.
const UNTRUSTED_PEER: &str = "Access denied: Peer not trusted";

impl Endpoint {
    /// Decides by these tables.
    #[must_use]
    pub fn new(options: Options, neurons: Arc<Neurons>, metrics: Arc<Metrics>) -> Arc<Self> {
        let Options { rules, policy, trusted_peers, health_path } = options;
        let entries = usize::try_from(REMEMBERED_BYTES).unwrap_or(usize::MAX) / ORDINARY_BYTES;
        Arc::new(Self {
            rules,
            policy,
            neurons,
            trusted_peers,
            health_path,
            read: Cache::with_weighter(entries, REMEMBERED_BYTES, Bytes),
            answers: metrics.route(ROUTE),
            metrics,
        })
    }

    /// Answers a request that came from this address. Its body is not looked at.
    pub async fn answer<B>(&self, peer: IpAddr, request: &Request<B>) -> Response<Body> {
        if self.is_health_check(request) {
            return respond(request.method(), StatusCode::OK, "OK");
        }
        let begun = Instant::now();
        let decided = self.decide(peer, request.headers()).await;
        self.answers.decision_seconds.observe(begun.elapsed().as_secs_f64());
        let (status, body, hotkey) = match &decided {
            Ok(identity) => (StatusCode::OK, GRANTED, identity.subject.hotkey()),
            Err(refused) => {
                self.metrics.denials.with_label_values(&[ROUTE, refused.denial.reason()]).inc();
                (StatusCode::FORBIDDEN, refused.body, None)
            }
        };
        self.answers.answered(status.as_u16());
        let reason = decided.as_ref().err().map_or("ok", |refused| refused.denial.reason());
        let unverified_organization =
            decided.as_ref().err().and_then(|refused| refused.unverified_organization.as_deref());
        let (status_number, hotkey_text) = (status.as_u16(), hotkey.as_deref());
        tracing::debug!(%peer, status = status_number, reason, hotkey = hotkey_text, unverified_organization, "auth request");
        let mut response = respond(request.method(), status, body);
        if let Some(hotkey) = hotkey.and_then(|hotkey| HeaderValue::try_from(&*hotkey).ok()) {
            response.headers_mut().insert(HOTKEY, hotkey);
        }
        response
    }

    async fn decide(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Identity, Refused> {
        if !self.trusts(peer) {
            return Err(Refused::early(Denial::BadRequest("untrusted_peer"), UNTRUSTED_PEER));
        }
        let certificate = self.certificate(self.header(headers)?)?;
        let netuid = self.policy.netuid;
        let identified = certificate::identify(&certificate, self.rules, netuid, &self.neurons, Timestamp::now()).await;
        let admitted = identified.and_then(|identity| {
            neurons::admit(&self.policy, Some(&self.neurons), &identity.subject)?;
            Ok(identity)
        });
        admitted.map_err(|denial| Refused {
            body: body_of(denial.reason()),
            denial,
            unverified_organization: certificate.organizations.first().map(|named| beginning(&named.text)),
        })
    }

    /// Whether a proxy is believed.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_peers.iter().any(|network| network.contains(&peer))
    }

    /// The header. The replaced system took the first of several; two proxies that each add one may mean another each.
    fn header<'h>(&self, headers: &'h HeaderMap) -> Result<&'h [u8], Refused> {
        let mut values = headers.get_all(CLIENT_CERT).iter().map(HeaderValue::as_bytes);
        let first = values.next().unwrap_or_default().trim_ascii();
        if self.rules == Rules::Strict && values.any(|other| other.trim_ascii() != first) {
            return Err(Refused::early(Denial::BadRequest("two_credentials"), MALFORMED));
        }
        if first.is_empty() {
            return Err(Refused::early(Denial::NoCredential, NO_CERTIFICATE));
        }
        Ok(first)
    }

    fn certificate(&self, unverified_header: &[u8]) -> Result<Arc<ClientCertificate>, Refused> {
        if let Some(certificate) = self.read.get(unverified_header) {
            return Ok(certificate);
        }
        let certificate = forwarded::read(unverified_header, self.rules).map_err(|unreadable| {
            let body = match unreadable {
                Unreadable::Encoding => BROKEN_ENCODING,
                Unreadable::Certificate(_) => MALFORMED,
            };
            Refused::early(Denial::InvalidCredential("malformed_certificate"), body)
        })?;
        let certificate = Arc::new(certificate);
        self.read.insert(unverified_header.into(), Arc::clone(&certificate));
        Ok(certificate)
    }

    /// Whether somebody asks only how we are. Some proxies ask with the path that the client wrote, so a request that a
    /// proxy asks for a client is always a question.
    fn is_health_check<B>(&self, request: &Request<B>) -> bool {
        let of_proxy =
            |name: &str| ["x-client-cert", "x-original-", "x-forwarded-"].iter().any(|it| name.starts_with(it));
        request.uri().path() == self.health_path && !request.headers().keys().any(|name| of_proxy(name.as_str()))
    }
}

fn respond(method: &Method, status: StatusCode, body: &'static str) -> Response<Body> {
    let body = if method == Method::HEAD { Body::empty() } else { body.into() };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// What the replaced system said instead of a reason. Reasons that it did not know are said as what they are nearest to.
fn body_of(reason: Reason) -> &'static str {
    match reason {
        "malformed_certificate" => MALFORMED,
        "no_organization" => NO_ORGANIZATION,
        "unsupported_key_algorithm"
        | "key_mismatch"
        | "expired"
        | "not_yet_valid"
        | "wrong_key_usage"
        | "bad_signature"
        | "not_self_signed" => NOT_VALID,
        _ => NOT_AUTHORIZED,
    }
}

/// As much of a stranger's text as a log should have: a hotkey and somewhat more.
fn beginning(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

/// Weighs what is remembered by the memory it takes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Box<[u8]>, Arc<ClientCertificate>> for Bytes {
    fn weight(&self, header: &Box<[u8]>, certificate: &Arc<ClientCertificate>) -> u64 {
        let texts = certificate.organizations.iter().map(|organization| organization.text.len());
        let total = header.len() + texts.sum::<usize>() + size_of::<ClientCertificate>();
        u64::try_from(total).unwrap_or(u64::MAX)
    }
}
