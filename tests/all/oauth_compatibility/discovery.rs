//! Section 1.6: metadata, keys, scopes, health.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{
    eventually,
    oauth::{GRANTS, PUBLIC_URL, Server, members, settings, standard},
    sign_in::{App, part, registration},
    subtensor::Node,
    wallet::EthereumWallet,
};

#[test]
fn the_metadata_are_the_old_ones_and_more() {
    for (network, scopes) in [("mainnet", 11), ("testnet", 8)] {
        let server = Server::start(settings().variable("NETWORK", network));
        let answer = server.get("/.well-known/openid-configuration");
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=3600")));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(server.get("/health").json()["network"], network);
        let document = answer.json();
        for (name, value) in [
            ("issuer", json!(PUBLIC_URL)),
            ("authorization_endpoint", json!(format!("{PUBLIC_URL}/v1/oauth/authorize"))),
            ("token_endpoint", json!(format!("{PUBLIC_URL}/v1/oauth/token"))),
            ("device_authorization_endpoint", json!(format!("{PUBLIC_URL}/v1/device/code"))),
            ("jwks_uri", json!(format!("{PUBLIC_URL}/.well-known/jwks.json"))),
            ("response_types_supported", json!(["code"])),
            ("grant_types_supported", json!(GRANTS)),
            ("token_endpoint_auth_methods_supported", json!(["client_secret_basic", "client_secret_post", "none"])),
            ("code_challenge_methods_supported", json!(["S256"])),
            ("id_token_signing_alg_values_supported", json!(["RS256"])),
            ("subject_types_supported", json!(["public"])),
            // There are no pages below /docs: the landing page leads to the description for programs.
            ("service_documentation", json!(format!("{PUBLIC_URL}/"))),
            ("sign_methods_supported", json!(["sr25519", "evm"])),
        ] {
            assert_eq!(document[name], value, "{name}");
        }
        // What came later stands behind what was there.
        let begin = |name: &str, length: usize| document[name].as_array().unwrap()[..length].to_vec();
        let old = [
            "openid",
            "subnet:*:miner",
            "subnet:*:validator",
            "subnet:*:owner",
            "subnet:*:holder",
            "subnet:*:holder:{min_alpha}",
            "tao:holder",
            "tao:holder:{min_tao}",
            "delegate:{hotkey}",
            "delegate:{hotkey}:{min_tao}",
            "staker:{min_tao}",
        ];
        assert_eq!(begin("scopes_supported", scopes), old[..scopes]);
        let added = &document["scopes_supported"].as_array().unwrap()[scopes..];
        assert_eq!(added, ["signer:hotkey", "signer:coldkey"]);
        let old = [
            "sub",
            "iss",
            "aud",
            "exp",
            "iat",
            "auth_time",
            "nonce",
            "at_hash",
            "scope",
            "hotkey",
            "coldkey",
            "evm_address",
            "client_id",
        ];
        assert_eq!(begin("claims_supported", old.len()), old);
    }
}

#[test]
fn a_key_s_name_is_its_thumbprint() {
    for server in Server::on_both(&settings()) {
        let answer = server.get("/.well-known/jwks.json");
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=3600")));
        let keys = answer.json();
        let [key] = &keys["keys"].as_array().unwrap()[..] else { panic!("{keys}") };
        assert_eq!(members(key), ["alg", "e", "kid", "kty", "n", "use"]);
        assert_eq!(
            (&key["kty"], &key["use"], &key["alg"], &key["e"]),
            (&json!("RSA"), &json!("sig"), &json!("RS256"), &json!("AQAB"))
        );
        let canonical = format!("{{\"e\":{},\"kty\":\"RSA\",\"n\":{}}}", key["e"], key["n"]);
        let thumbprint = URL_SAFE_NO_PAD.encode(openssl::sha::sha256(canonical.as_bytes()));
        assert_eq!(key["kid"], json!(thumbprint), "RFC 7638");
        let client = server.register(&registration("public"));
        let tokens = App { server: &server, client: &client }.tokens(&EthereumWallet::new(3));
        for token in ["access_token", "id_token"] {
            let header = part(&tokens[token], 0);
            assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &json!(thumbprint)), "{token}");
        }
    }
}

