//! `[oauth]`: the authorization server.
//!
//! Without a file, the variables of the replaced system say the same (auth-gateway.md section 8). Next to a file they
//! count for nothing, since most of their names (`PORT`, `NETWORK`, `PUBLIC_URL`, …) are everybody's.

mod parse;
mod signing;
mod wallets;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;

use self::parse::{Origin, Period, TrustWord};
pub use self::{
    signing::{KeySource, is_private},
    wallets::Wallets,
};
use super::{
    context::Context,
    reader::Section,
    server::Server,
    value::{Parse, Raw, Size, Timeout, word},
};
pub use crate::model::network::Network;
use crate::model::secret::Secret;

/// The authorization server.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// `public_url` or `PUBLIC_URL`: where clients and browsers reach it; without a final slash.
    pub public_url: String,
    /// `issuer` or `JWT_ISSUER`: its name in tokens and metadata (RFC 8414 §2). Default: `public_url`.
    pub issuer: String,
    /// `audience` or `JWT_AUDIENCE`: whom access tokens are for unless the client names a resource. Default
    /// `bittensor-apps`.
    pub audience: String,
    /// `resources`: what clients may name instead (RFC 8707 §2): URIs of the resource servers that take our tokens.
    pub resources: Vec<String>,
    /// `verification_uri` or `VERIFICATION_URI`: where users enter a device's code. Default: ours.
    pub verification_uri: String,
    /// `compatibility`: `standard` (the default), or `auth-gateway`, the default where there is no file.
    pub compatibility: OAuthCompatibility,
    /// `revocations_stale_for`: how long routes go on accepting access tokens while the database does not say which were
    /// taken back. Default 2 min.
    pub revocations_stale_for: Duration,
    /// `production` (true), or `NODE_ENV` (`development`): https is demanded, of ourselves and of clients.
    pub production: bool,
    /// `network` or `NETWORK`: whose subnets scopes are about. Default: mainnet.
    pub network: Network,
    /// `signing_keys` or `RSA_*`: what tokens are signed with.
    pub keys: KeySource,
    /// `[oauth.wallets]`.
    pub wallets: Wallets,
    /// `[oauth.lifetimes]`.
    pub lifetimes: Lifetimes,
    /// `[oauth.limits]`.
    pub limits: RateLimits,
    /// `[oauth.events]`.
    pub events: Events,
    /// `admin_key` or `ADMIN_API_KEY`: opens the admin API. None: nobody gets in.
    pub admin_key: Option<Secret>,
    /// `admin_address` or `ADMIN_PORT`: where the admin API is served instead of beside the rest.
    pub admin_address: Option<SocketAddr>,
    /// `server.trusted_proxies` or `TRUST_PROXY`: whose `X-Forwarded-For` is believed.
    pub trusted: Trusted,
    /// `max_body_bytes` or `JSON_BODY_LIMIT_BYTES`: the largest request body. Default 64 KiB.
    pub max_body_bytes: usize,
    /// `demo` or `DEMO_MODE`: make clients for the demonstration, and show it on the landing page. Default false.
    pub demo: bool,
    /// `wallet_banner_url` or `WALLET_BANNER_URL`: where pages send those who have no wallet. Default: nowhere.
    pub wallet_banner_url: Option<String>,
}

/// Whose status numbers, words and signed message are used (auth-gateway.md section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthCompatibility {
    /// `standard`: the RFCs'.
    Standard,
    /// `auth-gateway`: the replaced system's.
    AuthGateway,
}

