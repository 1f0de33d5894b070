//! Usage events and their way: the request path hands an event to the [`spool`], the [`writer`] moves it into the
//! store, [`report`] tells the marketplace's backend where that is wanted.
//!
//! The event id is made with the hold on the holder's credits and is the key at every later stage, so any stage may
//! run twice and none counts twice (architecture.md section 7).

pub mod report;
pub mod spool;
pub mod writer;

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::model::credits::CreditSource;
use crate::model::{address::EvmAddress, credits::Credits, did::Did};

/// One metered request, as it is kept in the spool and written to the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEvent {
    /// Made with the hold, version 7. What every later stage recognises the event by.
    #[serde(with = "text::uuid")]
    pub event_id: Uuid,
    /// When the response ended, in microseconds since the Unix epoch.
    pub at_micros: i64,
    /// The id in the access log and in the answer to the client.
    pub request_id: Box<str>,
    /// The configured name of the route.
    #[serde(deserialize_with = "text::shared", serialize_with = "text::str")]
    pub route: Arc<str>,
    /// The configured name of the listener.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "text::maybe_shared",
        serialize_with = "text::maybe_str"
    )]
    pub listener: Option<Arc<str>>,
    /// The service that was called.
    #[serde(with = "text::did")]
    pub service: Did,
    /// The plan that pays. None on an open endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::maybe_did")]
    pub plan: Option<Did>,
    /// The account that pays. None on an open endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::maybe_address")]
    pub holder: Option<EvmAddress>,
    /// The account as the token wrote it (claim `userId`), which the access tables repeat. Empty on an open endpoint.
    #[serde(default)]
    pub user_id: Box<str>,
    /// The service's owner as the token wrote it (claim `owner`).
    #[serde(default)]
    pub owner: Box<str>,
    /// What was called: `scheme://host[:port]path`, no query.
    pub endpoint: Box<str>,
    /// The request's method.
    pub method: Box<str>,
    /// The status the client saw.
    pub status: u16,
    /// The status the service answered with. None if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
    /// What the service said the answer costs (`NVMCreditsConsumed`). None: it said nothing usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Credits>,
    /// What the holder is charged: the rule is [`crate::model::credits::Price::charge`].
    pub charged: Credits,
    /// Where the credits live that pay.
    #[serde(with = "text::source")]
    pub source: CreditSource,
    /// From the first byte of the request to the last of the response, in microseconds.
    pub duration_micros: u64,
    /// The endpoint was one that anybody may call (nevermined.md section 6).
    #[serde(default)]
    pub open: bool,
}

