//! The composition root: builds every service out of the configuration; owns start, reload and stop.
//!
//! Two kinds of threads: Pingora's, one runtime per core without work stealing, which carry requests and never wait for
//! a disk or a database; and one small runtime, `outside`, for everything that asks somebody else. A question that a
//! request causes is asked there, so that it outlives the request and is shared by all who wait for it.

pub mod assemble;
mod auth_listener;
mod authorization_server;
mod lifecycle;
mod reload;
mod subnets;

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use pingora::{
    listeners::tls::{Acceptor, TlsSettings},
    server::{RunArgs, Server, configuration::ServerConf},
    services::{background::GenBackgroundService, listening::Service},
};
use pingora_proxy::HttpProxy;
use tokio::runtime::{Builder, Runtime};

use self::{
    auth_listener::AuthListener,
    authorization_server::AuthorizationServer,
    lifecycle::{Background, Stopping},
    reload::Reloading,
};
use crate::{
    admin::{self, Readiness},
    config::{self, Config, ConfigError},
    decision::introspect,
    metrics::Metrics,
    proxy::{
        Gateway, Ids,
        credentials::HandOver,
        front::{Door, FrontDoor, Limits},
    },
    telemetry::AccessLog,
    tls::{CertificateFiles, Certificates, client::ClientCertificates},
};

/// Serves what `load` says, until told to stop. On SIGHUP `load` is asked again, for what can change while serving.
///
/// # Errors
/// When the gateway cannot start: the text says what to mend.
pub fn serve(config: &Config, load: impl Fn() -> Result<Config, ConfigError> + Send + 'static) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    prevent_core_dumps();
    try_addresses(config)?;
    let outside = outside()?;
    let metrics = Metrics::new()?;
    let certificates = certificates(config)?;
    let (rooms, movers) = outside.block_on(assemble::rooms(config))?;
    let reloading = Reloading::start(config, &rooms, &metrics)?;
    let access_log = config.log.access.then(AccessLog::start).transpose()?;
    let readiness = Readiness::new(Arc::clone(&rooms.spool));

    let in_use: Vec<Arc<Certificates>> = certificates.iter().flatten().cloned().collect();
    if let Some(address) = config.admin {
        let watched = admin::Watched {
            metrics: Arc::clone(&metrics),
            spool: Arc::clone(&rooms.spool),
            writer: Arc::clone(&rooms.writer_stats),
            reports: rooms.report_stats.clone(),
            facts: Arc::clone(&rooms.facts),
            neurons: rooms.subnets.as_ref().map(|subnets| Arc::clone(subnets.tables())),
            owners: rooms.owners.clone(),
            revocations: reloading.authorization_server.as_ref().map(AuthorizationServer::revocations),
            ledger: Arc::clone(&rooms.ledger),
            replays: Arc::clone(&rooms.replays),
            certificates: in_use.clone(),
            access_log: access_log.clone(),
            readiness: readiness.clone(),
        };
        serve_router(&outside, address, admin::router(watched)).context("the admin listener")?;
    }
    if let Some(introspection) = &config.introspection {
        let router = introspect::router(Arc::clone(&reloading.decider), Arc::clone(&metrics));
        serve_router(&outside, introspection.address, router).context("the introspection listener")?;
    }

    let auth_listener = match &reloading.auth_request {
        Some((address, endpoint)) => {
            let bound = outside.block_on(AuthListener::bind(*address, Arc::clone(endpoint), &metrics));
            Some(bound.context("the auth_request listener")?)
        }
        None => None,
    };
    outside.spawn(lifecycle::watch_database(rooms.store.clone(), Arc::clone(&metrics)));
    if let Some((address, router)) = reloading.authorization_server.as_ref().and_then(AuthorizationServer::admin) {
        serve_router(&outside, address, router).context("the authorization server's admin listener")?;
    }

    let gateway = Gateway {
        serving: Arc::clone(&reloading.serving),
        spool: Arc::clone(&rooms.spool),
        when_full: config.usage.when_full,
        unrouted: metrics.route("-"),
        metrics: Arc::clone(&metrics),
        access_log: access_log.clone(),
        listeners: config.listeners.iter().map(|listener| (listener.address, listener.name.as_str().into())).collect(),
        replays: Arc::clone(&rooms.replays),
        ids: Ids::default(),
    };
    outside.spawn(lifecycle::reload_on_hangup(load, reloading));
    let background = Background::start(&outside, config, &rooms, movers, auth_listener, in_use, readiness.clone());
    let stopping = Stopping {
        background: Some(background).into(),
        open: Arc::default(),
        grace: config.server.grace_period,
        access_log,
        readiness,
    };
    run(config, gateway, &certificates, &metrics, stopping)
}

/// Hands over to Pingora, which returns only to end the process.
fn run(
    config: &Config,
    gateway: Gateway,
    certificates: &[Option<Arc<Certificates>>],
    metrics: &Metrics,
    stopping: Stopping,
) -> anyhow::Result<()> {
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config)?);
    server.bootstrap();
    let mut proxy = HttpProxy::new(gateway, Arc::clone(&server.configuration));
    proxy.server_options = Some(server_options(config));
    proxy.handle_init_modules();
    let limits = Limits {
        header_timeout: config.server.header_timeout,
        keepalive: config.server.keepalive_timeout,
        max_connections: config.server.max_connections,
        max_header_bytes: config.server.max_header_bytes,
    };
    let doors = config.listeners.iter().zip(certificates);
    let doors = doors.map(|(listener, certificates)| door(listener, certificates.as_ref(), metrics));
    let doors = doors.collect::<anyhow::Result<_>>()?;
    let front = FrontDoor::new(doors, Arc::new(proxy), limits, Arc::clone(&stopping.open));
    let mut service = Service::new("gateway".to_owned(), front);
    for listener in &config.listeners {
        service.add_tcp(&listener.address.to_string());
    }
    service.threads = Some(config.server.threads);
    server.add_service(service);
    server.add_service(GenBackgroundService::new("stopping".to_owned(), Arc::new(stopping)));
    server.run(RunArgs::default());
    Ok(())
}