/// How long things are valid.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// `access_token` or `JWT_ACCESS_TOKEN_EXPIRY`. Default 15 min.
    pub access_token: Duration,
    /// `refresh_token` or `JWT_REFRESH_TOKEN_EXPIRY`: anew at each use. Default 24 h.
    pub refresh_token: Duration,
    /// `refresh_token_total`: of all refresh tokens of one sign-in together. Default 30 d.
    pub refresh_token_total: Duration,
    /// `refresh_retry`: how long after its use a refresh token may be used once more, because the answer was lost. Default
    /// 30 s.
    pub refresh_retry: Duration,
    /// `authorization_code` or `JWT_AUTH_CODE_EXPIRY`. Default 30 s.
    pub authorization_code: Duration,
    /// `authorize_session`: from opening the authorize page to signing. Default 10 min.
    pub authorize_session: Duration,
    /// `challenge` or `CHALLENGE_TTL_SECONDS`. Default 2 min.
    pub challenge: Duration,
    /// `device_code` or `DEVICE_CODE_TTL_SECONDS`. Default 5 min.
    pub device_code: Duration,
    /// `device_poll_interval` or `DEVICE_CODE_POLL_INTERVAL`: how often a device may ask. Default 5 s.
    pub device_poll_interval: Duration,
}

/// How often things may be done in a minute.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// `requests` or `RATE_LIMIT_GLOBAL`: by one address, over all endpoints. Default 30.
    pub requests: u32,
    /// `challenges` or `RATE_LIMIT_CHALLENGE`: by one address, at each endpoint that asks for or takes a signature.
    /// Default 5.
    pub challenges: u32,
    /// `secrets`: client secrets and admin keys that one address may try. Right ones that were tried before do not count.
    /// Default 10.
    pub secrets: u32,
}

/// What is remembered of sign-ins, for statistics.
#[derive(Clone, Copy, Debug)]
pub struct Events {
    /// `enabled` or `ENABLE_EVENT_LOG`. Default true.
    pub enabled: bool,
    /// `retention` or `EVENT_LOG_RETENTION_DAYS`. Default 30 d.
    pub retention: Duration,
}

/// Whose word about the client's address is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Everybody's: the first address in `X-Forwarded-For` is the client. Anybody can then choose his address.
    Everybody,
    /// That of so many proxies, counted from here.
    Hops(u32),
    /// That of proxies in these networks.
    Networks(Vec<IpNet>),
}

impl OAuth {
    pub(super) fn read(section: &Section<'_>, server: &Server) -> Option<Self> {
        let context = section.context;
        let alone = context.replaced().auth_gateway;
        let wanted = section.present() || alone;
        let variable = |name: &'static str| Variable { alone, name: [name] };
        let public_url = if section.present() {
            section.required::<Origin>("public_url", &[])
        } else {
            section.optional("public_url", variable("PUBLIC_URL").names())
        };
        let public_url = public_url.map_or_else(Origin::local, |found| found.value);
        let issuer = section.optional::<Origin>("issuer", variable("JWT_ISSUER").names());
        let issuer = issuer.map_or_else(|| public_url.0.clone(), |found| found.value.0);
        let verification_uri = section.optional::<Origin>("verification_uri", variable("VERIFICATION_URI").names());
        let default_uri = || format!("{}/v1/device/verify", public_url.0);
        let production = if alone {
            context.variable("NODE_ENV").is_some_and(|found| found.value == "production")
        } else {
            section.or("production", true)
        };
        let network = section.optional("network", variable("NETWORK").names());
        let keys = KeySource::read(section, &server.data_dir, alone);
        let settings = Self {
            verification_uri: verification_uri.map_or_else(default_uri, |found| found.value.0),
            issuer,
            audience: section
                .optional("audience", variable("JWT_AUDIENCE").names())
                .map_or_else(|| "bittensor-apps".to_owned(), |found| found.value),
            compatibility: compatibility(section, variable("TOLLGATE_OAUTH_COMPATIBILITY").names(), alone),
            production,
            network: network.map_or(Network::Mainnet, |found| found.value),
            resources: wallets::resources(section),
            revocations_stale_for: section.or("revocations_stale_for", Timeout(Duration::from_mins(2))).0,
            wallets: Wallets::read(&section.section("wallets")),
            lifetimes: Lifetimes::read(&section.section("lifetimes"), alone),
            limits: RateLimits::read(&section.section("limits"), alone),
            events: Events::read(&section.section("events"), alone),
            admin_key: section.secret("admin_key", alone.then_some("ADMIN_API_KEY")).ok()?.map(|found| found.value),
            admin_address: admin_address(section, alone),
            trusted: trusted(context, server, alone),
            max_body_bytes: max_body_bytes(section, variable("JSON_BODY_LIMIT_BYTES").names()),
            demo: section.optional("demo", variable("DEMO_MODE").names()).is_some_and(|found| found.value),
            wallet_banner_url: section
                .optional::<Origin>("wallet_banner_url", variable("WALLET_BANNER_URL").names())
                .map(|found| found.value.0),
            public_url: public_url.0,
            keys: keys?,
        };
        if !wanted {
            return None;
        }
        settings.check(section, alone);
        Some(settings)
    }

