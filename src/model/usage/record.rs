//! A usage event as the spool keeps it: one JSON object, which a person can read and so can neighbouring versions.
//!
//! Written on the request path, hence by hand: a serializer takes several times as long.

use std::{borrow::Cow, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, de::Error};
use uuid::Uuid;

use super::{CreditSource, NotAnEvent, UsageEvent};
use crate::model::{
    address::{EvmAddress, hex_into},
    credits::Credits,
    did::Did,
};

/// Appends the event.
pub fn write(event: &UsageEvent, to: &mut Vec<u8>) {
    let mut id = Uuid::encode_buffer();
    plain(to, r#"{"event_id":""#, event.event_id.as_hyphenated().encode_lower(&mut id));
    number(to, r#"","at_micros":"#, event.at_micros);
    text(to, r#","request_id":"#, &event.request_id);
    text(to, r#","route":"#, &event.route);
    if let Some(listener) = &event.listener {
        text(to, r#","listener":"#, listener);
    }
    hex(to, r#","service":"did:nv:"#, &event.service.0);
    if let Some(plan) = &event.plan {
        hex(to, r#","plan":"did:nv:"#, &plan.0);
    }
    if let Some(holder) = &event.holder {
        hex(to, r#","holder":"0x"#, &holder.0);
    }
    text(to, r#","user_id":"#, &event.user_id);
    text(to, r#","owner":"#, &event.owner);
    text(to, r#","endpoint":"#, &event.endpoint);
    text(to, r#","method":"#, &event.method);
    number(to, r#","status":"#, event.status);
    if let Some(status) = event.upstream_status {
        number(to, r#","upstream_status":"#, status);
    }
    if let Some(reported) = event.reported {
        number(to, r#","reported":"#, reported.get());
    }
    number(to, r#","charged":"#, event.charged.get());
    match &event.source {
        CreditSource::Local => plain(to, r#","source":""#, r#"local""#),
        CreditSource::Chain { contract } => hex(to, r#","source":"0x"#, &contract.0),
    }
    number(to, r#","duration_micros":"#, event.duration_micros);
    plain(to, r#","open":"#, if event.open { "true}" } else { "false}" });
}

/// Text that needs no escapes.
fn plain(to: &mut Vec<u8>, before: &str, text: &str) {
    to.extend_from_slice(before.as_bytes());
    to.extend_from_slice(text.as_bytes());
}

fn hex(to: &mut Vec<u8>, before: &str, bytes: &[u8]) {
    to.extend_from_slice(before.as_bytes());
    hex_into(to, bytes);
    to.push(b'"');
}

fn number(to: &mut Vec<u8>, before: &str, number: impl serde::Serialize) {
    to.extend_from_slice(before.as_bytes());
    json(to, &number);
}

fn text(to: &mut Vec<u8>, before: &str, text: &str) {
    to.extend_from_slice(before.as_bytes());
    // Without a branch for each byte, so that many are looked at at once.
    let escapes = text.bytes().fold(false, |found, byte| found | matches!(byte, ..b' ' | b'"' | b'\\'));
    if escapes {
        json(to, text);
    } else {
        to.push(b'"');
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    }
}

fn json(to: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Writing JSON to memory fails only on a map with keys that are no text, and there are no maps here.
    let written = serde_json::to_writer(to, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// Reads an event, sharing texts with the one before.
pub fn read(before: Option<&UsageEvent>, bytes: &[u8]) -> Result<UsageEvent, NotAnEvent> {
    let record: Record<'_> = serde_json::from_slice(bytes)?;
    let shared = |text: Cow<'_, str>, known: fn(&UsageEvent) -> Option<&Arc<str>>| match before.and_then(known) {
        Some(known) if **known == *text => Arc::clone(known),
        _ => text.into(),
    };
    Ok(UsageEvent {
        event_id: record.event_id,
        at_micros: record.at_micros,
        request_id: record.request_id.into(),
        route: shared(record.route, |event| Some(&event.route)),
        listener: record.listener.map(|Text(listener)| shared(listener, |event| event.listener.as_ref())),
        service: record.service,
        plan: record.plan,
        holder: record.holder,
        user_id: shared(record.user_id, |event| Some(&event.user_id)),
        owner: shared(record.owner, |event| Some(&event.owner)),
        endpoint: shared(record.endpoint, |event| Some(&event.endpoint)),
        method: shared(record.method, |event| Some(&event.method)),
        status: record.status,
        upstream_status: record.upstream_status,
        reported: record.reported,
        charged: record.charged,
        source: record.source,
        duration_micros: record.duration_micros,
        open: record.open,
    })
}

/// What [`write`] writes. Fields that came later, or that may be absent, have defaults.
#[derive(Deserialize)]
struct Record<'a> {
    #[serde(deserialize_with = "parsed")]
    event_id: Uuid,
    at_micros: i64,
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    route: Cow<'a, str>,
    #[serde(borrow, default)]
    listener: Option<Text<'a>>,
    #[serde(deserialize_with = "parsed")]
    service: Did,
    #[serde(default, deserialize_with = "maybe_parsed")]
    plan: Option<Did>,
    #[serde(default, deserialize_with = "maybe_parsed")]
    holder: Option<EvmAddress>,
    #[serde(borrow, default)]
    user_id: Cow<'a, str>,
    #[serde(borrow, default)]
    owner: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    status: u16,
    #[serde(default)]
    upstream_status: Option<u16>,
    #[serde(default)]
    reported: Option<Credits>,
    charged: Credits,
    #[serde(deserialize_with = "source")]
    source: CreditSource,
    duration_micros: u64,
    #[serde(default)]
    open: bool,
}

/// Borrowed where nothing is escaped. A `Cow` alone would always be a copy within an `Option`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn parsed<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Text::deserialize(from)?.0.parse().map_err(D::Error::custom)
}

fn maybe_parsed<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::<Text>::deserialize(from)?.map(|Text(text)| text.parse().map_err(D::Error::custom)).transpose()
}

/// A contract's address, or the word `local`.
fn source<'de, D: Deserializer<'de>>(from: D) -> Result<CreditSource, D::Error> {
    match &*Text::deserialize(from)?.0 {
        "local" => Ok(CreditSource::Local),
        contract => contract.parse().map(|contract| CreditSource::Chain { contract }).map_err(D::Error::custom),
    }
}
