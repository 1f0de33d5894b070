//! The enforcement point: Pingora's phases, in the order in which a request goes through them.
//!
//! `Gateway::decide` is the heart: it reads like the table in `docs/architecture.md`. There is no way to an upstream
//! without the [`Permit`] that it puts into the context, and no branch for upgrades or other
//! special requests: a request is authorised, whatever it asks to become.

mod answer;
pub mod context;
mod cors;
pub mod credentials;
pub mod front;
pub mod headers;
pub mod held_body;
mod ids;
pub mod local;
mod outcome;
pub mod request;
pub mod respond;
pub mod routes;
mod settle;
pub mod signed;
pub mod upstream;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use ipnet::IpNet;
use pingora::{
    Error, ErrorSource, ErrorType, Result, RetryType,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

pub use self::ids::Ids;
use self::{
    answer::{announces_credits, content_length, has_no_body, reported},
    context::{Context, Metered, NormalTarget},
    credentials::Caller,
    headers::{Answered, Authorization as Passed, Told},
    held_body::Stop,
    local::Local,
    outcome::{answered_with, failure_of, write_line},
    respond::{Refusal, Wanted},
    routes::Routes,
    signed::Signed,
    upstream::{NoWay, Upstreams},
};
use crate::{
    authn::{jwt::AccessTokens, nevermined::TokenVerifier, signed::Unverified},
    authz::{Asked, DecisionPoint, Destination, Permit},
    chain::neurons::Neurons,
    config::{RouteTarget, WhenFull},
    metrics::{Metrics, RouteMetrics},
    model::{
        clock,
        decision::{Denial, Dependency},
        did::Did,
    },
    replay::Replays,
    telemetry::AccessLog,
    usage::spool::Spool,
};

/// What a reload replaces as a whole.
pub struct Serving {
    /// The routes.
    pub routes: Routes,
    /// The upstreams they name, and how others are reached.
    pub upstreams: Upstreams,
    /// Reads Nevermined access tokens; none: no route accepts them.
    pub tokens: Option<Arc<TokenVerifier>>,
    /// Verifies access tokens of our authorization server; none: there is no such server.
    pub access_tokens: Option<Arc<AccessTokens>>,
    /// Knows which keys neurons have published; none: no route accepts client certificates.
    pub neurons: Option<Arc<Neurons>>,
    /// What is asked of signed requests; none: no route accepts them.
    pub signed: Option<Signed>,
    /// Decides.
    pub decisions: Arc<DecisionPoint>,
    /// Answers on routes of the authorization server. None: there are no such routes.
    pub authorization_server: Option<Local>,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The largest request head, in bytes.
    pub max_header_bytes: usize,
    /// The longest silence while a client sends a body.
    pub body_timeout: Duration,
    /// How long a client may take nothing.
    pub write_timeout: Duration,
}

/// The proxy.
pub struct Gateway {
    /// What it serves now.
    pub serving: Arc<ArcSwap<Serving>>,
    /// Where usage events go.
    pub spool: Arc<Spool>,
    /// What metered routes do when they cannot go there.
    pub when_full: WhenFull,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Counters of requests that no route took.
    pub unrouted: RouteMetrics,
    /// One line a request; none: not wanted.
    pub access_log: Option<Arc<AccessLog>>,
    /// Names of the listeners, by what they are bound to.
    pub listeners: Vec<(std::net::SocketAddr, Arc<str>)>,
    /// Knows which signed requests have been used.
    pub replays: Arc<Replays>,
    /// Makes request ids.
    pub ids: Ids,
}

impl Gateway {
    /// Decides on a request. Nothing of it has gone anywhere when this returns.
    async fn verdict(&self, session: &mut Session, ctx: &mut Context) -> Result<Verdict, Stop> {
        match self.decide(session, ctx).await? {
            Verdict::Prove(claim) => {
                self.prove(session, ctx, &claim).await?;
                Ok(self.decide(session, ctx).await?)
            }
            verdict => Ok(verdict),
        }
    }

    /// Decides on a request, from its header and what has been proven of it.
    async fn decide(&self, session: &Session, ctx: &mut Context) -> Result<Verdict, Denial> {
        let request = session.req_header();
        let serving = Arc::clone(&ctx.serving);
        let screened = request::screen(request, serving.max_header_bytes)?;
        let path = &screened.target.path;
        ctx.target = Some(NormalTarget::new(path.as_str(), screened.target.query));
        let forward = screened.forward_origin.is_some();
        let route = serving.routes.find(&request.method, screened.host, path, forward).ok_or(Denial::NoRoute)?;
        ctx.route = Some(Arc::clone(route));
        if route.config.target == RouteTarget::AuthorizationServer {
            return Ok(Verdict::Local);
        }
        if route.config.cors.is_some() && cors::is_preflight(request) {
            return Ok(Verdict::Preflight);
        }
        if content_length(&request.headers).is_some_and(|length| length > route.config.max_body_bytes) {
            return Err(Denial::BodyTooLarge);
        }
        let identity = match &ctx.proven {
            Some(proven) => Some(Arc::clone(&proven.identity)),
            None => match serving.identify(&route.config, session, ctx.arrived(), &mut ctx.presented).await? {
                Caller::Known(identity) => Some(identity),
                Caller::Claimed(claim) => return Ok(Verdict::Prove(claim)),
                Caller::Unknown => None,
            },
        };
        ctx.identity.clone_from(&identity);
        ctx.hotkey = identity.as_ref().and_then(|identity| credentials::address(session, identity));
        let unverified_service = screened.host.split_once('.').and_then(|(label, _)| Did::from_label(label));
        // A signed request's body may have taken its time.
        let now = if ctx.proven.is_some() { Instant::now() } else { ctx.started };
        let asked = Asked { path, forward_origin: screened.forward_origin.as_ref(), unverified_service, now };
        let mut permit = serving.decisions.decide(&route.config, identity, &asked).await?;
        self.use_once(ctx).await?;
        if let Some(meter) = permit.take_meter() {
            let room = match self.spool.reserve() {
                Ok(room) => Some(room),
                Err(_) if self.when_full == WhenFull::ServeUnmetered => None,
                Err(_) => return Err(Denial::Unavailable(Dependency::Spool)),
            };
            ctx.meter = Some(Metered { meter, room });
        }
        ctx.permit = Some(permit);
        Ok(Verdict::Forward)
    }

    fn told(ctx: &Context) -> Option<Told<'_>> {
        let permit = ctx.permit.as_ref()?;
        let route = &ctx.route.as_ref()?.config;
        let host = match permit.destination()? {
            Destination::Origin(origin) => Some(origin.host_field()),
            Destination::Configured(_) if route.preserve_host => None,
            Destination::Configured(index) => ctx.serving.upstreams.host_of(index),
        };
        let entitlement = permit.identity().and_then(|identity| identity.entitlement.as_ref());
        let identity = entitlement
            .map(|entitlement| &entitlement.fields)
            .or_else(|| permit.open_service().map(|service| &service.fields));
        let authorization = match (permit.identity(), permit.endpoint(), &ctx.serving.tokens) {
            (Some(identity), Some(endpoint), Some(tokens)) => {
                tokens.authorization_for(identity, endpoint).map_or(Passed::Remove, Passed::Replace)
            }
            (_, None, _) if !route.reads_authorization() => Passed::Keep,
            _ => Passed::Remove,
        };
        let hotkey = ctx.hotkey.as_deref();
        let access_token = permit.identity().and_then(|identity| identity.access_token.as_ref());
        let trusted =
            ctx.client.is_some_and(|client| ctx.serving.trusted_proxies.iter().any(|net| net.contains(&client)));
        let scheme = if ctx.tls { "https" } else { "http" };
        Some(Told {
            client: ctx.client,
            trusted,
            scheme,
            identity,
            hotkey,
            access_token,
            authorization,
            host,
            request_id: ctx.id_text(),
            preserve_case: route.preserve_header_case,
        })
    }
}

