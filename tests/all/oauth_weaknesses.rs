//! What was weak or wrong at the replaced server (auth-gateway.md sections 14.1 and 14.2), and is not here: a test for each,
//! named after it, in the order of the reference. What another file shows anyway is named in these tables.
//!
//! | 14.1 | In `security` and `service`, or |
//! | --- | --- |
//! | 7 revocation | `oauth_tokens::a_client_takes_its_own_tokens_back`, `a_resource_server_asks_about_tokens` |
//! | 9 | what is remembered of hotkeys: `owners::an_answer_is_remembered_for_a_while_and_a_no_for_less` |
//! | 11 | `oauth_compatibility::direct`: scopes that are the main network's alone |
//! | 14 | scrypt: `oauth_clients::secrets_cannot_be_tried_without_end_and_right_ones_are_not_counted`; pages: `oauth_pages::who_comes_too_often_is_told_so_on_a_page` |
//! | 15 | tokens that went elsewhere: `oauth_pages::every_page_is_strict_about_what_it_loads_and_is_never_kept` |
//!
//! | 14.2 | In `functional`, or |
//! | --- | --- |
//! | 1, 2 | no token's life depends on epochs: `service::no_access_token_lives_longer_than_was_set` |
//! | 5 | `oauth_compatibility::discovery::health_tells_whether_chain_and_database_answer_and_recovers_by_itself` |
//! | 8 | `oauth_sign_in` (the RFCs' words), `oauth_device::a_device_is_served_as_rfc_8628_has_it`, `oauth_tokens::user_info_is_for_those_who_have_an_access_token_with_openid` |
//! | 10 | `store_oauth::events_are_listed_page_by_page_without_losing_one_of_the_same_microsecond`, `src/oauth/statistics.rs` |
//! | 15 | `oauth_base::signing_keys_are_rotated_with_an_overlap_while_serving` |

mod functional;
mod security;
mod service;

use serde_json::{Value, json};

use crate::support::{
    Settings,
    oauth::Server,
    sign_in::{nonce, registration, remembered},
    subtensor::Node,
    wallet::{BittensorWallet, EthereumWallet},
};

fn wallet() -> EthereumWallet {
    EthereumWallet::new(17)
}

fn refresh_of(tokens: &Value) -> &str {
    tokens["refresh_token"].as_str().unwrap()
}

/// A registration for Bittensor wallets that may ask for everything.
fn bittensor(kind: &str) -> Value {
    let mut form = registration(kind);
    form["allowed_sign_methods"] = json!(["sr25519"]);
    form["allowed_scopes"] = json!([]);
    form
}

fn asking(node: &Node, settings: Settings) -> Settings {
    settings.variable("SUBTENSOR_WS_URL", node.url())
}

/// The direct flow, with a Bittensor wallet: status, and the tokens if there are any.
fn direct(server: &Server, wallet: &BittensorWallet, scopes: &[&str]) -> (u16, Value) {
    let form = json!({ "address": wallet.address(), "scopes": scopes });
    let message = nonce(&server.post_json("/v1/auth/challenge", &form));
    let body = json!({ "nonce": message, "address": wallet.address(), "signature": wallet.sign(&message) });
    let answer = server.post_json("/v1/auth/verify", &body);
    (answer.status, remembered(&answer))
}