    /// What must fit together. In production, what the replaced system demanded, and why: tokens and codes would travel in
    /// clear text, and a client that reads the metadata at the public URL must find the issuer it was told (RFC 8414 §3.3).
    fn check(&self, section: &Section<'_>, alone: bool) {
        // They are read every two seconds.
        if self.revocations_stale_for < Duration::from_secs(5) {
            section.mistake("revocations_stale_for", "must be at least 5s");
        }
        if !self.production {
            return;
        }
        let at = |key: &str, name: &str, message: String| {
            if alone { section.context.mistake_in_variable(name, message) } else { section.mistake(key, message) }
        };
        for (key, name, url) in [
            ("public_url", "PUBLIC_URL", &self.public_url),
            ("issuer", "JWT_ISSUER", &self.issuer),
            ("verification_uri", "VERIFICATION_URI", &self.verification_uri),
        ] {
            if !parse::is_secure(url) {
                at(key, name, "must begin with https:// in production, unless its host is this machine".into());
            }
        }
        if self.issuer != self.public_url {
            at("issuer", "JWT_ISSUER", format!("must be the public URL in production, {:?}", self.public_url));
        }
        if alone && self.admin_key.is_none() {
            at("", "ADMIN_API_KEY", "must be set in production".into());
        }
        if alone && section.context.variable("DATABASE_URL").is_none() {
            let warning =
                "environment: DATABASE_URL is not set: a SQLite file is used, which one gateway can have alone";
            section.context.warn(warning.into());
        }
        if alone && self.network == Network::Testnet {
            section.context.warn("environment: NETWORK is testnet in production".into());
        }
    }
}