/// What becomes of a request that is not refused.
enum Verdict {
    /// It goes to the upstream.
    Forward,
    /// It is a browser's question, which is answered here.
    Preflight,
    /// It is signed, and the signature has to be verified first.
    Prove(Box<Unverified>),
    /// The authorization server answers it: who may ask is for it to find out.
    Local,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let at_micros = clock::now_micros();
        Context::new(self.serving.load_full(), self.ids.next(at_micros), at_micros)
    }

    /// None: Pingora's compression would otherwise be asked about every request.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        front::header_complete(session);
        session.set_read_timeout(Some(ctx.serving.body_timeout));
        session.set_write_timeout(Some(ctx.serving.write_timeout));
        session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
        ctx.client =
            session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip().to_canonical());
        ctx.tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        ctx.listener =
            session.server_addr().and_then(|address| address.as_inet()).and_then(|local| self.listener(*local));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let verdict = self.verdict(session, ctx).await;
        ctx.decision = ctx.started.elapsed();
        if let Some(route) = &ctx.route {
            route.metrics.decision_seconds.observe(ctx.decision.as_secs_f64());
        }
        let cors = ctx.route.as_ref().and_then(|route| route.config.cors.as_ref());
        match verdict {
            Ok(Verdict::Forward) => Ok(false),
            Ok(Verdict::Prove(_)) => {
                Err(Error::explain(ErrorType::InternalError, "proven and asked for a proof again"))
            }
            Err(Stop::Broken(error)) => Err(error),
            Ok(Verdict::Local) => match &ctx.serving.authorization_server {
                Some(local) => local::answer(session, local, ctx).await.map(|()| true),
                None => Err(Error::explain(ErrorType::InternalError, "there is no authorization server")),
            },
            Ok(Verdict::Preflight) => {
                if let Some(cors) = cors {
                    cors::preflight(session, cors).await?;
                }
                Ok(true)
            }
            Err(Stop::Denied(denial)) => {
                let wanted = ctx.route.as_ref().map_or(Wanted::NOTHING, |route| Wanted::by(&route.config));
                let refusal = Refusal { denial: &denial, wanted, presented: ctx.presented };
                respond::refuse(session, &refusal, cors, ctx.id_text()).await?;
                let route = ctx.route.as_ref().map_or("-", |route| &*route.name);
                self.metrics.denials.with_label_values(&[route, denial.reason()]).inc();
                ctx.denial = Some(denial);
                Ok(true)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        let upgraded = ctx.answer.status == Some(101);
        if let Some(held) = &ctx.held
            && !upgraded
        {
            return held.replace(body);
        }
        let length = body.as_ref().map_or(0, Bytes::len);
        ctx.received = ctx.received.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if !upgraded && ctx.route.as_ref().is_some_and(|route| ctx.received > route.config.max_body_bytes) {
            ctx.failure = Some("body_too_large");
            return Err(Error::explain(ErrorType::HTTPStatus(413), "request body"));
        }
        Ok(())
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let destination = ctx.permit.as_ref().and_then(Permit::destination);
        let upstreams = &ctx.serving.upstreams;
        let found = match destination {
            None => return Err(Error::explain(ErrorType::InternalError, "no permit")),
            Some(Destination::Configured(index)) => upstreams.configured(index, ctx.attempt).await,
            Some(Destination::Origin(origin)) => upstreams.named(origin, ctx.attempt).await,
        };
        found.map_err(|no_way: NoWay| {
            ctx.failure = Some(no_way.as_str());
            Error::because(ErrorType::HTTPStatus(502), "finding the upstream", no_way)
        })
    }

    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let told = Self::told(ctx).ok_or_else(|| Error::explain(ErrorType::InternalError, "no permit"))?;
        headers::to_upstream(upstream_request, &told)?;
        if let Some(target) = &ctx.target
            && !request::asks_for(upstream_request, target.as_str())
        {
            upstream_request.set_raw_path(target.as_str().as_bytes())?;
        }
        if ctx.held.is_some() {
            // The client has been told to send, and has sent.
            upstream_request.remove_header(&http::header::EXPECT);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let status = response.status.as_u16();
        if response.status.is_informational() && status != 101 {
            return Ok(());
        }
        let Some(route) = ctx.route.clone() else { return Ok(()) };
        let after = ctx.started.elapsed();
        route.metrics.upstream_seconds.observe(after.saturating_sub(ctx.decision).as_secs_f64());
        ctx.answer.status = Some(status);
        if let Some(held) = &mut ctx.held {
            held.release();
        }
        ctx.answer.reported = reported(&response.headers);
        ctx.answer.trailer_announced = announces_credits(&response.headers);
        let request = session.req_header();
        ctx.answer.remaining = content_length(&response.headers);
        let ends_here = has_no_body(&request.method, response, ctx.answer.remaining);
        let answered = Answered {
            request_id: ctx.meter.is_some().then(|| ctx.id_text()),
            hide_credits: route.config.hide_credits_header,
            preserve_case: route.config.preserve_header_case,
        };
        headers::to_client(response, &answered)?;
        if let Some(cors) = &route.config.cors {
            cors::expose_to_pages(response, request, cors)?;
        }
        if ends_here {
            self.settle(ctx, request.method.as_str(), status)?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if ctx.meter.is_none() {
            return Ok(None);
        }
        let length = u64::try_from(body.as_ref().map_or(0, Bytes::len)).unwrap_or(u64::MAX);
        if let Some(remaining) = &mut ctx.answer.remaining {
            *remaining = remaining.saturating_sub(length);
        }
        // The client has everything once it has the announced length, whether or not the stream's end was seen here.
        let complete = ctx.answer.remaining == Some(0) && !ctx.answer.trailer_announced;
        if (end_of_stream || complete)
            && let Some(status) = ctx.answer.status
        {
            self.settle(ctx, session.req_header().method.as_str(), status)?;
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Context,
    ) -> Result<Option<Bytes>> {
        if let Some(reported) = reported(trailers) {
            ctx.answer.reported = Some(reported);
        }
        if ctx.route.as_ref().is_some_and(|route| route.config.hide_credits_header) {
            trailers.remove(&headers::CREDITS_CONSUMED);
        }
        if let Some(status) = ctx.answer.status {
            self.settle(ctx, session.req_header().method.as_str(), status)?;
        }
        Ok(None)
    }

    /// Nothing has been sent when a connection cannot be made, so the next address is tried.
    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
        ctx.attempt = ctx.attempt.saturating_add(1);
        ctx.failure = Some(match failure_of(&error) {
            (_, kind @ ("tls" | "timeout")) => kind,
            _ => "connect",
        });
        error.set_retry(ctx.attempt < MAX_ATTEMPTS);
        error
    }

    /// A connection that the upstream closed while it was idle breaks at the first write as well as at the first read. Pingora
    /// tries another one only after the second.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let whole = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
        if *error.esource() == ErrorSource::Upstream
            && *error.etype() == ErrorType::WriteError
            && ctx.answer.status.is_none()
        {
            error.retry = RetryType::ReusedOnly;
        }
        if whole {
            error.retry.decide_reuse(reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let (status, kind) = failure_of(error);
        let kind = *ctx.failure.get_or_insert(kind);
        let route = ctx.route.as_ref().map_or("-", |route| &*route.name);
        if *error.esource() == ErrorSource::Upstream || status == 502 {
            self.metrics.upstream_errors.with_label_values(&[route, kind]).inc();
            // Who the upstream is, its error says; what was asked of it, the access log.
            tracing::warn!(request_id = %ctx.id, route, kind, error = error.etype().as_str(), "the upstream failed");
        } else {
            tracing::debug!(request_id = %ctx.id, route, kind, %error, "the request failed");
        }
        if status > 0 && answered_with(session) == 0 {
            let cors = ctx.route.as_ref().and_then(|route| route.config.cors.as_ref());
            // The client may be gone; there is nobody to tell then.
            let _ = respond::failed(session, status, cors, ctx.id_text()).await;
        }
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true // logged in `fail_to_proxy`, without what the client sent
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Context) {
        let status = answered_with(session);
        if ctx.meter.is_some() {
            self.settle_unfinished(session, error, ctx, status);
        }
        ctx.route.as_ref().map_or(&self.unrouted, |route| &route.metrics).answered(status);
        if let Some(log) = &self.access_log {
            write_line(log, session, ctx, status);
        }
    }
}

impl Gateway {
    fn listener(&self, local: std::net::SocketAddr) -> Option<Arc<str>> {
        front::bound_to(&self.listeners, |(address, _)| *address, local).map(|(_, name)| Arc::clone(name))
    }
}

/// How many addresses of an upstream are tried.
const MAX_ATTEMPTS: usize = 3;
/// How long the rest of a refused request's body is read, so that its connection can be used again.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
