//! A usage event as JSON: what a person finds in `usage_rejected`, and what earlier versions left in the spool.

use std::{borrow::Cow, fmt::Display, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use uuid::Uuid;

use super::{CreditSource, Terms, UsageEvent};
use crate::model::{address::EvmAddress, credits::Credits, did::Did};

/// One object.
pub fn write(event: &UsageEvent) -> String {
    let object = Object {
        event_id: Text(event.event_id),
        at_micros: event.at_micros,
        request_id: event.request_id(),
        route: Cow::Borrowed(&event.terms.route),
        listener: event.terms.listener.as_deref().map(Cow::Borrowed),
        service: Text(event.terms.service),
        plan: event.terms.plan.map(Text),
        holder: event.terms.holder.map(Text),
        user_id: Cow::Borrowed(&event.terms.user_id),
        owner: Cow::Borrowed(&event.terms.owner),
        endpoint: Cow::Borrowed(&event.endpoint),
        method: Cow::Borrowed(&event.method),
        status: event.status,
        upstream_status: event.upstream_status,
        reported: event.reported,
        charged: event.charged,
        source: event.terms.source,
        duration_micros: event.duration_micros,
        open: event.open,
    };
    // Fails only on a map with keys that are no text, and there are no maps here.
    serde_json::to_string(&object).unwrap_or_default()
}

/// Reads an object.
pub fn read(bytes: &[u8]) -> serde_json::Result<UsageEvent> {
    let object: Object<'_> = serde_json::from_slice(bytes)?;
    Ok(UsageEvent {
        event_id: object.event_id.0,
        at_micros: object.at_micros,
        request_id: UsageEvent::request_id_of(object.event_id.0, &object.request_id),
        terms: Arc::new(Terms {
            route: object.route.into(),
            listener: object.listener.map(Into::into),
            service: object.service.0,
            plan: object.plan.map(|Text(plan)| plan),
            holder: object.holder.map(|Text(holder)| holder),
            user_id: object.user_id.into(),
            owner: object.owner.into(),
            source: object.source,
        }),
        endpoint: object.endpoint.into(),
        method: object.method.into(),
        status: object.status,
        upstream_status: object.upstream_status,
        reported: object.reported,
        charged: object.charged,
        duration_micros: object.duration_micros,
        open: object.open,
    })
}

/// The event's object. Fields that came later, or that may be absent, have defaults.
#[derive(Serialize, Deserialize)]
struct Object<'a> {
    event_id: Text<Uuid>,
    at_micros: i64,
    request_id: Cow<'a, str>,
    route: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener: Option<Cow<'a, str>>,
    service: Text<Did>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Text<Did>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<Text<EvmAddress>>,
    #[serde(default)]
    user_id: Cow<'a, str>,
    #[serde(default)]
    owner: Cow<'a, str>,
    endpoint: Cow<'a, str>,
    method: Cow<'a, str>,
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream_status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reported: Option<Credits>,
    charged: Credits,
    #[serde(with = "source")]
    source: CreditSource,
    duration_micros: u64,
    #[serde(default)]
    open: bool,
}

/// What has a spelling of its own.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A contract's address, or the word `local`.
mod source {
    use super::{CreditSource, Deserialize, Deserializer, Error, Serializer};

    pub fn serialize<S: Serializer>(source: &CreditSource, to: S) -> Result<S::Ok, S::Error> {
        match source {
            CreditSource::Local => to.serialize_str("local"),
            CreditSource::Chain { contract } => to.collect_str(contract),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CreditSource, D::Error> {
        match String::deserialize(from)?.as_str() {
            "local" => Ok(CreditSource::Local),
            contract => contract.parse().map(|contract| CreditSource::Chain { contract }).map_err(D::Error::custom),
        }
    }
}
