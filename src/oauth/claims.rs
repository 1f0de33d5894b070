//! What tokens say: functions of their arguments.
//!
//! Access tokens are RFC 9068's and carry the claims of the replaced server besides, explicit nulls included
//! (auth-gateway.md section 3), so that resource servers written for it read them. Each kind has a type of its own in its
//! header: none can be taken for another.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::opaque::{base64, sha256};
use crate::{
    jose::Algorithm,
    model::clock::Timestamp,
    store::grant::{Grant, Signer, SignerKind},
};

/// `typ` of access tokens (RFC 9068 section 2.1).
pub const ACCESS_TYPE: &str = "at+jwt";
/// `typ` of ID tokens.
pub const ID_TYPE: &str = "JWT";

/// Claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Who issued it.
    pub iss: String,
    /// The wallet.
    pub sub: String,
    /// Whom it is for.
    pub aud: Audience,
    /// The end of its life.
    pub exp: i64,
    /// When it was issued.
    pub iat: i64,
    /// Its name.
    pub jti: Uuid,
    /// The client it was issued to; none in the direct flow, which knows no clients.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_id: Option<String>,
    /// Scopes with a blank between them.
    pub scope: String,
    /// `access`, for those who read the replaced server's tokens.
    #[serde(rename = "type")]
    pub kind: String,
    /// The hotkey that signed.
    pub hotkey: Option<String>,
    /// The coldkey that signed, or that owns the hotkey.
    pub coldkey: Option<String>,
    /// The Ethereum account that signed.
    pub evm_address: Option<String>,
    /// What kind of key signed: a coldkey stands here only if it did so itself (auth-gateway.md section 14.1, 5).
    pub signer_type: String,
    /// When the wallet signed.
    pub auth_time: i64,
    /// The grant it belongs to, which may be taken back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grant_id: Option<Uuid>,
}

/// `aud`: one or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// Claims of an ID token (OpenID Connect Core section 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdToken {
    /// Who issued it.
    pub iss: String,
    /// The wallet.
    pub sub: String,
    /// The client.
    pub aud: String,
    /// The end of its life.
    pub exp: i64,
    /// When it was issued.
    pub iat: i64,
    /// When the wallet signed.
    pub auth_time: i64,
    /// The nonce of the authorization request; not after a refresh.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<String>,
    /// What ties it to the access token beside it.
    pub at_hash: String,
    /// `id`, for those who read the replaced server's tokens.
    #[serde(rename = "type")]
    pub kind: String,
    /// The client once more.
    pub client_id: String,
    /// Scopes with a blank between them.
    pub scope: String,
    /// The hotkey that signed.
    pub hotkey: Option<String>,
    /// The coldkey that signed, or that owns the hotkey.
    pub coldkey: Option<String>,
    /// The Ethereum account that signed.
    pub evm_address: Option<String>,
    /// What kind of key signed.
    pub signer_type: String,
}

/// What all tokens of one answer have in common.
#[derive(Clone, Copy, Debug)]
pub struct Issue<'a> {
    /// Who issues.
    pub issuer: &'a str,
    /// Whom access tokens are for unless the client named a resource.
    pub audience: &'a str,
    /// When.
    pub now: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
    /// The access token's name.
    pub id: Uuid,
}

impl Issue<'_> {
    /// The claims of an access token for a grant.
    #[must_use]
    pub fn access_token(&self, grant: &Grant) -> AccessToken {
        let resources: Vec<&str> = grant.resource.split_ascii_whitespace().collect();
        let aud = match resources.as_slice() {
            [] => Audience::One(self.audience.to_owned()),
            [one] => Audience::One((*one).to_owned()),
            several => Audience::Several(several.iter().map(|one| (*one).to_owned()).collect()),
        };
        AccessToken {
            aud,
            client_id: Some(grant.client_id.clone()),
            grant_id: Some(grant.id),
            auth_time: grant.auth_time,
            ..self.direct_token(&grant.signer, &grant.scope)
        }
    }

    /// The claims of an access token of the direct flow: no client, no grant.
    #[must_use]
    pub fn direct_token(&self, signer: &Signer, scope: &str) -> AccessToken {
        AccessToken {
            iss: self.issuer.to_owned(),
            sub: signer.account.clone(),
            aud: Audience::One(self.audience.to_owned()),
            exp: self.expires_at.0,
            iat: self.now.0,
            jti: self.id,
            client_id: None,
            scope: scope.to_owned(),
            kind: "access".to_owned(),
            hotkey: signer.hotkey.clone(),
            coldkey: signer.coldkey.clone(),
            evm_address: evm_address(signer),
            signer_type: signer.kind.as_str().to_owned(),
            auth_time: self.now.0,
            grant_id: None,
        }
    }

    /// The claims of an ID token beside an access token. After a refresh there is no nonce.
    #[must_use]
    pub fn id_token(&self, grant: &Grant, nonce: Option<&str>, access_token: &str, algorithm: Algorithm) -> IdToken {
        IdToken {
            iss: self.issuer.to_owned(),
            sub: grant.signer.account.clone(),
            aud: grant.client_id.clone(),
            exp: self.expires_at.0,
            iat: self.now.0,
            auth_time: grant.auth_time,
            nonce: nonce.map(str::to_owned),
            at_hash: at_hash(access_token, algorithm),
            kind: "id".to_owned(),
            client_id: grant.client_id.clone(),
            scope: grant.scope.clone(),
            hotkey: grant.signer.hotkey.clone(),
            coldkey: grant.signer.coldkey.clone(),
            evm_address: evm_address(&grant.signer),
            signer_type: grant.signer.kind.as_str().to_owned(),
        }
    }
}

