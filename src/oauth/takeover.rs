//! What rows of the replaced server's database mean here (auth-gateway.md sections 5 and 7): functions of their arguments.
//!
//! What is doubtful is left out rather than taken for something that it may not be, and said so.

use std::{collections::BTreeMap, time::Duration};

use super::{account::Account, cors, refresh_token, registration, scope::Scope, secret, sign_in::after};
use crate::{
    model::client::{Client, ClientAuthentication, GrantType, SignMethod},
    store::{
        auth_gateway::{ClientRow, EventRow, RefreshTokenRow},
        event::Event,
        grant::{Grant, Signer, SignerKind},
        takeover::TakenOver,
    },
};

/// Why a row is left out: a few words, by which such rows are counted.
pub type LeftOut = &'static str;

/// A client, and what of it is not as it was there.
///
/// # Errors
/// When it cannot be a client here.
pub fn client(row: ClientRow, production: bool) -> Result<(Client, Vec<String>), LeftOut> {
    let mut remarks = Vec::new();
    if row.client_id.is_empty() {
        return Err("no id");
    }
    let authentication = match (row.kind.as_str(), row.secret_hash) {
        ("public", _) => ClientAuthentication::None,
        ("confidential", Some(hash)) => {
            if !secret::is_readable(&hash) {
                remarks.push("its secret is kept in a form that cannot be checked: give it another one".to_owned());
            }
            ClientAuthentication::Secret(hash)
        }
        // Without a hash it would become a public one.
        ("confidential", None) => return Err("confidential, and no secret is known"),
        _ => return Err("neither confidential nor public"),
    };
    // The first counted there; before migration 009 there was but one kind.
    let sign_method = row.sign_methods.first().map_or("sr25519", String::as_str);
    let sign_method = sign_method.parse::<SignMethod>().map_err(|_| "for wallets of an unknown kind")?;
    let mut redirect_uris = Vec::new();
    for uri in row.redirect_uris {
        match registration::redirect_uri_fault(&uri, production) {
            None => redirect_uris.push(uri),
            Some(fault) => remarks.push(format!("the redirect URI {uri:?} is left out: {fault}")),
        }
    }
    let mut grant_types = Vec::new();
    for word in &row.grant_types {
        match word.parse::<GrantType>() {
            Ok(known) if grant_types.contains(&known) => {}
            Ok(new) => grant_types.push(new),
            Err(_) => remarks.push(format!("the grant type {word:?} is left out: there is no such")),
        }
    }
    let mut allowed_origins = Vec::new();
    for text in &row.allowed_origins {
        match cors::normal(text) {
            Some(origin) if allowed_origins.contains(&origin) => {}
            Some(origin) => allowed_origins.push(origin),
            None => remarks.push(format!("the origin {text:?} is left out: it is none")),
        }
    }
    // An entry that means nothing allows nothing. Were it left out, an empty list might remain, which allows everything.
    for entry in row.allowed_scopes.iter().filter(|entry| !super::scope::is_pattern(entry)) {
        remarks.push(format!("the allowed scope {entry:?} stays, and allows nothing: there is no such"));
    }
    if grant_types.contains(&GrantType::AuthorizationCode) && redirect_uris.is_empty() {
        remarks.push("it has no redirect URI, so nobody can sign in to it by a browser".to_owned());
    }
    let client = Client {
        id: row.client_id,
        name: row.name,
        authentication,
        redirect_uris,
        grant_types,
        allowed_scopes: row.allowed_scopes,
        allowed_origins,
        sign_method,
        rate_limit: row.rate_limit,
        active: row.active,
        created_at_micros: row.created_at,
        updated_at_micros: row.updated_at,
    };
    Ok((client, remarks))
}

/// Whether two clients are the same but for the time of their last change.
#[must_use]
pub fn same_client(one: &Client, other: &Client) -> bool {
    let unaged = Client { updated_at_micros: other.updated_at_micros, ..one.clone() };
    Client { created_at_micros: other.created_at_micros, ..unaged } == *other
}

/// A refresh token. `clients` says of each client here whether it is active; `total` is how long a family of refresh tokens
/// lives.
///
/// When its sign-in was is not in the database, so its family is as old as the token itself. It lives at least as long as
/// the token was promised to, whatever `total` says.
///
/// # Errors
/// When nothing could be got for it.
pub fn refresh_token(
    row: RefreshTokenRow,
    clients: &BTreeMap<String, bool>,
    total: Duration,
    now_micros: i64,
) -> Result<TakenOver, LeftOut> {
    if row.revoked {
        return Err("used or revoked");
    }
    if row.expires_at <= now_micros {
        return Err("expired");
    }
    match clients.get(&row.client_id) {
        None => return Err("of a client that is not here"),
        Some(false) => return Err("of a deactivated client"),
        Some(true) => {}
    }
    let account = Account::parse(&row.address).map_err(|_| "of an address that is none")?;
    if row.scopes.iter().any(|text| text.parse::<Scope>().is_err()) {
        return Err("with scopes that there are not");
    }
    // What kind of Bittensor key signed is asked of the chain when the token is used, before anybody is told.
    let kind = match account.method() {
        SignMethod::Evm => SignerKind::Evm,
        SignMethod::Sr25519 => SignerKind::Coldkey,
    };
    let grant = Grant {
        id: row.jti,
        client_id: row.client_id,
        signer: Signer { account: account.text(), kind, hotkey: None, coldkey: None },
        scope: row.scopes.join(" "),
        resource: String::new(),
        nonce: None,
        auth_time: row.created_at.div_euclid(1_000_000),
        expires_at_micros: after(row.created_at, total).max(row.expires_at),
    };
    Ok(TakenOver { grant, digest: refresh_token::digest(row.jti), expires_at_micros: row.expires_at })
}

/// An event.
///
/// # Errors
/// When it cannot be one here.
pub fn event(row: EventRow, clients: &BTreeMap<String, bool>) -> Result<Event, LeftOut> {
    if !clients.contains_key(&row.client_id) {
        return Err("of a client that is not here");
    }
    if !["success", "failure", "rejected", "pending"].contains(&row.outcome.as_str()) {
        return Err("with an unknown outcome");
    }
    let subject = row.subject.map(TryInto::try_into).transpose().map_err(|_: Vec<u8>| "with a malformed subject")?;
    if !serde_json::from_str::<serde_json::Value>(&row.metadata).is_ok_and(|metadata| metadata.is_object()) {
        return Err("with malformed metadata");
    }
    Ok(Event {
        id: row.id,
        at_micros: row.at,
        client_id: row.client_id,
        kind: row.kind,
        outcome: row.outcome,
        reason: row.reason,
        wallet: row.wallet,
        subject,
        scope: row.scopes.join(" "),
        detail: row.metadata,
    })
}
