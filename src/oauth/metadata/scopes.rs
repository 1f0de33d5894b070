//! Scopes as tools and forms want to know them.

use serde_json::{Value, json};

use crate::config::Network;

/// `scopes_supported`: the forms, in the replaced system's order and spelling; then ours.
pub fn supported(network: Network) -> Vec<&'static str> {
    let mut scopes = vec![
        "openid",
        "subnet:*:miner",
        "subnet:*:validator",
        "subnet:*:owner",
        "subnet:*:holder",
        "subnet:*:holder:{min_alpha}",
        "tao:holder",
        "tao:holder:{min_tao}",
    ];
    if network == Network::Mainnet {
        scopes.extend(["delegate:{hotkey}", "delegate:{hotkey}:{min_tao}", "staker:{min_tao}"]);
    }
    scopes.extend(["signer:hotkey", "signer:coldkey"]);
    scopes
}

/// What a form for registering clients needs. Nothing is checked against these schemas here.
pub fn configuration() -> Value {
    let netuid = || ("netuid", json!({ "type": "integer", "minimum": 0, "maximum": 32_768 }), json!(1));
    let role = || ("role", json!({ "type": "string", "enum": ["miner", "validator", "owner"] }), json!("miner"));
    let amount = || ("amount", json!({ "type": "number", "exclusiveMinimum": 0 }), json!(100));
    let hotkey = || {
        let pattern = "^5[1-9A-HJ-NP-Za-km-z]{47}$";
        let example = json!("5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX");
        ("hotkey", json!({ "type": "string", "pattern": pattern }), example)
    };
    let category = |id: &str, texts: [&str; 3], required: Vec<Parameter>, optional: Vec<Parameter>| {
        let [name, description, format] = texts;
        json!({
            "id": id,
            "name": name,
            "description": description,
            "format": format,
            "parameters": schema(&required, &optional, false),
            "allowed_entry_parameters": schema(&required, &optional, true),
            "sign_methods": ["sr25519"],
            "testnet_supported": !matches!(id, "delegator" | "staker"),
        })
    };
    let categories = vec![
        category(
            "subnet_role",
            ["Subnet Role", "The wallet's role on a subnet", "subnet:{netuid}:{role}"],
            vec![netuid(), role()],
            vec![],
        ),
        category(
            "subnet_holder",
            ["Subnet Token Holder", "The wallet holds a subnet's token", "subnet:{netuid}:holder[:{amount}]"],
            vec![netuid()],
            vec![amount()],
        ),
        category(
            "tao_holder",
            ["TAO Holder", "The wallet holds free TAO", "tao:holder[:{amount}]"],
            vec![],
            vec![amount()],
        ),
        category(
            "delegator",
            ["Delegator", "The wallet has staked with a hotkey", "delegate:{hotkey}[:{amount}]"],
            vec![hotkey()],
            vec![amount()],
        ),
        category("staker", ["Staker", "The wallet has staked altogether", "staker:{amount}"], vec![amount()], vec![]),
    ];
    json!({
        "scope_categories": categories,
        "grant_types": [
            {
                "id": "authorization_code",
                "name": "Authorization Code",
                "description": "A browser is sent here and back",
                "requires_redirect_uri": true,
            },
            {
                "id": "refresh_token",
                "name": "Refresh Token",
                "description": "Access goes on without signing again",
                "requires_redirect_uri": false,
            },
            {
                "id": "urn:ietf:params:oauth:grant-type:device_code",
                "name": "Device Code",
                "description": "A program without a browser shows a code",
                "requires_redirect_uri": false,
            },
        ],
        "sign_methods": [
            { "id": "sr25519", "name": "Bittensor", "description": "A Bittensor wallet's hotkey or coldkey" },
            { "id": "evm", "name": "Ethereum", "description": "An Ethereum wallet" },
        ],
        "evm_scope_restriction": "Clients for Ethereum wallets can ask for openid alone",
    })
}

/// A name, its schema and an example.
type Parameter = (&'static str, Value, Value);

/// A JSON Schema of an object. In an allow-list, `*` may stand for each of its members.
fn schema(required: &[Parameter], optional: &[Parameter], in_list: bool) -> Value {
    let all = || required.iter().chain(optional);
    let own = |schema: &Value| {
        if in_list { json!({ "oneOf": [{ "const": "*" }, schema] }) } else { schema.clone() }
    };
    let properties: serde_json::Map<String, Value> =
        all().map(|(name, schema, _)| ((*name).to_owned(), own(schema))).collect();
    let example: serde_json::Map<String, Value> =
        all().map(|(name, _, example)| ((*name).to_owned(), example.clone())).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": required.iter().map(|(name, ..)| *name).collect::<Vec<_>>(),
        "examples": [example],
        "additionalProperties": false,
    })
}
