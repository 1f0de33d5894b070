//! Every variable: what it changes, and what is said about a wrong one.

use std::{collections::BTreeSet, fmt::Write as _};

use super::*;

/// What a variable changes, as text.
type Effect = fn(&Config) -> String;

fn proxy_token(config: &Config) -> String {
    let nevermined = nevermined(config);
    let token = nevermined.proxy_auth_token.as_ref().map(|token| token.expose().to_owned());
    format!("{} {}", nevermined.backend.as_ref().unwrap(), token.unwrap_or_default())
}

fn report(config: &Config) -> String {
    let report = config.usage.report.as_ref().unwrap();
    format!("{} {}", report.url, report.token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default())
}

fn keys(config: &Config) -> String {
    nevermined(config).keys.iter().fold(String::new(), |mut text, key| {
        let _ = write!(text, "{:02x?} ", &key.as_bytes()[..4]);
        text
    })
}

fn auth_request(config: &Config) -> String {
    let it = config.auth_request.as_ref().unwrap();
    format!("{} {:?} {}", it.address, it.trusted_peers, it.compatibility.as_str())
}

fn pylon(config: &Config) -> String {
    let (pylon, neurons) = (config.pylon.as_ref().unwrap(), config.neurons.as_ref().unwrap());
    let token = pylon.identity.token.as_ref().unwrap().expose();
    format!("{} {} {token} {} {:?}", pylon.url, pylon.identity.name, neurons.netuid, neurons.stale_for)
}