/// The Ethereum account that signed, if it is one.
#[must_use]
pub fn evm_address(signer: &Signer) -> Option<String> {
    (signer.kind == SignerKind::Evm).then(|| signer.account.clone())
}

/// The left half of the access token's hash, made with the hash of the signature's algorithm (OpenID Connect Core
/// section 3.1.3.6; Ed25519 uses SHA-512).
#[must_use]
pub fn at_hash(access_token: &str, algorithm: Algorithm) -> String {
    let left = |hash: &[u8]| base64(hash.get(..hash.len() / 2).unwrap_or_default());
    match algorithm {
        Algorithm::Rs256 | Algorithm::Es256 => left(&sha256(access_token.as_bytes())),
        Algorithm::EdDsa => left(&openssl::sha::sha512(access_token.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    fn issue() -> Issue<'static> {
        Issue {
            issuer: "https://auth.example",
            audience: "bittensor-apps",
            now: Timestamp(1_000),
            expires_at: Timestamp(1_900),
            id: Uuid::from_u128(7),
        }
    }

    fn grant() -> Grant {
        Grant {
            id: Uuid::from_u128(9),
            client_id: "app".into(),
            signer: Signer { account: "0xAb".into(), kind: SignerKind::Evm, hotkey: None, coldkey: None },
            scope: "openid".into(),
            resource: String::new(),
            nonce: Some("n".into()),
            auth_time: 990,
            expires_at_micros: 0,
        }
    }

    #[test]
    fn an_access_token_has_the_old_claims_with_explicit_nulls_and_those_of_rfc_9068() {
        assert_eq!(
            to_value(issue().access_token(&grant())).unwrap(),
            json!({
                "iss": "https://auth.example", "sub": "0xAb", "aud": "bittensor-apps", "exp": 1900, "iat": 1000,
                "jti": "00000000-0000-0000-0000-000000000007", "client_id": "app", "scope": "openid", "type": "access",
                "hotkey": null, "coldkey": null, "evm_address": "0xAb", "signer_type": "evm", "auth_time": 990,
                "grant_id": "00000000-0000-0000-0000-000000000009",
            })
        );
    }

    #[test]
    fn a_direct_token_has_no_client_and_no_grant() {
        let signer = Signer {
            account: "5Grw".into(),
            kind: SignerKind::Hotkey,
            hotkey: Some("5Grw".into()),
            coldkey: Some("5FHn".into()),
        };
        let claims = to_value(issue().direct_token(&signer, "")).unwrap();
        assert_eq!(
            (&claims["scope"], &claims["hotkey"], &claims["coldkey"], &claims["evm_address"], &claims["signer_type"]),
            (&json!(""), &json!("5Grw"), &json!("5FHn"), &json!(null), &json!("hotkey"))
        );
        assert!(claims.get("client_id").is_none() && claims.get("grant_id").is_none());
    }

    #[test]
    fn the_audience_is_what_the_client_named() {
        for (resource, expected) in [
            ("", json!("bittensor-apps")),
            ("https://api.example/", json!("https://api.example/")),
            ("https://a.example https://b.example", json!(["https://a.example", "https://b.example"])),
        ] {
            let claims = issue().access_token(&Grant { resource: resource.into(), ..grant() });
            assert_eq!(to_value(claims).unwrap()["aud"], expected);
        }
    }

    #[test]
    fn an_id_token_is_for_the_client_and_tied_to_the_access_token() {
        let claims = to_value(issue().id_token(&grant(), Some("n"), "abc", Algorithm::Rs256)).unwrap();
        assert_eq!(
            claims,
            json!({
                "iss": "https://auth.example", "sub": "0xAb", "aud": "app", "exp": 1900, "iat": 1000, "auth_time": 990,
                "nonce": "n", "at_hash": "ungWv48Bz-pBQUDeXa4iIw", "type": "id", "client_id": "app", "scope": "openid",
                "hotkey": null, "coldkey": null, "evm_address": "0xAb", "signer_type": "evm",
            })
        );
        let refreshed = to_value(issue().id_token(&grant(), None, "abc", Algorithm::EdDsa)).unwrap();
        assert!(refreshed.get("nonce").is_none() && refreshed.get("jti").is_none());
        assert_eq!(refreshed["at_hash"].as_str().unwrap().len(), 43, "half of SHA-512");
    }
}