fn door(
    listener: &config::Listener,
    certificates: Option<&Arc<Certificates>>,
    metrics: &Metrics,
) -> anyhow::Result<Door> {
    let tls = listener.tls.as_ref().zip(certificates);
    let acceptor = tls.map(|(tls, certificates)| acceptor(tls, certificates)).transpose()?;
    let name = listener.name.as_str();
    let refused = |reason| metrics.connections_refused.with_label_values(&[name, reason]);
    Ok(Door {
        name: name.into(),
        address: listener.address,
        acceptor,
        open: metrics.connections.with_label_values(&[name]),
        crowded: refused("too_many"),
        handshake_failed: refused("handshake"),
        no_certificate: refused("no_client_certificate"),
        bad_certificate: refused("bad_client_certificate"),
    })
}

fn acceptor(tls: &config::Tls, certificates: &Arc<Certificates>) -> anyhow::Result<Acceptor> {
    let clients = match tls.client_certificates {
        config::ClientCertificates::Ignore => None,
        config::ClientCertificates::Optional => Some(ClientCertificates::new(false)),
        config::ClientCertificates::Required => Some(ClientCertificates::new(true)),
    };
    let config = certificates.server_config(tls.alpn_h2, clients.clone())?;
    let Some(clients) = clients else { return Ok(Acceptor::from_server_config(config)) };
    // Only an acceptor made of settings calls back. It gets our configuration in place of the one it has made.
    let mut settings =
        TlsSettings::with_callbacks(Box::new(HandOver(clients))).map_err(|error| anyhow::anyhow!(error))?;
    settings.set_cert_resolver(Arc::clone(certificates) as Arc<dyn rustls::server::ResolvesServerCert>);
    let mut acceptor = settings.build();
    acceptor.acceptor = config.into();
    Ok(acceptor)
}

fn server_options(config: &Config) -> pingora::apps::HttpServerOptions {
    let mut options = pingora::apps::HttpServerOptions::default();
    options.h2_idle_timeout = Some(config.server.keepalive_timeout);
    options
}

fn server_conf(config: &Config) -> anyhow::Result<ServerConf> {
    let ca_file =
        config.egress.extra_ca.as_deref().map(|extra| trust_bundle(extra, &config.server.data_dir)).transpose()?;
    Ok(ServerConf {
        threads: config.server.threads,
        // One runtime per thread: what one request touches stays on one core.
        work_stealing: false,
        grace_period_seconds: Some(config.server.grace_period.as_secs()),
        graceful_shutdown_timeout_seconds: Some(1),
        upstream_keepalive_pool_size: config.egress.keepalive_pool,
        max_retries: 4,
        ca_file,
        ..ServerConf::default()
    })
}

/// Pingora trusts the system's authorities or those of one file. Both together are a file of ours.
fn trust_bundle(extra: &Path, data_dir: &Path) -> anyhow::Result<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut bundle = std::fs::read_to_string(extra).with_context(|| format!("reading {}", extra.display()))?;
    for certificate in rustls_native_certs::load_native_certs().certs {
        bundle.push_str("\n-----BEGIN CERTIFICATE-----\n");
        bundle.push_str(&STANDARD.encode(&certificate));
        bundle.push_str("\n-----END CERTIFICATE-----\n");
    }
    let path = data_dir.join("upstream-trust.pem");
    std::fs::write(&path, bundle).with_context(|| format!("writing {}", path.display()))?;
    path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

/// One per listener, in their order; none where a listener is plain.
fn certificates(config: &Config) -> anyhow::Result<Vec<Option<Arc<Certificates>>>> {
    let files = |files: &config::CertificateFiles| CertificateFiles {
        certificate: files.cert.clone(),
        key: files.key.clone(),
        names: files.names.clone(),
    };
    let load = |tls: &config::Tls| Certificates::load(tls.certificates.iter().map(files).collect());
    config.listeners.iter().map(|listener| listener.tls.as_ref().map(load).transpose()).collect()
}

/// Pingora's listeners fail by a panic in a task, and the process goes on without them. So every address is tried
/// first, where a mistake can be told.
fn try_addresses(config: &Config) -> anyhow::Result<()> {
    for listener in &config.listeners {
        TcpListener::bind(listener.address)
            .with_context(|| format!("listener {:?} cannot listen on {}", listener.name, listener.address))?;
    }
    Ok(())
}

fn serve_router(outside: &Runtime, address: SocketAddr, router: axum::Router) -> anyhow::Result<()> {
    let listener = outside
        .block_on(tokio::net::TcpListener::bind(address))
        .with_context(|| format!("cannot listen on {address}"))?;
    outside.spawn(async move {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        if let Err(error) = axum::serve(listener, service).await {
            tracing::error!(%error, %address, "a listener ended");
        }
    });
    Ok(())
}

fn outside() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(OUTSIDE_THREADS)
        .thread_name("outside")
        .enable_all()
        .build()
        .context("starting the runtime for outside questions")
}

const OUTSIDE_THREADS: usize = 2;

/// Keys and tokens are in memory; a crash must not write them to a disk.
fn prevent_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
}

/// How long the store may take to be there when the gateway starts.
const STORE_PATIENCE: Duration = Duration::from_secs(5);