/// Variables, what to look at, and what is to be seen there.
type Row = (Vec<(&'static str, String)>, Effect, String);

/// Every documented variable, with others that it needs, and its effect.
#[expect(clippy::too_many_lines, reason = "a table")]
fn effects(files: &Files) -> Vec<Row> {
    let set = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let postgres = |text: &str| format!("postgres://{text}");
    let nexus = |more: &[(&'static str, &str)]| {
        let least =
            [("NEXUS_PYLON_NETUID", "2"), ("NEXUS_PYLON_IDENTITY_NAME", "miner"), ("NEXUS_PYLON_IDENTITY_TOKEN", "nt")];
        // What is given again overrides it.
        set(&[&least[..], more].concat())
    };
    vec![
        (set(&[("SERVER_HOST", "0.0.0.0")]), |c| c.introspection.unwrap().address.to_string(), "0.0.0.0:4000".into()),
        (
            set(&[("SERVER_HOST", "localhost")]),
            |c| c.introspection.unwrap().address.to_string(),
            "127.0.0.1:4000".into(),
        ),
        (set(&[("SERVER_PORT", "4001")]), |c| c.introspection.unwrap().address.to_string(), "127.0.0.1:4001".into()),
        (set(&[("JWT_SECRET_PHRASE", "50918273645019283746550830291746")]), keys, "[05, 00, 09, 01] ".into()),
        (
            set(&[("JWT_SECRET_PHRASE", ""), ("JWT_SECRET_PHRASE_FILE", &files.path("phrase"))]),
            keys,
            "[08, 03, 00, 02] ".into(),
        ),
        (set(&[("JWT_SECRET_PHRASE", ""), ("TOLLGATE_JWT_KEY", KEY)]), keys, "[44, 43, cb, 00] ".into()),
        (set(&[("TOLLGATE_JWT_KEY_PREVIOUS", KEY)]), keys, "[08, 03, 00, 02] [44, 43, cb, 00] ".into()),
        (
            set(&[("TOLLGATE_JWT_PHRASE_PREVIOUS", "50918273645019283746550830291746")]),
            keys,
            "[08, 03, 00, 02] [05, 00, 09, 01] ".into(),
        ),
        (
            set(&[("TOLLGATE_ALLOW_WEAK_SECRET", "true"), ("JWT_SECRET_PHRASE", "abcdefghijklmnopqrstuvwxyzabcdef")]),
            keys,
            "[00, 00, 00, 00] ".into(),
        ),
        (
            set(&[("MARKETPLACE_API_URI", "http://m.example/x")]),
            |c| c.marketplace.as_ref().unwrap().url.to_string(),
            "http://m.example/x".into(),
        ),
        (
            set(&[("MARKETPLACE_API_URI", ""), ("MARKETPLACE_API_URL", "http://m.example/y")]),
            |c| c.marketplace.as_ref().unwrap().url.to_string(),
            "http://m.example/y".into(),
        ),
        (
            set(&[("WEB3_PROVIDER_URL", "http://r.example/k")]),
            |c| c.chain.as_ref().unwrap().rpc.expose().to_string(),
            "http://r.example/k".into(),
        ),
        (
            set(&[("BACKEND_API_URI", "http://b.example"), ("PROXY_AUTH_TOKEN", "pt")]),
            proxy_token,
            "http://b.example/ pt".into(),
        ),
        (set(&[("BACKEND_API_URL", "http://b.example")]), proxy_token, "http://b.example/ changeme".into()),
        (set(&[("PROXY_AUTH_TOKEN", "pt")]), proxy_token, "http://localhost:3001/ pt".into()),
        (
            set(&[("BACKEND_API_URI", "http://b.example"), ("BACKEND_AUTH_TOKEN", "bt")]),
            report,
            "http://b.example/ bt".into(),
        ),
        (
            set(&[("BACKEND_API_URI", "http://b.example"), ("BACKEND_AUTH_TOKEN_FILE", &files.path("token"))]),
            report,
            "http://b.example/ file-token".into(),
        ),
        (set(&[("PG_HOST", "db")]), database, postgres("postgres@db:5432/nvm_one")),
        (set(&[("PG_PORT", "5433")]), database, postgres("postgres@localhost:5433/nvm_one")),
        (set(&[("PG_USER", "u@")]), database, postgres("u%40@localhost:5432/nvm_one")),
        (set(&[("PG_PASSWORD", "p:/?#@")]), database, postgres("postgres:p%3A%2F%3F%23%40@localhost:5432/nvm_one")),
        (set(&[("PG_DB", "a/b")]), database, postgres("postgres@localhost:5432/a%2Fb")),
        (set(&[("PG_HOST", "/run/pg")]), database, postgres("postgres@localhost:5432/nvm_one?host=%2Frun%2Fpg")),
        (set(&[("PG_HOST", "db"), ("DATABASE_URL", "postgres://h/d")]), database, postgres("h/d")),
        (set(&[("DATABASE_URL", "sqlite:///x/y.db")]), database, "sqlite /x/y.db".into()),
        (set(&[("DATABASE_URL", "sqlite://y.db")]), database, "sqlite y.db".into()),
        (set(&[("PG_HOST", "db")]), |c| c.database.access_tables.to_string(), "true".into()),
        (
            set(&[("PG_HOST", "db"), ("TOLLGATE_ACCESS_TABLES", "false")]),
            |c| c.database.access_tables.to_string(),
            "false".into(),
        ),
        (set(&[("VERBOSE", "true")]), |c| c.log.level.as_str().into(), "debug".into()),
        (set(&[("VERBOSE", "1")]), |c| c.log.level.as_str().into(), "info".into()),
        (set(&[("VERBOSE", "true"), ("TOLLGATE_LOG", "warn")]), |c| c.log.level.as_str().into(), "warn".into()),
        (set(&[("TOLLGATE_LISTEN_TLS", "[::]:8443")]), |c| listener(c, "https"), "[::]:8443".into()),
        (set(&[("TOLLGATE_LISTEN_TLS", "")]), |c| listener(c, "https"), "off".into()),
        (set(&[("TOLLGATE_LISTEN_HTTP", "127.0.0.1:80")]), |c| listener(c, "http"), "127.0.0.1:80".into()),
        (set(&[("TOLLGATE_LISTEN_HTTP", "")]), |c| listener(c, "http"), "off".into()),
        (set(&[("TOLLGATE_LISTEN_ADMIN", "127.0.0.1:1")]), |c| format!("{:?}", c.admin), "Some(127.0.0.1:1)".into()),
        (set(&[("TOLLGATE_LISTEN_ADMIN", "")]), |c| format!("{:?}", c.admin), "None".into()),
        (
            set(&[]),
            |c| c.listeners[0].tls.as_ref().unwrap().certificates[0].cert.display().to_string(),
            files.path("tls.crt"),
        ),
        (
            set(&[]),
            |c| c.listeners[0].tls.as_ref().unwrap().certificates[0].key.display().to_string(),
            files.path("tls.key"),
        ),
        (set(&[("TOLLGATE_DATA_DIR", "/d")]), |c| c.server.data_dir.display().to_string(), "/d".into()),
        (set(&[("TOLLGATE_DATA_DIR", "/d")]), database, "sqlite /d/tollgate.db".into()),
        (
            set(&[("TOLLGATE_UPSTREAM_ALLOW", "10.0.0.0/8, ::1")]),
            |c| format!("{:?}", c.egress.allow),
            "[10.0.0.0/8, ::1/128]".into(),
        ),
        (
            set(&[("TOLLGATE_TRUSTED_PROXIES", "10.0.0.1/32,fd00::/8")]),
            |c| format!("{:?}", c.server.trusted_proxies),
            "[10.0.0.1/32, fd00::/8]".into(),
        ),
        (nexus(&[]), auth_request, "0.0.0.0:8080 [127.0.0.0/8, ::1/128] standard".into()),
        (
            nexus(&[("NEXUS_AUTH_LISTEN_ADDR", ":81"), ("TOLLGATE_AUTH_TRUSTED_PEERS", "10.0.0.0/8")]),
            auth_request,
            "0.0.0.0:81 [10.0.0.0/8] standard".into(),
        ),
        (
            nexus(&[("NEXUS_AUTH_LISTEN_ADDR", "[::1]:81"), ("TOLLGATE_COMPATIBILITY", "nexus-auth")]),
            auth_request,
            "[::1]:81 [127.0.0.0/8, ::1/128] nexus-auth".into(),
        ),
        (nexus(&[]), pylon, "http://pylon:8000/ miner nt 2 900s".into()),
        (
            nexus(&[("NEXUS_PYLON_ENDPOINT", " http://p.example/base// "), ("NEXUS_PYLON_NETUID", "3")]),
            pylon,
            "http://p.example/base miner nt 3 900s".into(),
        ),
        (
            nexus(&[("NEXUS_PYLON_IDENTITY_TOKEN", ""), ("NEXUS_PYLON_IDENTITY_TOKEN_FILE", &files.path("token"))]),
            pylon,
            "http://pylon:8000/ miner file-token 2 900s".into(),
        ),
        (nexus(&[("NEXUS_AUTH_CACHE_DURATION_MINS", "1")]), pylon, "http://pylon:8000/ miner nt 2 60s".into()),
        (nexus(&[("NEXUS_AUTH_CACHE_DURATION_MINS", "0")]), pylon, "http://pylon:8000/ miner nt 2 30s".into()),
        (nexus(&[("NEXUS_AUTH_CACHE_DURATION_MINS", "-1")]), pylon, "http://pylon:8000/ miner nt 2 900s".into()),
        (nexus(&[("NEXUS_AUTH_CACHE_DURATION_MINS", "soon")]), pylon, "http://pylon:8000/ miner nt 2 900s".into()),
        (
            set(&[("TOLLGATE_UPSTREAM_CA", &files.path("tls.crt"))]),
            |c| c.egress.extra_ca.as_ref().unwrap().display().to_string(),
            files.path("tls.crt"),
        ),
    ]
}

#[test]
fn every_documented_variable_has_an_effect() {
    let files = Files::new();
    let mut seen: BTreeSet<String> = files.environment(&[]).with_flags(&Flags::default()).into_keys().collect();
    for (variables, effect, expected) in effects(&files) {
        let borrowed: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let config = files.drop_in(&borrowed).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
        assert_eq!(effect(&config), expected, "{variables:?}");
        seen.extend(variables.into_iter().map(|(name, _)| name.to_owned()));
    }
    for (name, meaning) in VARIABLES {
        assert!(seen.contains(name), "{name} has no effect to show");
        let secret = seen.iter().any(|it| *it == format!("{name}_FILE"));
        assert!(!secret || meaning.ends_with('†'), "{name} is a secret");
    }
}

#[test]
fn every_variable_that_is_asked_for_is_documented() {
    let context = Context::new(None, "", Environment::default().with_flags(&Flags::default()));
    read(&Section::root(&context, None));
    let documented: BTreeSet<String> = VARIABLES
        .iter()
        .flat_map(|(name, meaning)| {
            let file = meaning.ends_with('†').then(|| format!("{name}_FILE"));
            std::iter::once((*name).to_owned()).chain(file)
        })
        .chain(WITHOUT_EFFECT.iter().map(|(name, _)| (*name).to_owned()))
        .collect();
    let asked = context.all_asked().1;
    assert_eq!(asked.difference(&documented).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(documented.difference(&asked).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn what_has_no_effect_is_said() {
    let files = Files::new();
    for (name, _) in WITHOUT_EFFECT {
        let config = files.drop_in(&[(name, "1")]).unwrap();
        assert!(
            config.warnings.iter().any(|it| it.starts_with(&format!("environment: {name} has no effect"))),
            "{name}"
        );
    }
    let config = files.drop_in(&[("TOLLGATE_LISTEN_HTTPS", "x"), ("TOLLGATE_SERVICE_HOST", "10.0.0.1")]).unwrap();
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.contains("TOLLGATE_LISTEN_HTTPS") && warning.contains("did you mean `TOLLGATE_LISTEN_HTTP`?"));
}

#[test]
fn nexus_auth_alone_opens_no_proxy() {
    let least =
        [("NEXUS_PYLON_NETUID", "2"), ("NEXUS_PYLON_IDENTITY_NAME", "miner"), ("NEXUS_PYLON_IDENTITY_TOKEN", "nt")];
    // These two could be anybody's.
    let common = [("SERVER_PORT", "4000"), ("VERBOSE", "true")];
    let with = |more: &[(&str, &str)]| {
        let variables = least.iter().chain(&common).chain(more).copied();
        load(None, variables.collect(), Flags::default())
    };
    let config = with(&[]).unwrap();
    assert!(config.listeners.is_empty() && config.introspection.is_none() && config.routes.is_empty());
    assert!(config.nevermined.is_none() && config.marketplace.is_none() && config.chain.is_none());
    assert!(config.auth_request.is_some() && config.neurons.is_some() && config.admin.is_some());
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.contains("TOLLGATE_AUTH_TRUSTED_PEERS"), "{warning}");
    assert!(with(&[("NEXUS_AUTH_LISTEN_ADDR", "127.0.0.1:8080")]).unwrap().warnings.is_empty());
    for (name, _) in least {
        let error = with(&[(name, "")]).unwrap_err();
        let [mistake] = &error.mistakes[..] else { panic!("{name}: {error}") };
        assert_eq!(mistake.key, format!("environment: {name}"), "{error}");
        assert!(mistake.message.starts_with("is not set"), "{error}");
    }
    for (name, value, message) in [
        ("NEXUS_AUTH_LISTEN_ADDR", "8080", "an IP address and a port"),
        ("NEXUS_PYLON_ENDPOINT", "pylon:8000", "must be a URL"),
        ("NEXUS_PYLON_NETUID", "two", "whole number"),
        ("NEXUS_PYLON_IDENTITY_NAME", "a/b", "a name of letters"),
        ("NEXUS_PYLON_IDENTITY_TOKEN_FILE", "/no/such", "NEXUS_PYLON_IDENTITY_TOKEN is set too"),
        ("TOLLGATE_COMPATIBILITY", "nevermined", "must be \"standard\" or \"nexus-auth\" here"),
    ] {
        let error = with(&[(name, value)]).unwrap_err();
        let [mistake] = &error.mistakes[..] else { panic!("{name}={value}: {error}") };
        assert_eq!(mistake.key, format!("environment: {name}"), "{error}");
        assert!(mistake.message.contains(message), "{name}={value}: {error}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let files = Files::new();
    for (name, value, message) in [
        ("SERVER_HOST", "nowhere.example", "must be an IP address"),
        ("SERVER_PORT", "99999", "at most 65535"),
        ("SERVER_PORT", "http", "whole number"),
        ("JWT_SECRET_PHRASE", "123", "32 characters long, and this one has 3"),
        ("JWT_SECRET_PHRASE", "abcdefghijklmnopqrstuvwxyzabcdef", "no digit from 1 to 9"),
        ("JWT_SECRET_PHRASE", "1a2b3c4d5e6f7g8h9i0j1k2l3m4n5o6p", "16 of them can be guessed"),
        ("JWT_SECRET_PHRASE_FILE", "/dev/null", "JWT_SECRET_PHRASE is set too"),
        ("TOLLGATE_JWT_KEY_PREVIOUS", "c2hvcnQ=", "32 random bytes in base64"),
        ("TOLLGATE_JWT_PHRASE_PREVIOUS", PHRASE, "the previous key is the current one"),
        ("MARKETPLACE_API_URI", "market", "must be a URL"),
        ("WEB3_PROVIDER_URL", "ws://h/secret", "begins with http"),
        ("BACKEND_API_URI", "//", "must be a URL"),
        ("BACKEND_AUTH_TOKEN", "t", "set BACKEND_API_URI"),
        ("PG_PORT", "x", "whole number"),
        ("PG_HOST", "a b", "must be a host name"),
        ("DATABASE_URL", "mysql://h/d", "postgres://"),
        ("DATABASE_URL", "sqlite::memory:", "would forget"),
        ("TOLLGATE_LISTEN_TLS", "443", "an IP address and a port"),
        ("TOLLGATE_LISTEN_HTTP", "0.0.0.0:443", "already taken by listener \"https\""),
        ("TOLLGATE_LISTEN_ADMIN", "x", "an IP address and a port"),
        ("TOLLGATE_TLS_CERT", "/no/such", "cannot read /no/such"),
        ("TOLLGATE_TLS_KEY", "/dev/null", "not a file"),
        ("TOLLGATE_DATA_DIR", "/dev/null", "not a directory"),
        ("TOLLGATE_UPSTREAM_ALLOW", "10.0.0.0/8,x", "must be a network"),
        ("TOLLGATE_TRUSTED_PROXIES", "10.0.0.0/8,x", "must be a network"),
        ("TOLLGATE_UPSTREAM_CA", "/no/such", "cannot read"),
        ("TOLLGATE_ALLOW_WEAK_SECRET", "yes", "true or false"),
        ("TOLLGATE_ACCESS_TABLES", "true", "Postgres only"),
        ("TOLLGATE_COMPATIBILITY", "nginx", "\"standard\" or \"nevermined\" or \"nexus-auth\""),
        ("TOLLGATE_AUTH_TRUSTED_PEERS", "10.0.0.0/8,x", "must be a network"),
        ("TOLLGATE_LOG", "loud", "\"error\" or \"warn\""),
    ] {
        let error = files.drop_in(&[(name, value)]).unwrap_err();
        let [mistake] = &error.mistakes[..] else { panic!("{name}={value}: {error}") };
        assert_eq!(mistake.key, format!("environment: {name}"), "{value}: {error}");
        assert!(mistake.message.contains(message), "{name}={value}: {error}");
        assert!(mistake.file.is_none() && mistake.line == 0);
        assert!(!error.to_string().contains("secret/") && !error.to_string().contains(PHRASE), "{error}");
    }
}

/// For the auth gateway's test: what is asked for although it has no effect.
pub(super) fn names_without_effect() -> impl Iterator<Item = String> {
    WITHOUT_EFFECT.iter().map(|(name, _)| (*name).to_owned())
}
