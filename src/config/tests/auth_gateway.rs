//! The auth gateway's variables alone: each does what it did, or is said to do nothing.

use std::{collections::BTreeSet, fmt::Debug};

use super::*;
use crate::config::environment::AUTH_GATEWAY_WITHOUT_EFFECT;

const PRIVATE: &str = include_str!("../../../tests/data/oauth/rsa.pem");
const PUBLIC: &str = include_str!("../../../tests/data/oauth/rsa.pub.pem");

fn encoded(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

fn load_with(more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let (private, public) = (encoded(PRIVATE), encoded(PUBLIC));
    let base = [("RSA_PRIVATE_KEY_BASE64", private.as_str()), ("RSA_PUBLIC_KEY_BASE64", public.as_str())];
    load(None, base.iter().chain(more).copied().collect(), Flags::default())
}

fn oauth(config: &Config) -> &OAuth {
    config.oauth.as_ref().unwrap()
}

fn shown(value: impl Debug) -> String {
    format!("{value:?}")
}

type Row = (&'static [(&'static str, &'static str)], fn(&Config) -> String, &'static str);

/// Variables, what to look at, and what is to be seen there: first the default.
const EFFECTS: &[Row] = &[
    (&[], |c| shown(c.listeners[0].address), "0.0.0.0:3000"),
    (&[("HOST", "127.0.0.1"), ("PORT", "3100")], |c| shown(c.listeners[0].address), "127.0.0.1:3100"),
    (&[("PORT", "")], |c| shown(c.listeners[0].address), "0.0.0.0:3000"),
    (&[], |c| shown(oauth(c).production), "false"),
    (&[("NODE_ENV", "test")], |c| shown(oauth(c).production), "false"),
    (
        &[("NODE_ENV", "production"), ("ADMIN_API_KEY", "k"), ("PUBLIC_URL", "https://a.example")],
        |c| shown(oauth(c).production),
        "true",
    ),
    (&[], |c| shown(&oauth(c).trusted), "Networks([])"),
    (&[("TRUST_PROXY", "2")], |c| shown(&oauth(c).trusted), "Hops(2)"),
    (&[("TRUST_PROXY", "10.0.0.0/8,::1")], |c| shown(&oauth(c).trusted), "Networks([10.0.0.0/8, ::1/128])"),
    (&[], |c| shown(oauth(c).network), "Mainnet"),
    (&[("NETWORK", "testnet")], |c| shown(oauth(c).network), "Testnet"),
    (&[], |c| shown(c.subtensor.as_ref().unwrap().url.expose().as_str()), "\"wss://entrypoint-finney.opentensor.ai/\""),
    (
        &[("NETWORK", "testnet")],
        |c| shown((&c.subtensor.as_ref().unwrap().url, c.subtensor.as_ref().unwrap().genesis_hash)),
        "(wss://test.finney.opentensor.ai, None)",
    ),
    (
        &[("SUBTENSOR_WS_URL", "ws://127.0.0.1:9944")],
        |c| shown((&c.subtensor.as_ref().unwrap().url, c.subtensor.as_ref().unwrap().genesis_hash)),
        "(ws://127.0.0.1:9944, None)",
    ),
    (&[], |c| shown(c.subtensor.as_ref().unwrap().timeout), "10s"),
    (&[("SUBTENSOR_QUERY_TIMEOUT_MS", "2500")], |c| shown(c.subtensor.as_ref().unwrap().timeout), "2.5s"),
    (&[], |c| oauth(c).public_url.clone(), "http://localhost:3000"),
    (&[("PUBLIC_URL", "https://a.example/x//")], |c| oauth(c).public_url.clone(), "https://a.example/x"),
    (&[("PUBLIC_URL", "https://a.example/")], |c| oauth(c).issuer.clone(), "https://a.example"),
    (&[("JWT_ISSUER", "https://i.example/")], |c| oauth(c).issuer.clone(), "https://i.example"),
    (&[], |c| oauth(c).audience.clone(), "bittensor-apps"),
    (&[("JWT_AUDIENCE", "mine")], |c| oauth(c).audience.clone(), "mine"),
    (&[], |c| shown(oauth(c).lifetimes.access_token), "900s"),
    (&[("JWT_ACCESS_TOKEN_EXPIRY", "60")], |c| shown(oauth(c).lifetimes.access_token), "60s"),
    (&[], |c| shown(oauth(c).lifetimes.refresh_token), "86400s"),
    (&[("JWT_REFRESH_TOKEN_EXPIRY", "61")], |c| shown(oauth(c).lifetimes.refresh_token), "61s"),
    (&[], |c| shown(oauth(c).lifetimes.authorization_code), "30s"),
    (&[("JWT_AUTH_CODE_EXPIRY", "62")], |c| shown(oauth(c).lifetimes.authorization_code), "62s"),
    (&[], |c| shown(oauth(c).lifetimes.challenge), "120s"),
    (&[("CHALLENGE_TTL_SECONDS", "63")], |c| shown(oauth(c).lifetimes.challenge), "63s"),
    (&[], |c| shown(oauth(c).lifetimes.device_code), "300s"),
    (&[("DEVICE_CODE_TTL_SECONDS", "64")], |c| shown(oauth(c).lifetimes.device_code), "64s"),
    (&[], |c| shown(oauth(c).lifetimes.device_poll_interval), "5s"),
    (&[("DEVICE_CODE_POLL_INTERVAL", "6")], |c| shown(oauth(c).lifetimes.device_poll_interval), "6s"),
    (&[], |c| oauth(c).verification_uri.clone(), "http://localhost:3000/v1/device/verify"),
    (
        &[("VERIFICATION_URI", "https://d.example/code")],
        |c| oauth(c).verification_uri.clone(),
        "https://d.example/code",
    ),
    (&[], |c| shown(oauth(c).limits.requests), "30"),
    (&[("RATE_LIMIT_GLOBAL", "31")], |c| shown(oauth(c).limits.requests), "31"),
    (&[], |c| shown(oauth(c).limits.challenges), "5"),
    (&[("RATE_LIMIT_CHALLENGE", "7")], |c| shown(oauth(c).limits.challenges), "7"),
    (&[], |c| shown(oauth(c).admin_key.is_some()), "false"),
    (&[("ADMIN_API_KEY", "k")], |c| oauth(c).admin_key.as_ref().unwrap().expose().into(), "k"),
    (&[], |c| shown(oauth(c).admin_address), "None"),
    (&[("ADMIN_PORT", "3001")], |c| shown(oauth(c).admin_address), "Some(0.0.0.0:3001)"),
    (&[("ADMIN_PORT", "3000")], |c| shown(oauth(c).admin_address), "None"),
    (&[("ADMIN_PORT", "0")], |c| shown(oauth(c).admin_address), "None"),
    (&[], |c| shown(c.admin), "Some(0.0.0.0:3002)"),
    (&[("METRICS_PORT", "3003")], |c| shown(c.admin), "Some(0.0.0.0:3003)"),
    (&[("METRICS_PORT", "3003"), ("TOLLGATE_LISTEN_ADMIN", "127.0.0.1:1")], |c| shown(c.admin), "Some(127.0.0.1:1)"),
    (&[], |c| shown(c.database.migrate_at_start), "true"),
    (&[("RUN_MIGRATIONS", "TRUE")], |c| shown(c.database.migrate_at_start), "false"),
    (&[], |c| shown(oauth(c).max_body_bytes), "65536"),
    (&[("JSON_BODY_LIMIT_BYTES", "2048")], |c| shown(oauth(c).max_body_bytes), "2048"),
    (&[], |c| shown(oauth(c).demo), "false"),
    (&[("DEMO_MODE", "true")], |c| shown(oauth(c).demo), "true"),
    (&[], |c| shown(&oauth(c).wallet_banner_url), "None"),
    (
        &[("WALLET_BANNER_URL", "https://w.example")],
        |c| shown(&oauth(c).wallet_banner_url),
        "Some(\"https://w.example\")",
    ),
    (&[], |c| shown(oauth(c).events.enabled), "true"),
    (&[("ENABLE_EVENT_LOG", "1")], |c| shown(oauth(c).events.enabled), "false"),
    (&[], |c| shown(oauth(c).events.retention), "2592000s"),
    (&[("EVENT_LOG_RETENTION_DAYS", "1")], |c| shown(oauth(c).events.retention), "86400s"),
    (&[], |c| shown(oauth(c).compatibility), "AuthGateway"),
    (&[("TOLLGATE_OAUTH_COMPATIBILITY", "standard")], |c| shown(oauth(c).compatibility), "Standard"),
    (&[("TOLLGATE_SIGNING_KEYS", "/k")], |c| shown(oauth(c).keys.directory()), "Some(\"/k\")"),
    // What the Nevermined proxy needed is not missed, and nothing of it is there.
    (
        &[],
        |c| shown((c.listeners.len(), c.introspection, c.nevermined.is_some(), c.chain.is_some())),
        "(1, None, false, false)",
    ),
    (&[], |c| shown(&c.database.target).replace(['"', '/'], " "), "Sqlite( tollgate-data tollgate.db )"),
];

#[test]
fn every_variable_of_the_auth_gateway_has_its_effect() {
    let mut seen: BTreeSet<&str> = ["RSA_PRIVATE_KEY_BASE64", "RSA_PUBLIC_KEY_BASE64"].into();
    // Its own test below.
    seen.extend(["RSA_PRIVATE_KEY_PATH", "RSA_PUBLIC_KEY_PATH"]);
    for (variables, effect, expected) in EFFECTS {
        let config = load_with(variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
        let found = effect(&config).replace(" var lib tollgate ", " tollgate-data ");
        assert_eq!(found, *expected, "{variables:?}");
        seen.extend(variables.iter().map(|(name, _)| name));
    }
    for (name, _) in AUTH_GATEWAY_VARIABLES {
        assert!(seen.contains(name), "{name} has no effect to show");
    }
}

#[test]
fn every_variable_that_is_asked_for_is_documented() {
    let set: Environment = [("JWT_ISSUER", "https://i.example")].into_iter().collect();
    let context = Context::new(None, "", set.with_flags(&Flags::default()));
    read(&Section::root(&context, None));
    let with_file = |(name, meaning): &(&str, &str)| {
        let file = meaning.ends_with('†').then(|| format!("{name}_FILE"));
        std::iter::once((*name).to_owned()).chain(file)
    };
    let documented: BTreeSet<String> = VARIABLES
        .iter()
        .chain(&AUTH_GATEWAY_VARIABLES)
        .flat_map(with_file)
        .chain(AUTH_GATEWAY_WITHOUT_EFFECT.iter().map(|(name, _)| (*name).to_owned()))
        .chain(super::environment::names_without_effect())
        .collect();
    let asked = context.all_asked().1;
    assert_eq!(asked.difference(&documented).collect::<Vec<_>>(), [""; 0]);
    let missing: Vec<_> = AUTH_GATEWAY_VARIABLES.iter().filter(|(name, _)| !asked.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_has_no_effect_is_said() {
    for (name, _) in AUTH_GATEWAY_WITHOUT_EFFECT {
        let config = load_with(&[(name, "1")]).unwrap();
        let said = format!("environment: {name} has no effect");
        assert!(config.warnings.iter().any(|warning| warning.starts_with(&said)), "{name}");
    }
}

#[test]
fn keys_may_be_files_and_base64_wins() {
    let files = Files::new();
    for (name, text) in [("private.pem", PRIVATE), ("public.pem", PUBLIC)] {
        std::fs::write(files.0.path().join(name), text).unwrap();
    }
    let (private, public) = (files.path("private.pem"), files.path("public.pem"));
    let paths = [("RSA_PRIVATE_KEY_PATH", private.as_str()), ("RSA_PUBLIC_KEY_PATH", public.as_str())];
    let config = load(None, paths.into_iter().collect(), Flags::default()).unwrap();
    let KeySource::Pair { private, public } = &oauth(&config).keys else { panic!() };
    assert_eq!((private.expose(), public.as_str()), (PRIVATE, PUBLIC));
    let nothing = [("RSA_PRIVATE_KEY_PATH", "/no/such"), ("RSA_PUBLIC_KEY_PATH", "/no/such")];
    assert!(load_with(&nothing).is_ok());
}

#[test]
fn a_wrong_variable_is_named() {
    for (variables, name, message) in [
        (&[("PORT", "99999")][..], "PORT", "at most 65535"),
        (&[("HOST", "nowhere.example")], "HOST", "must be an IP address"),
        (&[("NETWORK", "finney")], "NETWORK", "\"mainnet\" or \"testnet\""),
        (&[("SUBTENSOR_WS_URL", "entrypoint-finney")], "SUBTENSOR_WS_URL", "begins with wss://"),
        (&[("SUBTENSOR_QUERY_TIMEOUT_MS", "10s")], "SUBTENSOR_QUERY_TIMEOUT_MS", "whole number"),
        (&[("SUBTENSOR_QUERY_TIMEOUT_MS", "0")], "SUBTENSOR_QUERY_TIMEOUT_MS", "at least 1"),
        (&[("TRUST_PROXY", "yes")], "TRUST_PROXY", "a number of proxies"),
        (&[("JWT_ACCESS_TOKEN_EXPIRY", "15m")], "JWT_ACCESS_TOKEN_EXPIRY", "without a unit"),
        (&[("JWT_REFRESH_TOKEN_EXPIRY", "-1")], "JWT_REFRESH_TOKEN_EXPIRY", "at least 1"),
        (&[("RATE_LIMIT_GLOBAL", "0")], "RATE_LIMIT_GLOBAL", "at least 1"),
        (&[("RATE_LIMIT_CHALLENGE", "5x")], "RATE_LIMIT_CHALLENGE", "whole number"),
        (&[("PUBLIC_URL", "auth.example")], "PUBLIC_URL", "must be a URL"),
        (&[("DEMO_MODE", "yes")], "DEMO_MODE", "true or false"),
        (&[("RSA_PUBLIC_KEY_BASE64", "!")], "RSA_PUBLIC_KEY_BASE64", "base64 of a PEM file"),
        (&[("RSA_PUBLIC_KEY_BASE64", "")], "RSA_PRIVATE_KEY_BASE64", "there is no signing key"),
        (&[("JWT_SECRET_PHRASE", PHRASE)], "JWT_ISSUER", "write a configuration file"),
        (&[("NODE_ENV", "production")], "ADMIN_API_KEY", "must be set in production"),
        (
            &[("NODE_ENV", "production"), ("ADMIN_API_KEY", "k"), ("VERIFICATION_URI", "http://a.example")],
            "VERIFICATION_URI",
            "https:// in production",
        ),
        (
            &[("NODE_ENV", "production"), ("ADMIN_API_KEY", "k"), ("JWT_ISSUER", "https://other.example")],
            "JWT_ISSUER",
            "must be the public URL",
        ),
    ] {
        let error = load_with(variables).unwrap_err();
        let own = error.mistakes.iter().find(|mistake| mistake.key == format!("environment: {name}"));
        let own = own.unwrap_or_else(|| panic!("{variables:?}: {error}"));
        assert!(own.message.contains(message), "{variables:?}: {error}");
        assert!(!error.to_string().contains(&encoded(PRIVATE)[100..140]), "{error}");
    }
}

#[test]
fn next_to_a_file_its_variables_mean_nothing() {
    let files = Files::new();
    let variables = [("JWT_ISSUER", "https://i.example"), ("PORT", "x"), ("NETWORK", "x"), ("METRICS_PORT", "x")];
    let config = files.with_file(SMALL, &variables, Flags::default()).unwrap();
    assert!(config.oauth.is_none());
}
