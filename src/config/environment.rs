//! The environment, as an argument, and the table of the variables we know.

mod auth_gateway;

use std::{collections::BTreeMap, path::Path};

pub use self::auth_gateway::AUTH_GATEWAY_VARIABLES;
pub(super) use self::auth_gateway::AUTH_GATEWAY_WITHOUT_EFFECT;
use super::{Flags, files};
use crate::model::secret::Secret;

/// Environment variables. The real ones come from [`Environment::from_process`]; a test brings its own.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// A variable, or a flag that stands in its place.
pub(super) struct Variable {
    pub value: String,
    pub flag: Option<&'static str>,
}

/// Which replaced systems the environment describes, where there is no file that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    /// The Nevermined proxy: if anything of it is set, or nothing of the others.
    pub nevermined: bool,
    /// nexus-auth: if anything of it is set.
    pub nexus_auth: bool,
    /// The auth gateway: if anything is set that only it had. Its other variables have everybody's names.
    pub auth_gateway: bool,
}

impl Replaced {
    pub(super) fn by(without_file: bool, variables: &Variables) -> Self {
        let any = |names: &[&str]| {
            names.iter().any(|name| variables.get(*name).is_some_and(|variable| !variable.value.is_empty()))
        };
        let auth_gateway = without_file && any(&auth_gateway::ITS_OWN);
        let nexus_auth = without_file && any(&OF_NEXUS_AUTH);
        let nevermined = without_file && (any(&OF_NEVERMINED) || !(nexus_auth || auth_gateway));
        Self { nevermined, nexus_auth, auth_gateway }
    }
}

/// Variables by name.
pub(super) type Variables = BTreeMap<String, Variable>;

impl Environment {
    /// The process's environment. A variable that is not UTF-8 is left out: none of ours can be.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    pub fn from_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// One variable, if it is set and not empty.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        self.0.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// A secret in a variable, or in the file that the variable with `_FILE` at its end names.
    ///
    /// # Errors
    /// When both are set, or the file cannot be read: the text names the variable or the file.
    pub fn secret(&self, name: &str) -> Result<Option<Secret>, String> {
        let file = format!("{name}_FILE");
        match (self.value(name), self.value(&file)) {
            (Some(_), Some(_)) => Err(format!("{name} and {file} are both set: give one of the two")),
            (None, Some(path)) => files::secret(Path::new(&path)).map(Some).map_err(|why| format!("{file}: {why}")),
            (value, None) => Ok(value.map(Secret::new)),
        }
    }

