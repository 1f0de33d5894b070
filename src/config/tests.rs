//! What only the whole shows: precedence, places of mistakes, drop-in mode, and that nothing secret is ever seen.

mod auth_gateway;
mod environment;
mod example;
mod mistakes;
mod panics;
mod settings;

use super::*;
use crate::model::key::ContentKey;

const EXAMPLE: &str = include_str!("../../conf/tollgate.toml");
const PHRASE: &str = "83029174650918273645019283746550";
const SERVICE: &str = "did:nv:1111111111111111111111111111111111111111111111111111111111111111";
const KEY: &str = "REPLACE/ME/this/is/a/development/key/only/8=";

/// The least that is accepted.
const SMALL: &str = r#"
[[listener]]
name = "http"
address = "127.0.0.1:0"
[[upstream]]
name = "one"
addresses = ["127.0.0.1:1"]
[[route]]
name = "all"
upstream = "one"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml(text, Path::new("t.toml"))
}

/// Directory with a certificate, its key and some secrets.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["gateway.example".to_owned()]).unwrap();
        for (name, text) in [
            ("tls.crt", made.cert.pem()),
            ("tls.key", made.signing_key.serialize_pem()),
            ("phrase", format!("{PHRASE}\n")),
            ("key", format!("{KEY}\n")),
            ("token", "file-token".to_owned()),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// An environment in which drop-in mode starts, and more variables laid over it.
    fn environment(&self, more: &[(&str, &str)]) -> Environment {
        let (cert, key) = (self.path("tls.crt"), self.path("tls.key"));
        let base = [
            ("JWT_SECRET_PHRASE", PHRASE),
            ("MARKETPLACE_API_URI", "https://market.example"),
            ("WEB3_PROVIDER_URL", "https://rpc.example/v3/api-key-8f"),
            ("TOLLGATE_TLS_CERT", &cert),
            ("TOLLGATE_TLS_KEY", &key),
        ];
        base.iter().chain(more).copied().collect()
    }

    fn drop_in(&self, more: &[(&str, &str)]) -> Result<Config, ConfigError> {
        load(None, self.environment(more), Flags::default())
    }

    fn with_file(&self, text: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Config, ConfigError> {
        let path = self.0.path().join("t.toml");
        std::fs::write(&path, text).unwrap();
        load(Some(&path), variables.iter().copied().collect(), flags)
    }
}

fn load(file: Option<&Path>, environment: Environment, flags: Flags) -> Result<Config, ConfigError> {
    Config::load(&Sources { file, environment, flags })
}

fn key_of(phrase: &str) -> ContentKey {
    ContentKey::from_phrase(phrase).unwrap()
}

fn database(config: &Config) -> String {
    match &config.database.target {
        DatabaseTarget::Sqlite(path) => format!("sqlite {}", path.display()),
        DatabaseTarget::Postgres(url) => url.expose().to_owned(),
    }
}

fn nevermined(config: &Config) -> &Nevermined {
    config.nevermined.as_ref().unwrap()
}

fn listener(config: &Config, name: &str) -> String {
    config.listeners.iter().find(|it| it.name == name).map_or_else(|| "off".into(), |it| it.address.to_string())
}

#[test]
fn without_a_file_it_is_the_replaced_system() {
    let files = Files::new();
    let config = files.drop_in(&[]).unwrap();
    let listeners: Vec<_> = config.listeners.iter().map(|it| (it.address.to_string(), it.tls.is_some())).collect();
    assert_eq!(listeners, [("0.0.0.0:443".to_owned(), true), ("0.0.0.0:3128".to_owned(), false)]);
    assert_eq!(config.introspection.unwrap().address.to_string(), "127.0.0.1:4000");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9464");
    assert!(matches!(config.database.target, DatabaseTarget::Sqlite(_)));
    let [route] = &config.routes[..] else { panic!("{:?}", config.routes) };
    assert_eq!(route.target, RouteTarget::Token);
    assert_eq!(route.compatibility, Compatibility::Nevermined);
    assert!(route.open_endpoints && route.forward && !route.preserve_host && route.hosts.is_empty());
    let cors = route.cors.as_ref().unwrap();
    assert_eq!(cors.allow_origins, Origins::Any);
    assert_eq!(cors.expose_headers.as_ref().unwrap(), "Authorization,NVMCreditsConsumed");
    let nevermined = config.nevermined.as_ref().unwrap();
    assert_eq!(nevermined.keys, [key_of(PHRASE)]);
    assert!(nevermined.backend.is_none() && nevermined.proxy_auth_token.is_none());
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn without_anything_the_published_key_and_the_missing_certificate_are_refused() {
    let error = load(None, Environment::default(), Flags::default()).unwrap_err().to_string();
    assert!(error.contains("environment: JWT_SECRET_PHRASE: not set, which means the default phrase"), "{error}");
    assert!(error.contains("openssl rand -base64 32"), "{error}");
    if !Path::new("/ssl/certs/tls.crt").exists() {
        assert!(error.contains("environment: TOLLGATE_TLS_CERT: cannot read /ssl/certs/tls.crt"), "{error}");
        assert!(error.contains("set TOLLGATE_LISTEN_TLS to nothing"), "{error}");
    }
    let environment = [("TOLLGATE_ALLOW_WEAK_SECRET", "true"), ("TOLLGATE_LISTEN_TLS", "")];
    let config = load(None, environment.into_iter().collect(), Flags::default()).unwrap();
    assert_eq!(config.nevermined.unwrap().keys, [key_of("12345678901234567890123456789012")]);
    assert!(config.warnings.iter().any(|it| it.contains("A WEAK SECRET IS ALLOWED")), "{:?}", config.warnings);
    assert!(config.warnings.iter().any(|it| it.contains("marketplace.nevermined.localnet")), "{:?}", config.warnings);
    assert!(config.warnings.iter().any(|it| it.contains("contracts.nevermined.localnet")), "{:?}", config.warnings);
}

#[test]
fn usage_is_never_counted_twice() {
    let files = Files::new();
    let backend = [("BACKEND_API_URI", "http://b.example"), ("BACKEND_AUTH_TOKEN", "t"), ("PROXY_AUTH_TOKEN", "t")];
    //   Postgres, tables variable → reported, tables
    for (postgres, tables, reported, written) in [
        (false, None, true, false),
        (true, None, false, true),
        (true, Some("true"), false, true),
        (true, Some("false"), true, false),
    ] {
        let mut variables = backend.to_vec();
        variables.extend(postgres.then_some(("PG_HOST", "db")));
        variables.extend(tables.map(|tables| ("TOLLGATE_ACCESS_TABLES", tables)));
        let config = files.drop_in(&variables).unwrap();
        assert_eq!(
            (config.usage.report.is_some(), config.database.access_tables),
            (reported, written),
            "{variables:?}"
        );
    }
    let both = format!(
        "{SMALL}[database]\nurl = \"postgres://h/d\"\naccess_tables = true\n[usage.report]\nurl = \"http://b.example\"\n"
    );
    assert!(parse(&both).unwrap_err().to_string().contains("charged twice"));
    let tables_by_default = both.replace("access_tables = true\n", "");
    assert!(!parse(&tables_by_default).unwrap().database.access_tables);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let files = Files::new();
    let text = format!(
        "{SMALL}[log]\nlevel = \"error\"\n[server]\ndata_dir = \"a\"\n[admin]\naddress = \"127.0.0.1:1\"\n[database]\nurl = \"postgres://file/d\"\n"
    );
    let variables = [
        ("TOLLGATE_LOG", "warn"),
        ("TOLLGATE_DATA_DIR", "b"),
        ("TOLLGATE_LISTEN_ADMIN", "127.0.0.1:2"),
        ("TOLLGATE_LISTEN_HTTP", "127.0.0.1:12"),
        ("DATABASE_URL", "postgres://environment/d"),
    ];
    let flags = || Flags {
        listen_tls: None,
        listen_http: Some("127.0.0.1:13".into()),
        listen_admin: Some("127.0.0.1:3".into()),
        data_dir: Some("c".into()),
        database_url: Some(Secret::new("postgres://flag/d".into())),
        log: Some("trace".into()),
    };
    for (variables, flags, expected) in [
        (&[][..], Flags::default(), "error a 127.0.0.1:1 127.0.0.1:0 postgres://file/d"),
        (&variables[..], Flags::default(), "warn b 127.0.0.1:2 127.0.0.1:12 postgres://environment/d"),
        (&variables[..], flags(), "trace c 127.0.0.1:3 127.0.0.1:13 postgres://flag/d"),
    ] {
        let c = files.with_file(&text, variables, flags).unwrap();
        let (log, directory, admin) = (c.log.level.as_str(), c.server.data_dir.display(), c.admin.unwrap());
        assert_eq!(format!("{log} {directory} {admin} {} {}", listener(&c, "http"), database(&c)), expected);
    }
    let flags = Flags { log: Some("loud".into()), ..Flags::default() };
    let error = files.with_file(&text, &variables, flags).unwrap_err();
    assert_eq!(error.mistakes[0].key, "flag: --log");
}

#[test]
fn the_old_variables_work_with_a_file_which_gets_no_route_from_them() {
    let files = Files::new();
    let by_token = SMALL.replace("upstream = \"one\"", "upstream = \"token\"");
    let text = format!("{by_token}[nevermined]\nkey_phrase_file = \"/no/such\"\nprevious_key = \"{KEY}\"\n");
    let variables = [
        ("JWT_SECRET_PHRASE", PHRASE),
        ("SERVER_PORT", "4001"),
        ("PG_HOST", "db"),
        ("MARKETPLACE_API_URI", "http://m"),
        ("WEB3_PROVIDER_URL", "http://r"),
    ];
    let config = files.with_file(&text, &variables, Flags::default()).unwrap();
    assert_eq!(config.nevermined.as_ref().unwrap().keys, [key_of(PHRASE), ContentKey::from_base64(KEY).unwrap()]);
    assert_eq!(config.introspection.unwrap().address.to_string(), "127.0.0.1:4001");
    assert_eq!(database(&config), "postgres://postgres@db:5432/nvm_one");
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.routes[0].compatibility, Compatibility::Standard);
    assert_eq!(config.listeners.len(), 1);
    let (cert, key) = (files.path("tls.crt"), files.path("tls.key"));
    let variables = [
        ("TOLLGATE_LISTEN_TLS", "127.0.0.1:8443"),
        ("TOLLGATE_TLS_CERT", cert.as_str()),
        ("TOLLGATE_TLS_KEY", &key),
        ("TOLLGATE_LISTEN_HTTP", ""),
    ];
    let config = files.with_file(SMALL, &variables, Flags::default()).unwrap();
    assert_eq!((listener(&config, "http"), listener(&config, "https")), ("off".into(), "127.0.0.1:8443".into()));
    let broken = format!(
        "{SMALL}[[listener]]\naddress = \"127.0.0.1:2\"\n[listener.tls]\n[[listener.tls.certificate]]\n\
         cert = \"/no/such\"\nkey = \"{key}\"\n"
    );
    let config = files.with_file(&broken, &[("TOLLGATE_TLS_CERT", &cert)], Flags::default()).unwrap();
    let used = &config.listeners[1].tls.as_ref().unwrap().certificates[0];
    assert_eq!((used.cert.to_str(), used.key.to_str()), (Some(cert.as_str()), Some(key.as_str())));
    let two = format!("{SMALL}[[listener]]\naddress = \"127.0.0.1:2\"\n");
    let error = files.with_file(&two, &[("TOLLGATE_LISTEN_HTTP", "127.0.0.1:3")], Flags::default()).unwrap_err();
    assert!(error.to_string().contains("which one is meant?"), "{error}");
}

#[test]
fn no_secret_is_ever_seen() {
    let files = Files::new();
    let secrets = ["sec-password", "sec-rpc", "sec-proxy", "sec-backend", PHRASE, KEY, "sec-cert"];
    let config = files
        .drop_in(&[
            ("DATABASE_URL", "postgres://u:sec-password@h/d"),
            ("WEB3_PROVIDER_URL", "https://rpc.example:8545/v3/sec-rpc?k=sec-rpc"),
            ("BACKEND_API_URI", "http://b.example"),
            ("PROXY_AUTH_TOKEN", "sec-proxy"),
            ("BACKEND_AUTH_TOKEN", "sec-backend"),
            ("TOLLGATE_ACCESS_TABLES", "false"),
            ("TOLLGATE_JWT_KEY_PREVIOUS", KEY),
        ])
        .unwrap();
    assert!(config.usage.report.is_some() && nevermined(&config).keys.len() == 2);
    let shown = format!("{config:?} {config:#?} {} {:?}", config.summary(), config.warnings);
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
    assert!(config.summary().contains("Postgres h/d") && config.summary().contains("https://rpc.example:8545\n"));
    let text = format!(
        "{SMALL}[nevermined]\nkey = \"sec-proxy\"\nkey_file = \"x\"\nproxy_auth_token = \"sec-proxy\"\nprevious_key_phrase = \"sec-proxy\"\n[chain]\nrpc = \"sec-rpc\"\n[database]\nurl = \"sec-password\"\n[usage.report]\ntoken = 1\nurl = \"http://sec-backend:x@h\"\n"
    );
    let error = parse(&text).unwrap_err();
    assert!(error.mistakes.len() >= 6, "{error}");
    for secret in secrets {
        assert!(!format!("{error} {error:?}").contains(secret), "{secret} is in {error}");
    }
}