/// The bytes are not a usage event this version understands.
#[derive(Debug, thiserror::Error)]
#[error("not a usage event: {0}")]
pub struct NotAnEvent(#[from] serde_json::Error);

impl UsageEvent {
    /// Appends the event as one JSON object. Fields this version does not know are ignored by [`Self::decode`] and
    /// fields it misses have defaults, so neighbouring versions read each other's spool.
    pub fn encode(&self, into: &mut Vec<u8>) {
        // Writing JSON to memory fails only on a map with keys that are no text, and there are no maps here.
        let written = serde_json::to_writer(into, self);
        debug_assert!(written.is_ok(), "{written:?}");
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else, or were written by a version too far away.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAnEvent> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Whether something was delivered to somebody who is known: what the access tables and the backend want to hear
    /// of (nevermined.md sections 8.2 and 16.9).
    #[must_use]
    pub fn is_reportable(&self) -> bool {
        (200..300).contains(&self.status) && self.holder.is_some() && !self.open
    }

    /// The same event with every text cut to `limit` bytes: what remains when a hostile path does not fit the spool.
    #[must_use]
    fn cut(&self, limit: usize) -> Self {
        let cut = |text: &str| -> String {
            let mut end = limit.min(text.len());
            while !text.is_char_boundary(end) {
                end = end.saturating_sub(1);
            }
            text.get(..end).unwrap_or_default().to_owned()
        };
        Self {
            request_id: cut(&self.request_id).into(),
            route: cut(&self.route).into(),
            listener: self.listener.as_deref().map(|listener| cut(listener).into()),
            user_id: cut(&self.user_id).into(),
            owner: cut(&self.owner).into(),
            endpoint: cut(&self.endpoint).into(),
            method: cut(&self.method).into(),
            ..self.clone()
        }
    }
}

/// How values are written as JSON texts.
mod text {
    use std::str::FromStr;

    use serde::{Deserializer, Serializer, de::Error};

    use super::{Arc, Cow, Deserialize};

    fn parsed<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        Cow::<str>::deserialize(from)?.parse().map_err(D::Error::custom)
    }

    fn maybe_parsed<'de, T: FromStr<Err: std::fmt::Display>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Option::<Cow<str>>::deserialize(from)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }

    pub fn str<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        Ok(Cow::<str>::deserialize(from)?.into())
    }

    #[expect(clippy::ref_option, reason = "the signature serde asks for")]
    pub fn maybe_str<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
        match text {
            Some(text) => to.serialize_str(text),
            None => to.serialize_none(),
        }
    }

    pub fn maybe_shared<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<Cow<str>>::deserialize(from)?.map(Into::into))
    }

    /// A contract's address, or the word `local`.
    pub mod source {
        use super::super::CreditSource;
        use super::{Cow, Deserialize, Deserializer, Error, Serializer};

        /// Writes it.
        pub fn serialize<S: Serializer>(source: &CreditSource, to: S) -> Result<S::Ok, S::Error> {
            match source {
                CreditSource::Local => to.serialize_str("local"),
                CreditSource::Chain { contract } => super::address::serialize(contract, to),
            }
        }

        /// Reads it.
        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CreditSource, D::Error> {
            match &*Cow::<str>::deserialize(from)? {
                "local" => Ok(CreditSource::Local),
                contract => contract.parse().map(|contract| CreditSource::Chain { contract }).map_err(D::Error::custom),
            }
        }
    }

    pub mod uuid {
        use super::{Deserializer, Serializer, parsed};
        use uuid::Uuid;

        pub fn serialize<S: Serializer>(id: &Uuid, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
            parsed(from)
        }
    }

    pub mod did {
        use super::{Deserializer, Serializer, parsed};
        use crate::model::{address::hex_text, did::Did};

        pub fn serialize<S: Serializer>(did: &Did, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(hex_text(&mut [0; 71], "did:nv:", &did.0))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Did, D::Error> {
            parsed(from)
        }
    }

    pub mod maybe_did {
        use super::{Deserializer, Serializer, maybe_parsed};
        use crate::model::did::Did;

        #[expect(clippy::ref_option, reason = "the signature serde asks for")]
        pub fn serialize<S: Serializer>(did: &Option<Did>, to: S) -> Result<S::Ok, S::Error> {
            match did {
                Some(did) => super::did::serialize(did, to),
                None => to.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Did>, D::Error> {
            maybe_parsed(from)
        }
    }

    pub mod address {
        use super::Serializer;
        use crate::model::address::{EvmAddress, hex_text};

        pub fn serialize<S: Serializer>(address: &EvmAddress, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(hex_text(&mut [0; 42], "0x", &address.0))
        }
    }

    pub mod maybe_address {
        use super::{Deserializer, Serializer, maybe_parsed};
        use crate::model::address::EvmAddress;

        #[expect(clippy::ref_option, reason = "the signature serde asks for")]
        pub fn serialize<S: Serializer>(address: &Option<EvmAddress>, to: S) -> Result<S::Ok, S::Error> {
            match address {
                Some(address) => super::address::serialize(address, to),
                None => to.serialize_none(),
            }
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<EvmAddress>, D::Error> {
            maybe_parsed(from)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An ordinary event, some 400 bytes long; `number` makes it distinct.
    pub(crate) fn sample(number: u64) -> UsageEvent {
        UsageEvent {
            event_id: Uuid::from_u64_pair(0x0192_0000_0000_7000, number),
            at_micros: 1_795_000_000_000_000_i64.saturating_add_unsigned(number),
            request_id: format!("01J{number:023}").into(),
            route: "weather".into(),
            listener: None,
            service: Did([0x55; 32]),
            plan: Some(Did([0xaa; 32])),
            holder: Some(EvmAddress([0x3c; 20])),
            user_id: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            owner: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into(),
            endpoint: "https://api.example.com/v1/forecast/daily".into(),
            method: "GET".into(),
            status: 200,
            upstream_status: Some(200),
            reported: Some(Credits::new(3)),
            charged: Credits::new(3),
            source: CreditSource::Chain { contract: EvmAddress([0xc0; 20]) },
            duration_micros: 12_345,
            open: false,
        }
    }

    #[test]
    fn an_event_of_a_later_version_is_read_and_one_of_an_earlier_too() {
        let mut bytes = Vec::new();
        sample(1).encode(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let later = text.replacen('{', r#"{"invented_later":{"a":[1]},"#, 1);
        assert_eq!(UsageEvent::decode(later.as_bytes()).unwrap(), sample(1));
        let earlier = text.replace(r#","open":false"#, "").replace(r#""reported":3,"#, "");
        assert_eq!(UsageEvent::decode(earlier.as_bytes()).unwrap(), UsageEvent { reported: None, ..sample(1) });
    }

    #[test]
    fn only_what_was_delivered_to_a_known_holder_is_reported() {
        for (event, reportable) in [
            (sample(1), true),
            (UsageEvent { status: 299, ..sample(1) }, true),
            (UsageEvent { status: 302, ..sample(1) }, false),
            (UsageEvent { status: 101, ..sample(1) }, false),
            (UsageEvent { holder: None, open: true, ..sample(1) }, false),
        ] {
            assert_eq!(event.is_reportable(), reportable, "{event:?}");
        }
    }

    proptest! {
        #[test]
        fn events_round_trip_whatever_the_texts_hold(
            texts in proptest::array::uniform5(any::<String>()), charged: u64, reported: Option<u64>, micros: i64, status: u16,
            local: bool, bytes: [u8; 32],
        ) {
            let [request_id, user_id, owner, endpoint, route] = texts;
            let event = UsageEvent {
                request_id: request_id.into(), user_id: user_id.into(), owner: owner.into(), endpoint: endpoint.into(),
                listener: Some(route.as_str().into()), route: route.into(), charged: Credits::new(charged),
                reported: reported.map(Credits::new), at_micros: micros, status, service: Did(bytes),
                source: if local { CreditSource::Local } else { sample(0).source },
                ..sample(7)
            };
            let mut encoded = Vec::new();
            event.encode(&mut encoded);
            prop_assert_eq!(UsageEvent::decode(&encoded).unwrap(), event);
        }

        #[test]
        fn decoding_garbage_is_an_error(bytes: Vec<u8>) {
            let _ = UsageEvent::decode(&bytes);
        }
    }
}