#[test]
fn the_scope_configuration_is_what_forms_need() {
    let server = Server::start(settings());
    let answer = server.get("/v1/discovery/scope-config");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("public, max-age=3600")));
    let document = answer.json();
    assert_eq!(members(&document), ["evm_scope_restriction", "grant_types", "scope_categories", "sign_methods"]);
    let ids =
        |list: &str| document[list].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids("scope_categories"), ["subnet_role", "subnet_holder", "tao_holder", "delegator", "staker"]);
    assert_eq!(ids("grant_types"), GRANTS);
    assert_eq!(ids("sign_methods"), ["sr25519", "evm"]);
    assert!(document["evm_scope_restriction"].is_string());
    for (category, name, format, required, on_testnet) in [
        (0, "Subnet Role", "subnet:{netuid}:{role}", json!(["netuid", "role"]), true),
        (1, "Subnet Token Holder", "subnet:{netuid}:holder[:{amount}]", json!(["netuid"]), true),
        (2, "TAO Holder", "tao:holder[:{amount}]", json!([]), true),
        (3, "Delegator", "delegate:{hotkey}[:{amount}]", json!(["hotkey"]), false),
        (4, "Staker", "staker:{amount}", json!(["amount"]), false),
    ] {
        let category = &document["scope_categories"][category];
        let names = [
            "allowed_entry_parameters",
            "description",
            "format",
            "id",
            "name",
            "parameters",
            "sign_methods",
            "testnet_supported",
        ];
        assert_eq!(members(category), names);
        assert_eq!((&category["name"], &category["format"]), (&json!(name), &json!(format)));
        assert_eq!(
            (&category["testnet_supported"], &category["sign_methods"]),
            (&json!(on_testnet), &json!(["sr25519"]))
        );
        for schema in ["parameters", "allowed_entry_parameters"] {
            let schema = &category[schema];
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
            assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
            assert_eq!((&schema["required"], schema["examples"].as_array().unwrap().len()), (&required, 1), "{name}");
        }
    }
    let role = &document["scope_categories"][0];
    assert_eq!(role["parameters"]["properties"]["netuid"]["maximum"], 32_768);
    assert_eq!(role["allowed_entry_parameters"]["properties"]["role"]["oneOf"][0], json!({ "const": "*" }));
    let properties =
        |category: usize, name: &str| document["scope_categories"][category]["parameters"]["properties"][name].clone();
    assert_eq!(properties(0, "netuid"), json!({ "type": "integer", "minimum": 0, "maximum": 32_768 }));
    assert_eq!(properties(0, "role"), json!({ "type": "string", "enum": ["miner", "validator", "owner"] }));
    assert_eq!(properties(2, "amount"), json!({ "type": "number", "exclusiveMinimum": 0 }));
    assert_eq!(properties(3, "hotkey"), json!({ "type": "string", "pattern": "^5[1-9A-HJ-NP-Za-km-z]{47}$" }));
    let redirecting = |grant: &Value| grant["requires_redirect_uri"] == true;
    assert_eq!(document["grant_types"].as_array().unwrap().iter().filter(|grant| redirecting(grant)).count(), 1);
}

/// With the old numbers the chain counts, since whoever watches that server relies on it; with the RFCs' the database alone
/// does, since Ethereum wallets can sign in all the same. 14.2, 5: nobody has to ask for something else before it is well
/// again.
#[test]
fn health_tells_whether_chain_and_database_answer_and_recovers_by_itself() {
    let node = Node::start();
    let asking = |settings: crate::support::Settings| settings.variable("SUBTENSOR_WS_URL", node.url());
    let [old, rfc] = [settings(), standard()].map(|settings| Server::start(asking(settings)));
    let told = |server: &Server, status: u16, word: &str, chain: bool| {
        eventually("its health is told", || {
            let answer = server.get("/health");
            let document = answer.json();
            assert_eq!(members(&document), ["database", "network", "status", "subtensor", "uptime"]);
            assert_eq!((&document["network"], &document["database"]), (&json!("mainnet"), &json!(true)));
            assert!(document["uptime"].as_f64().unwrap() >= 0.0);
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            let all = (answer.status, &document["status"], &document["subtensor"]);
            (all == (status, &json!(word), &json!(chain))).then_some(())
        });
    };
    for _ in 0..2 {
        told(&old, 200, "ok", true);
        told(&rfc, 200, "ok", true);
        assert_eq!(rfc.gateway.metric("tollgate_chain_connected", &["owners"]), 1);
        node.stop();
        told(&old, 503, "degraded", false);
        told(&rfc, 200, "degraded", false);
        assert_eq!(rfc.gateway.metric("tollgate_chain_connected", &["owners"]), 0);
        node.restart();
    }
}