    /// Lays the flags over the variables.
    pub(super) fn with_flags(&self, flags: &Flags) -> Variables {
        let variable = |(name, value): (&String, &String)| {
            let variable = Variable { value: value.clone(), flag: None };
            (name.clone(), variable)
        };
        let mut variables: Variables = self.0.iter().map(variable).collect();
        let data_dir = flags.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
        let database_url = flags.database_url.as_ref().map(|url| url.expose().to_owned());
        for (name, flag, value) in [
            ("TOLLGATE_LISTEN_TLS", "--listen-tls", flags.listen_tls.clone()),
            ("TOLLGATE_LISTEN_HTTP", "--listen-http", flags.listen_http.clone()),
            ("TOLLGATE_LISTEN_ADMIN", "--listen-admin", flags.listen_admin.clone()),
            ("TOLLGATE_DATA_DIR", "--data-dir", data_dir),
            ("DATABASE_URL", "--database-url", database_url),
            ("TOLLGATE_LOG", "--log", flags.log.clone()),
            ("NEXUS_AUTH_LISTEN_ADDR", "-listen-addr", flags.auth_listen.clone()),
            ("NEXUS_PYLON_ENDPOINT", "-pylon-endpoint", flags.pylon_endpoint.clone()),
            ("NEXUS_PYLON_NETUID", "-net-uid", flags.netuid.clone()),
        ] {
            if let Some(value) = value {
                variables.remove(&format!("{name}_FILE"));
                variables.insert(name.to_owned(), Variable { value, flag: Some(flag) });
            }
        }
        variables
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Every variable that has an effect, and which. Those marked † may instead be given as a file, whose name is in the
/// variable with `_FILE` at its end. An empty variable counts as unset, except `TOLLGATE_LISTEN_…`.
pub const VARIABLES: [(&str, &str); 40] = [
    ("SERVER_HOST", "address of the introspection endpoint (127.0.0.1)"),
    ("SERVER_PORT", "port of the introspection endpoint (4000)"),
    ("JWT_SECRET_PHRASE", "phrase that the key of access tokens is derived from †"),
    ("MARKETPLACE_API_URI", "base URL of the marketplace"),
    ("MARKETPLACE_API_URL", "the same, under the name that the credits burner read"),
    ("WEB3_PROVIDER_URL", "URL of the chain's JSON-RPC node †"),
    ("BACKEND_API_URI", "base URL of the Nevermined backend; endpoints of its origin get PROXY_AUTH_TOKEN"),
    ("BACKEND_API_URL", "the same"),
    ("PROXY_AUTH_TOKEN", "bearer token for endpoints of the backend †"),
    ("BACKEND_AUTH_TOKEN", "bearer token for reporting usage to the backend †"),
    ("PG_HOST", "host of the Postgres server (localhost)"),
    ("PG_PORT", "its port (5432)"),
    ("PG_USER", "its user (postgres)"),
    ("PG_PASSWORD", "its password †"),
    ("PG_DB", "its database (nvm_one)"),
    ("VERBOSE", "`true` logs at level debug"),
    ("DATABASE_URL", "postgres://… or sqlite://path; wins over PG_* †"),
    ("TOLLGATE_LISTEN_TLS", "address:port for TLS (0.0.0.0:443); empty: off"),
    ("TOLLGATE_LISTEN_HTTP", "address:port for plain HTTP (0.0.0.0:3128); empty: off"),
    ("TOLLGATE_LISTEN_ADMIN", "address:port for health and metrics (127.0.0.1:9464); empty: off"),
    ("TOLLGATE_TLS_CERT", "PEM file with the certificate chain (/ssl/certs/tls.crt)"),
    ("TOLLGATE_TLS_KEY", "PEM file with its key (/ssl/certs/tls.key)"),
    ("TOLLGATE_DATA_DIR", "directory of the SQLite file and the usage spool (/var/lib/tollgate or ./tollgate-data)"),
    ("TOLLGATE_UPSTREAM_ALLOW", "comma list of private networks that upstreams may be in (none)"),
    ("TOLLGATE_TRUSTED_PROXIES", "comma list of networks whose X-Forwarded-* are believed (none)"),
    ("TOLLGATE_UPSTREAM_CA", "PEM bundle trusted for upstreams besides the system's"),
    ("TOLLGATE_ALLOW_WEAK_SECRET", "`true` accepts a key that can be guessed, loudly (false)"),
    ("TOLLGATE_JWT_KEY", "key of access tokens: base64 of 32 random bytes, instead of JWT_SECRET_PHRASE †"),
    ("TOLLGATE_JWT_KEY_PREVIOUS", "the key before, still valid during a rotation †"),
    ("TOLLGATE_JWT_PHRASE_PREVIOUS", "the phrase before, still valid during a rotation †"),
    ("TOLLGATE_ACCESS_TABLES", "`false`: leave the tables of the replaced burner alone"),
    ("NEXUS_AUTH_LISTEN_ADDR", "address:port of the auth_request endpoint (:8080, which is every address)"),
    (
        "NEXUS_AUTH_CACHE_DURATION_MINS",
        "how long keys count while Pylon cannot be asked, in minutes (15; 0: half a minute)",
    ),
    ("NEXUS_PYLON_ENDPOINT", "base URL of Pylon (http://pylon:8000)"),
    ("NEXUS_PYLON_NETUID", "number of the subnet"),
    ("NEXUS_PYLON_IDENTITY_NAME", "name of the identity at Pylon"),
    ("NEXUS_PYLON_IDENTITY_TOKEN", "its bearer token †"),
    ("TOLLGATE_AUTH_TRUSTED_PEERS", "comma list of networks of proxies that auth_request believes (127.0.0.0/8,::1)"),
    ("TOLLGATE_COMPATIBILITY", "`nexus-auth`: auth_request repeats the verdicts of nexus-auth (standard)"),
    ("TOLLGATE_LOG", "log level: error, warn, info, debug or trace (info); wins over VERBOSE"),
];

/// Variables that only somebody sets who replaces the Nevermined proxy.
const OF_NEVERMINED: [&str; 12] = [
    "JWT_SECRET_PHRASE",
    "JWT_SECRET_PHRASE_FILE",
    "TOLLGATE_JWT_KEY",
    "TOLLGATE_JWT_KEY_FILE",
    "MARKETPLACE_API_URI",
    "MARKETPLACE_API_URL",
    "WEB3_PROVIDER_URL",
    "WEB3_PROVIDER_URL_FILE",
    "BACKEND_API_URI",
    "BACKEND_API_URL",
    "PROXY_AUTH_TOKEN",
    "PROXY_AUTH_TOKEN_FILE",
];

/// Variables that only somebody sets who replaces nexus-auth.
const OF_NEXUS_AUTH: [&str; 7] = [
    "NEXUS_AUTH_LISTEN_ADDR",
    "NEXUS_AUTH_CACHE_DURATION_MINS",
    "NEXUS_PYLON_ENDPOINT",
    "NEXUS_PYLON_NETUID",
    "NEXUS_PYLON_IDENTITY_NAME",
    "NEXUS_PYLON_IDENTITY_TOKEN",
    "NEXUS_PYLON_IDENTITY_TOKEN_FILE",
];

/// Variables of the replaced system that change nothing here, and why. In drop-in mode each that is set is warned of.
pub(super) const WITHOUT_EFFECT: [(&str, &str); 12] = [
    ("SYSLOG_SERVER_HOST", LOCAL),
    ("SYSLOG_SERVER_PORT", LOCAL),
    ("INTROSPECTION_URL", "tokens are looked into here; nobody else is asked"),
    (
        "NODE_TLS_REJECT_UNAUTHORIZED",
        "certificates are always verified; name your own authority in TOLLGATE_UPSTREAM_CA",
    ),
    ("KEYFILE_PATH", BURNER),
    ("KEYFILE_PASSWORD", BURNER),
    ("SEED_WORDS", BURNER),
    ("SEED_PHRASE", BURNER),
    ("ARTIFACTS_PATH", BURNER),
    ("ARTIFACTS", BURNER),
    ("NODE_ADDRESS", BURNER),
    ("NVM_NODE_URL", BURNER),
];

const LOCAL: &str = "usage goes straight to the database and is not sent over UDP";
const BURNER: &str = "this program burns no credits; leave that to the burner that works from the access tables";