/// A variable that counts where there is no file.
struct Variable {
    alone: bool,
    name: [&'static str; 1],
}

impl Variable {
    fn names(&self) -> &[&'static str] {
        if self.alone { &self.name } else { &[] }
    }
}

/// `HOST` and `PORT`: where the replaced system listened.
pub(super) fn address(context: &Context<'_>) -> SocketAddr {
    SocketAddr::new(host(context), port(context, "PORT", 3000))
}

fn host(context: &Context<'_>) -> IpAddr {
    let host = context.parsed_variable::<IpAddr>(&["HOST"]).ok().flatten();
    host.map_or(Ipv4Addr::UNSPECIFIED.into(), |found| found.value)
}

fn port(context: &Context<'_>, name: &'static str, default: u16) -> u16 {
    context.parsed_variable::<u16>(&[name]).ok().flatten().map_or(default, |found| found.value)
}

fn compatibility(section: &Section<'_>, variables: &[&str], alone: bool) -> OAuthCompatibility {
    let default = if alone { OAuthCompatibility::AuthGateway } else { OAuthCompatibility::Standard };
    section.optional("compatibility", variables).map_or(default, |found| found.value)
}

/// `METRICS_PORT` on `HOST`, where the replaced system had its metrics.
pub(super) fn metrics_address(context: &Context<'_>) -> Option<SocketAddr> {
    let alone = context.replaced().auth_gateway;
    alone.then(|| SocketAddr::new(host(context), port(context, "METRICS_PORT", 3002)))
}

fn admin_address(section: &Section<'_>, alone: bool) -> Option<SocketAddr> {
    let written = section.optional::<SocketAddr>("admin_address", &[]).map(|found| found.value);
    if !alone {
        return written;
    }
    let own = port(section.context, "ADMIN_PORT", 0);
    let shared = own == 0 || own == port(section.context, "PORT", 3000);
    (!shared).then(|| SocketAddr::new(host(section.context), own))
}

fn trusted(context: &Context<'_>, server: &Server, alone: bool) -> Trusted {
    let configured = || Trusted::Networks(server.trusted_proxies.clone());
    if !alone {
        return configured();
    }
    let found = context.parsed_variable::<TrustWord>(&["TRUST_PROXY"]).ok().flatten();
    match found.map(|found| found.value.0) {
        Some(Trusted::Everybody) => {
            let warning = "environment: TRUST_PROXY=true believes everybody: any client can choose the address that limits \
                           count; name the proxy's network instead";
            context.warn(warning.into());
            Trusted::Everybody
        }
        Some(trusted) => trusted,
        None => configured(),
    }
}

fn max_body_bytes(section: &Section<'_>, variables: &[&str]) -> usize {
    let size = section.optional::<Size>("max_body_bytes", variables);
    let bytes = size.map_or(64 << 10, |found| found.value.0);
    if !(1 << 10..=16 << 20).contains(&bytes) {
        section.mistake("max_body_bytes", "must be from 1KiB to 16MiB");
    }
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Lifetimes {
    fn read(section: &Section<'_>, alone: bool) -> Self {
        let of = |key: &str, name: &'static str, default: u64| {
            let variable = Variable { alone: alone && !name.is_empty(), name: [name] };
            let found = section.optional::<Period>(key, variable.names());
            found.map_or(Duration::from_secs(default), |found| found.value.0)
        };
        Self {
            access_token: of("access_token", "JWT_ACCESS_TOKEN_EXPIRY", 900),
            refresh_token: of("refresh_token", "JWT_REFRESH_TOKEN_EXPIRY", 86_400),
            refresh_token_total: of("refresh_token_total", "", 30 * 86_400),
            refresh_retry: of("refresh_retry", "", 30),
            authorization_code: of("authorization_code", "JWT_AUTH_CODE_EXPIRY", 30),
            authorize_session: of("authorize_session", "", 600),
            challenge: of("challenge", "CHALLENGE_TTL_SECONDS", 120),
            device_code: of("device_code", "DEVICE_CODE_TTL_SECONDS", 300),
            device_poll_interval: of("device_poll_interval", "DEVICE_CODE_POLL_INTERVAL", 5),
        }
    }
}

impl RateLimits {
    fn read(section: &Section<'_>, alone: bool) -> Self {
        let of = |key: &str, name: &'static str, default: u32| {
            let variable = Variable { alone: alone && !name.is_empty(), name: [name] };
            let Some(found) = section.optional::<u32>(key, variable.names()) else { return default };
            if found.value == 0 {
                section.context.mistake(&found.at, "must be at least 1");
            }
            found.value
        };
        Self {
            requests: of("requests", "RATE_LIMIT_GLOBAL", 30),
            challenges: of("challenges", "RATE_LIMIT_CHALLENGE", 5),
            secrets: of("secrets", "", 10),
        }
    }
}

impl Events {
    fn read(section: &Section<'_>, alone: bool) -> Self {
        let context = section.context;
        let enabled = section.or("enabled", true);
        let retention = section.or("retention", Timeout(Duration::from_hours(30 * 24))).0;
        if !alone {
            return Self { enabled, retention };
        }
        // Only the exact word was true.
        let enabled = context.variable("ENABLE_EVENT_LOG").is_none_or(|found| found.value == "true");
        let days = context.parsed_variable::<u32>(&["EVENT_LOG_RETENTION_DAYS"]).ok().flatten();
        let retention = days.map_or(retention, |days| Duration::from_hours(24 * u64::from(days.value.min(36_500))));
        Self { enabled, retention }
    }
}

impl OAuthCompatibility {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::AuthGateway => "auth-gateway",
        }
    }
}

impl Parse for OAuthCompatibility {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("standard", Self::Standard), ("auth-gateway", Self::AuthGateway)])
    }
}

impl Parse for Network {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("mainnet", Self::Mainnet), ("testnet", Self::Testnet)])
    }
}

impl KeySource {
    /// The folder of signing keys, if they are in one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Pair { .. } => None,
        }
    }
}
