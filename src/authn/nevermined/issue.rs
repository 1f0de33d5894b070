//! Making tokens, for `tollgate token issue` and for tests.

use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    jose::{self, JweError},
    model::{address::EvmAddress, clock::Timestamp, did::Did, key::ContentKey, secret::Secret},
};

/// What a token is to say, as the Nevermined node would (nevermined.md section 2.4).
pub struct Claims {
    /// The service: `did`.
    pub service: Did,
    /// The plan whose credits pay: `subscriptionDid`.
    pub plan: Did,
    /// The holder of the credits: `userId`.
    pub user: EvmAddress,
    /// The service's owner: `owner`.
    pub owner: EvmAddress,
    /// `ercType`, which is 1155 for credits.
    pub erc_type: u64,
    /// What may be called: `endpoints`.
    pub endpoints: Vec<String>,
    /// What the upstream wants to see: `headers.authentication`.
    pub authentication: Authentication,
    /// `iat`.
    pub issued_at: Option<Timestamp>,
    /// `nbf`.
    pub not_before: Option<Timestamp>,
    /// `exp`. A token without it never expires.
    pub expires_at: Option<Timestamp>,
}

/// What the provider's service wants to see in `Authorization`.
pub enum Authentication {
    /// Nothing.
    None,
    /// `Bearer` and this token.
    Bearer(Secret),
    /// `Basic` and these two.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
}

/// Makes a token.
///
/// # Errors
/// When the cryptographic library fails.
pub fn issue(claims: &Claims, key: &ContentKey) -> Result<String, JweError> {
    let authentication = match &claims.authentication {
        Authentication::None => json!({ "type": "none" }),
        Authentication::Bearer(token) => json!({ "type": "bearer", "token": token.expose() }),
        Authentication::Basic { username, password } => {
            json!({ "type": "basic", "username": username, "password": password.expose() })
        }
    };
    let mut json = json!({
        "did": claims.service.to_string(),
        "subscriptionDid": claims.plan.digits(),
        "userId": claims.user.checksummed(),
        "ercType": claims.erc_type,
        "endpoints": claims.endpoints,
        "headers": { "authentication": authentication },
        "owner": claims.owner.checksummed(),
    });
    let times = [("iat", claims.issued_at), ("nbf", claims.not_before), ("exp", claims.expires_at)];
    if let Some(json) = json.as_object_mut() {
        json.extend(times.into_iter().filter_map(|(name, time)| Some((name.to_owned(), json!(time?.0)))));
    }
    jose::encrypt_compact(Zeroizing::new(json.to_string()).as_bytes(), key)
}
