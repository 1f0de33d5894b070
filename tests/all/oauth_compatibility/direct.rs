//! Sections 1.1 and 2: the direct flow, and what is signed.

use serde_json::{Value, json};

use super::{malformed, told};
use crate::support::{
    Answer,
    oauth::{Server, members, settings},
    sign_in::{App, claims, nonce, registration, remembered},
    wallet::{BittensorWallet, EthereumWallet},
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(7)
}

fn challenge(server: &Server, address: Option<&str>) -> String {
    let body = address.map_or(json!({}), |address| json!({ "address": address }));
    nonce(&server.post_json("/v1/auth/challenge", &body))
}

fn verify(server: &Server, nonce: &str, address: &str, signature: &str) -> Answer {
    let body = json!({ "nonce": nonce, "address": address, "signature": signature });
    server.post_json("/v1/auth/verify", &body)
}

#[test]
fn a_challenge_is_the_old_message_and_its_answer_an_access_token_alone() {
    let form = regex::Regex::new(
        r"^taostats-auth:openid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    )
    .unwrap();
    for server in Server::on_both(&settings()) {
        let wallet = wallet();
        let challenge =
            server.post_json("/v1/auth/challenge", &json!({ "address": wallet.address(), "scopes": ["openid"] }));
        assert_eq!(challenge.json()["expires_in"], 120);
        let message = nonce(&challenge);
        assert!(form.is_match(&message), "{message}");
        let signature = wallet.sign(&message);
        let answer = verify(&server, &message, &wallet.address(), &signature);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let token = remembered(&answer);
        assert_eq!(members(&token), ["access_token", "expires_in", "scope", "token_type"], "and nothing to refresh");
        assert_eq!((&token["token_type"], &token["scope"]), (&json!("Bearer"), &json!("openid")));
        assert_eq!(token["expires_in"], 900);
        let claims = claims(&token["access_token"]);
        assert_eq!(claims["sub"], json!(wallet.address()));
        assert_eq!(
            (&claims["type"], &claims["evm_address"], &claims["hotkey"], &claims["coldkey"], &claims["aud"]),
            (&json!("access"), &json!(wallet.address()), &Value::Null, &Value::Null, &json!("bittensor-apps"))
        );
        assert!(claims.get("client_id").is_none());
        assert_eq!(
            told(&verify(&server, &message, &wallet.address(), &signature)),
            (401, "Unauthorized".into()),
            "used"
        );
        for nothing in [json!({}), json!({ "address": "", "unknown": 1 })] {
            let challenge = server.post_json("/v1/auth/challenge", &nothing);
            assert_eq!(members(&challenge.json()), ["expires_in", "nonce"]);
            assert!(nonce(&challenge).starts_with("taostats-auth:none:"));
        }
        let several = json!({ "scopes": ["openid", "subnet:1:miner", "openid"] });
        let several = nonce(&server.post_json("/v1/auth/challenge", &several));
        assert!(several.starts_with("taostats-auth:openid,subnet:1:miner,openid:"), "{several}");
    }
}

#[test]
fn no_challenge_is_made_for_what_cannot_be_signed() {
    let [mainnet, testnet] =
        ["mainnet", "testnet"].map(|network| Server::start(settings().variable("NETWORK", network)));
    let own = wallet().address();
    let delegate = format!("delegate:{}", BittensorWallet::new("//Alice").address());
    for (server, body, text) in [
        (&mainnet, json!({ "address": "0x3c44CdDdB6a900fa2b585dd299e03d12FA4293BC" }), "Invalid EVM address"),
        (&mainnet, json!({ "address": "0x3C44CDDDB6A900FA2B585DD299E03D12FA4293BC" }), "Invalid EVM address"),
        (&mainnet, json!({ "address": "5Grw" }), "Invalid SS58 address"),
        (&mainnet, json!({ "scopes": ["nonsense"] }), "Invalid scope format"),
        (&mainnet, json!({ "scopes": [""] }), "Invalid scope format"),
        (&mainnet, json!({ "scopes": ["offline_access"] }), "Invalid scope format"),
        (&mainnet, json!({ "address": own, "scopes": ["subnet:1:miner"] }), "not available for EVM wallets"),
        (&testnet, json!({ "scopes": ["staker:1"] }), "mainnet only"),
        (&testnet, json!({ "scopes": ["openid", delegate] }), "mainnet only"),
    ] {
        let answer = server.post_json("/v1/auth/challenge", &body);
        assert_eq!(told(&answer), (400, "Bad Request".into()), "{body}");
        assert!(answer.text().contains(text), "{body}: {}", answer.text());
    }
    for body in [json!({ "address": 1 }), json!({ "scopes": "openid" }), json!({ "scopes": [1] }), json!([])] {
        malformed(&mainnet.post_json("/v1/auth/challenge", &body));
    }
    malformed(&mainnet.post_form("/v1/auth/challenge", &[("scopes", "openid")]));
    let two = mainnet.post_form("/v1/auth/challenge", &[("scopes", "openid"), ("scopes", "openid")]);
    assert!(nonce(&two).starts_with("taostats-auth:openid,openid:"));
}

#[test]
fn a_wrong_answer_burns_the_challenge_and_gets_nothing() {
    let server = Server::start(settings());
    let (wallet, other) = (wallet(), EthereumWallet::new(8));
    let own = wallet.address();
    for what in ["signature", "another's", "no hex", "empty", "other text", "v of another key", "too long"] {
        let nonce = challenge(&server, None);
        let right = wallet.sign(&nonce);
        let signature = match what {
            "another's" => other.sign(&nonce),
            "no hex" => "hello".into(),
            "empty" => String::new(),
            "other text" => wallet.sign("something else"),
            "v of another key" => format!("{}{}", &right[..130], if right.ends_with("1b") { "1c" } else { "1b" }),
            "too long" => format!("{right}00"),
            _ => right.replace('1', "2"),
        };
        let answer = verify(&server, &nonce, &own, &signature);
        assert_eq!(told(&answer), (401, "Unauthorized".into()), "{what}");
        assert!(answer.text().contains("Invalid signature"), "{}", answer.text());
        let again = verify(&server, &nonce, &own, &wallet.sign(&nonce));
        assert_eq!(told(&again), (401, "Unauthorized".into()), "{what}: burned");
        assert!(again.text().contains("xpired challenge"), "{}", again.text());
    }
    let bound = challenge(&server, Some(&own));
    assert_eq!(told(&verify(&server, &bound, &other.address(), &other.sign(&bound))), (400, "Bad Request".into()));
    let invented = format!("taostats-auth:none:{}", uuid::Uuid::nil());
    let answer = verify(&server, &invented, &own, &wallet.sign(&invented));
    assert_eq!(told(&answer), (401, "Unauthorized".into()), "never handed out");
    // What is no address burns nothing.
    let fresh = challenge(&server, None);
    for address in ["5Grw", "", "0x00"] {
        let answer = verify(&server, &fresh, address, &wallet.sign(&fresh));
        assert_eq!(told(&answer), (400, "Bad Request".into()), "{address}");
    }
    assert_eq!(verify(&server, &fresh, &own, &wallet.sign(&fresh)).status, 200);
    // A page's message is none of the direct flow.
    let client = server.register(&registration("public"));
    let app = App { server: &server, client: &client };
    let of_a_page = nonce(&app.challenge(&app.page(&[]), None));
    let answer = verify(&server, &of_a_page, &own, &wallet.sign(&of_a_page));
    assert_eq!(told(&answer), (400, "Bad Request".into()));
    assert!(answer.text().contains("different authentication flow"), "{}", answer.text());
    for body in [json!({}), json!({ "nonce": "x" }), json!({ "nonce": 1, "address": own, "signature": "x" })] {
        malformed(&server.post_json("/v1/auth/verify", &body));
    }
    // Whose hotkey it is cannot be asked here: neither yes nor no. The replaced server said 500.
    let bittensor = BittensorWallet::new("//Alice");
    let nonce = challenge(&server, None);
    let answer = verify(&server, &nonce, &bittensor.address(), &bittensor.sign_wrapped(&nonce));
    assert_eq!(told(&answer), (503, "Service Unavailable".into()));
    let nonce = challenge(&server, None);
    assert_eq!(verify(&server, &nonce, &bittensor.address(), &wallet.sign(&nonce)).status, 401);
}

/// EIP-191 and EIP-55, in every spelling that the replaced server read.
#[test]
fn an_ethereum_signature_counts_in_every_old_spelling() {
    let server = Server::start(settings());
    let wallet = wallet();
    let own = wallet.address();
    for what in ["as wallets send it", "without 0x", "v from zero", "between blanks", "in upper case"] {
        let nonce = challenge(&server, Some(&own.to_lowercase()));
        let right = wallet.sign(&nonce);
        let signature = match what {
            "without 0x" => right[2..].to_owned(),
            "v from zero" => format!("{}{}", &right[..130], if right.ends_with("1b") { "00" } else { "01" }),
            "between blanks" => format!(" {right}\n"),
            "in upper case" => format!("0x{}", right[2..].to_uppercase()),
            _ => right,
        };
        let answer = verify(&server, &nonce, &own, &signature);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(claims(&remembered(&answer)["access_token"])["sub"], json!(own), "EIP-55, however it was written");
    }
    // The same key over the bare text, without the words of EIP-191 before it.
    let nonce = challenge(&server, None);
    let bare = wallet.sign_hash(&alloy::primitives::keccak256(&nonce));
    assert_eq!(told(&verify(&server, &nonce, &own, &bare)), (401, "Unauthorized".into()));
}
