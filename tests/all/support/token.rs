//! Access tokens for tests, good and bad ones.

use serde_json::{Value, json};
use tollgate::{
    authn::nevermined::{Authentication, Claims, issue},
    jose::encrypt_compact,
    model::{address::EvmAddress, clock::Timestamp, did::Did, key::ContentKey, secret::Secret},
};

use super::secret;

pub const SERVICE: Did = Did([0x11; 32]);
pub const PLAN: Did = Did([0x22; 32]);
pub const HOLDER: EvmAddress = EvmAddress([0x3c; 20]);
pub const OWNER: EvmAddress = EvmAddress([0xf3; 20]);
/// 2100-01-01.
pub const FAR: Timestamp = Timestamp(4_102_444_800);

/// A key that nobody could guess, were it not written here.
pub const KEY: &str = "kPW0nNEsJwzfJ1Xj7YBEy0yhgVBXTbYB1Sc2jcnAJRs=";
/// The same in the replaced system's way: 32 digits.
pub const PHRASE: &str = "84102957360918273645564738291074";

pub fn key() -> ContentKey {
    ContentKey::from_base64(KEY).unwrap()
}

pub fn phrase_key() -> ContentKey {
    ContentKey::from_phrase(PHRASE).unwrap()
}

/// What a token is to say.
pub struct Token(pub Claims);

impl Token {
    /// For these endpoints, with an upstream credential, valid for long.
    pub fn covering(endpoint: impl Into<String>) -> Self {
        Self(Claims {
            service: SERVICE,
            plan: PLAN,
            user: HOLDER,
            owner: OWNER,
            erc_type: 1155,
            endpoints: vec![endpoint.into()],
            authentication: Authentication::Bearer(Secret::new(secret("svc-secret"))),
            issued_at: Some(Timestamp(1_700_000_000)),
            not_before: None,
            expires_at: Some(FAR),
        })
    }

    pub fn and(mut self, endpoint: impl Into<String>) -> Self {
        self.0.endpoints.push(endpoint.into());
        self
    }

    pub fn of(mut self, user: EvmAddress) -> Self {
        self.0.user = user;
        self
    }

    pub fn service(mut self, service: Did) -> Self {
        self.0.service = service;
        self
    }

    pub fn plan(mut self, plan: Did) -> Self {
        self.0.plan = plan;
        self
    }

    pub fn expiring(mut self, at: Timestamp) -> Self {
        self.0.expires_at = Some(at);
        self
    }

    pub fn from(mut self, at: Timestamp) -> Self {
        self.0.not_before = Some(at);
        self
    }

    pub fn authentication(mut self, authentication: Authentication) -> Self {
        self.0.authentication = authentication;
        self
    }

    /// Made with the key of a configuration file.
    pub fn mint(&self) -> String {
        self.mint_with(&key())
    }

    pub fn mint_with(&self, key: &ContentKey) -> String {
        secret(issue(&self.0, key).unwrap())
    }
}

/// A token that says anything.
pub fn mint_json(claims: &Value, key: &ContentKey) -> String {
    secret(encrypt_compact(claims.to_string().as_bytes(), key).unwrap())
}

/// Claims that are good, to be spoiled.
pub fn good_claims(endpoint: &str) -> Value {
    json!({
        "did": SERVICE.to_string(), "subscriptionDid": PLAN.digits(), "userId": HOLDER.checksummed(), "ercType": 1155,
        "endpoints": [endpoint], "headers": {"authentication": {"type": "none"}}, "owner": OWNER.checksummed(),
        "iat": 1_700_000_000, "exp": FAR.0,
    })
}
