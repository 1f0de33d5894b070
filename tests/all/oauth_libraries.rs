//! Client libraries that others have written, with all their checks on: the programs of `tests/clients` go through every
//! flow with them, over TLS, and nothing is relaxed.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    Gateway, Settings,
    oauth::{ADMIN_KEY, GRANTS, Server},
    program, secret,
};

const CALLBACK: &str = "https://app.example/callback";
/// For a hidden frame.
const SILENT: &str = "https://app.example/silent";
const RESOURCES: [&str; 2] = ["https://api.example/", "https://files.example/"];

/// Where those programs are.
struct World {
    server: Server,
    algorithm: &'static str,
    compatibility: &'static str,
}

/// A file of the development certificate, which those programs trust and which names this machine alone.
fn certificate(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("certs").join(name)
}

impl World {
    fn new(algorithm: &'static str, compatibility: &'static str) -> Self {
        let sections = format!(
            "[oauth]\npublic_url = \"https://{{tls}}\"\ncompatibility = \"{compatibility}\"\nresources = {RESOURCES:?}\n\
             admin_key = \"{ADMIN_KEY}\"\n\
             [oauth.lifetimes]\ndevice_poll_interval = \"1s\"\n\
             [oauth.limits]\nrequests = 100000\nchallenges = 100000\nsecrets = 100000\n\
             [[route]]\nname = \"sign-in\"\nupstream = \"authorization-server\"\n"
        );
        let settings = Settings::file().tls(&certificate("dev.crt"), &certificate("dev.key")).with(&sections);
        let mut gateway = Gateway::prepare(settings);
        gateway.cli(&["key", "generate", "--algorithm", algorithm]);
        gateway.launch();
        gateway.ready();
        Self { server: Server { gateway, database: None }, algorithm, compatibility }
    }

    fn client(&self, kind: &str) -> Value {
        let client = self.server.register(&json!({
            "client_name": "A Library",
            "client_type": kind,
            "redirect_uris": [CALLBACK, SILENT],
            "grant_types": GRANTS,
            "allowed_sign_methods": ["evm"],
            "allowed_scopes": ["openid"],
            "allowed_origins": ["https://app.example"],
            "rate_limit": 0,
        }));
        json!({ "client_id": client["client_id"], "client_secret": client["client_secret"] })
    }

    /// What the programs are told: see `tests/clients/world.mjs`.
    fn told(&self) -> Value {
        secret(ADMIN_KEY);
        json!({
            "issuer": format!("https://{}", self.server.gateway.tls),
            "algorithm": self.algorithm,
            "compatibility": self.compatibility,
            "redirect_uri": CALLBACK,
            "resources": RESOURCES,
            "clients": {
                "public": self.client("public"),
                "confidential": self.client("confidential"),
                "other": self.client("confidential"),
            },
        })
    }

    /// Runs a program, which trusts the development certificate.
    #[track_caller]
    fn runs(&self, start: fn(&str, &Value) -> std::process::Command, file: &str) {
        let mut program = start(file, &self.told());
        program::succeeds(
            program
                .env("NODE_EXTRA_CA_CERTS", certificate("dev.crt"))
                .env("REQUESTS_CA_BUNDLE", certificate("dev.crt")),
        );
    }
}

const OPENID_CLIENT: &str = "clients/openid-client.test.mjs";
const OAUTH4WEBAPI: &str = "clients/oauth4webapi.test.mjs";
const OIDC_CLIENT_TS: &str = "clients/oidc-client-ts.test.mjs";
const AUTHLIB: &str = "clients/authlib_test.py";

#[test]
fn openid_client_is_content_with_rs256() {
    World::new("RS256", "standard").runs(program::node, OPENID_CLIENT);
}

#[test]
fn openid_client_is_content_with_es256() {
    World::new("ES256", "standard").runs(program::node, OPENID_CLIENT);
}

#[test]
fn openid_client_is_content_with_eddsa() {
    World::new("EdDSA", "standard").runs(program::node, OPENID_CLIENT);
}

#[test]
fn openid_client_lives_with_the_replaced_servers_answers() {
    World::new("RS256", "auth-gateway").runs(program::node, OPENID_CLIENT);
}

#[test]
fn oauth4webapi_is_content_with_rs256() {
    World::new("RS256", "standard").runs(program::node, OAUTH4WEBAPI);
}

#[test]
fn oauth4webapi_is_content_with_es256() {
    World::new("ES256", "standard").runs(program::node, OAUTH4WEBAPI);
}

#[test]
fn oauth4webapi_is_content_with_eddsa() {
    World::new("EdDSA", "standard").runs(program::node, OAUTH4WEBAPI);
}

#[test]
fn oauth4webapi_lives_with_the_replaced_servers_answers() {
    World::new("RS256", "auth-gateway").runs(program::node, OAUTH4WEBAPI);
}

/// It reads ID tokens and verifies no signature, so one algorithm is as good as another.
#[test]
fn oidc_client_ts_is_content_in_a_browser() {
    World::new("ES256", "standard").runs(program::node, OIDC_CLIENT_TS);
}

#[test]
fn oidc_client_ts_lives_with_the_replaced_servers_answers() {
    World::new("RS256", "auth-gateway").runs(program::node, OIDC_CLIENT_TS);
}

#[test]
fn authlib_is_content_with_rs256() {
    World::new("RS256", "standard").runs(program::python, AUTHLIB);
}

#[test]
fn authlib_is_content_with_es256() {
    World::new("ES256", "standard").runs(program::python, AUTHLIB);
}

#[test]
fn authlib_is_content_with_eddsa() {
    World::new("EdDSA", "standard").runs(program::python, AUTHLIB);
}

#[test]
fn authlib_lives_with_the_replaced_servers_answers() {
    World::new("RS256", "auth-gateway").runs(program::python, AUTHLIB);
}
