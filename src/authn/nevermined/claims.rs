//! The claims of a token, read strictly (nevermined.md sections 2.4 and 2.6).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use super::MAX_ENDPOINTS;
use crate::model::{
    address::EvmAddress,
    clock::Timestamp,
    decision::Reason,
    did::Did,
    endpoint::Endpoint,
    identity::{Entitlement, Identity, IdentityFields, Proof, Subject, UpstreamCredential},
    secret::Secret,
};

const MALFORMED: Reason = "malformed_claims";
const UNSENDABLE: Reason = "unsendable_credential";

/// The longest `owner` that is told to an upstream, in bytes.
const MAX_OWNER_BYTES: usize = 256;

/// Reads the claims of a genuine token.
///
/// `iat` and `exp` may be missing, as may `owner` (then the upstream is told none) and `ercType`. An endpoint that cannot
/// be used is left out, with a warning for whoever runs the gateway.
pub(super) fn parse(payload: &[u8]) -> Result<Identity, Reason> {
    let claims = Wiped(serde_json::from_slice(payload).map_err(|_| MALFORMED)?);
    let claims = claims.0.as_object().ok_or(MALFORMED)?;

    let user_id = text(claims, "userId")?;
    let subject = user_id.parse::<EvmAddress>().map_err(|_| MALFORMED)?;
    let service = text(claims, "did")?.parse::<Did>().map_err(|_| MALFORMED)?;
    let plan = Did::from_digits(text(claims, "subscriptionDid")?).map_err(|_| MALFORMED)?;
    let owner = if claims.contains_key("owner") { text(claims, "owner")? } else { "" };
    if owner.len() > MAX_OWNER_BYTES || !is_sendable(owner) || owner.trim_ascii() != owner {
        return Err(MALFORMED);
    }
    let erc_type = claims.get("ercType").map(|claim| claim.as_u64().ok_or(MALFORMED)).transpose()?;

    Ok(Identity {
        subject: Subject::Evm(subject),
        proof: Proof::NeverminedToken,
        not_before: moment(claims, "nbf")?,
        expires_at: moment(claims, "exp")?,
        issued_at: moment(claims, "iat")?,
        entitlement: Some(Entitlement {
            service,
            plan,
            owner: owner.into(),
            user_id: user_id.into(),
            fields: IdentityFields::new(user_id, service, owner),
            erc_type,
            upstream_credential: upstream_credential(claims)?,
            endpoints: endpoints(claims, &service)?,
        }),
        access_token: None,
    })
}

/// Whether a genuine token that cannot be read any more has expired anyway: one of an older schema, say.
pub(super) fn is_expired(payload: &[u8], now: Timestamp) -> bool {
    let Ok(claims) = serde_json::from_slice(payload).map(Wiped) else { return false };
    let expires_at = claims.0.as_object().and_then(|claims| moment(claims, "exp").ok().flatten());
    expires_at.is_some_and(|moment| moment <= now)
}

/// Whether a text can be a header's value: visible ASCII and spaces. More is allowed, and nobody agrees on its meaning.
pub(super) fn is_sendable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, Reason> {
    object.get(name).and_then(Value::as_str).ok_or(MALFORMED)
}

/// A `NumericDate` (RFC 7519 §2), rounded down to the second.
fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Reason> {
    let Some(claim) = claims.get(name) else { return Ok(None) };
    let Value::Number(number) = claim else { return Err(MALFORMED) };
    #[expect(clippy::cast_possible_truncation, reason = "a moment beyond the end of time is the end of time")]
    let floor = || number.as_f64().map(|seconds| seconds.floor() as i64);
    number.as_i64().or_else(floor).map(|seconds| Some(Timestamp(seconds))).ok_or(MALFORMED)
}

fn endpoints(claims: &Map<String, Value>, service: &Did) -> Result<Vec<Endpoint>, Reason> {
    let list = claims.get("endpoints").and_then(Value::as_array).ok_or(MALFORMED)?;
    if list.is_empty() {
        return Err(MALFORMED);
    }
    if list.len() > MAX_ENDPOINTS {
        return Err("too_many_endpoints");
    }
    let texts: Vec<&str> = list.iter().map(Value::as_str).collect::<Option<_>>().ok_or(MALFORMED)?;
    let mut endpoints = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        match Endpoint::parse(text) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => tracing::warn!(
                %service,
                index,
                "an endpoint of a service cannot be used and is left out of its tokens: {error}"
            ),
        }
    }
    Ok(endpoints)
}

/// What the upstream wants to see. Types are case-sensitive; one that is not known sends nothing, as in the original.
fn upstream_credential(claims: &Map<String, Value>) -> Result<UpstreamCredential, Reason> {
    let headers = claims.get("headers").and_then(Value::as_object).ok_or(MALFORMED)?;
    let authentication = headers.get("authentication").and_then(Value::as_object).ok_or(MALFORMED)?;
    let kind = text(authentication, "type")?;
    if !is_sendable(kind) {
        return Err(MALFORMED);
    }
    let (service_token, authorization) = match kind {
        "bearer" | "oauth" => {
            let token = optional_text(authentication, "token")?.unwrap_or_default();
            (Secret::new(token.to_owned()), Some(Secret::new(format!("Bearer {token}"))))
        }
        "basic" => {
            let part = |name| optional_text(authentication, name).map(|part| part.unwrap_or("undefined"));
            let pair = Secret::new(format!("{}:{}", part("username")?, part("password")?));
            let token = STANDARD.encode(pair.expose());
            let authorization = Secret::new(format!("Basic {token}"));
            (Secret::new(token), Some(authorization))
        }
        _ => (Secret::new(String::new()), None),
    };
    if !is_sendable(service_token.expose()) {
        return Err(UNSENDABLE);
    }
    Ok(UpstreamCredential { kind: kind.into(), service_token, authorization })
}

/// A text that may be missing; null counts as missing.
fn optional_text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Reason> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(MALFORMED),
    }
}

/// A JSON document with secrets in it, whose texts are wiped when it is dropped.
struct Wiped(Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        fn wipe(value: &mut Value) {
            match value {
                Value::String(text) => text.zeroize(),
                Value::Array(items) => items.iter_mut().for_each(wipe),
                Value::Object(members) => members.values_mut().for_each(wipe),
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        wipe(&mut self.0);
    }
}
