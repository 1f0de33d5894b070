//! The usage event: what is remembered of one metered request, from the spool to the burn.

mod record;

use std::sync::Arc;

use uuid::Uuid;

use super::{
    address::EvmAddress,
    credits::{CreditSource, Credits},
    did::Did,
};

/// One metered request, as it is kept in the spool and written to the store. Texts are shared: the events of a batch
/// mostly say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEvent {
    /// Made with the hold, version 7. What every later stage recognises the event by.
    pub event_id: Uuid,
    /// When the response ended, in microseconds since the Unix epoch.
    pub at_micros: i64,
    /// The id in the access log and in the answer to the client.
    pub request_id: Arc<str>,
    /// The configured name of the route.
    pub route: Arc<str>,
    /// The configured name of the listener.
    pub listener: Option<Arc<str>>,
    /// The service that was called.
    pub service: Did,
    /// The plan that pays. None on an open endpoint.
    pub plan: Option<Did>,
    /// The account that pays. None on an open endpoint.
    pub holder: Option<EvmAddress>,
    /// The account as the token wrote it (claim `userId`), which the access tables repeat. Empty on an open endpoint.
    pub user_id: Arc<str>,
    /// The service's owner as the token wrote it (claim `owner`).
    pub owner: Arc<str>,
    /// What was called: `scheme://host[:port]path`, no query.
    pub endpoint: Arc<str>,
    /// The request's method.
    pub method: Arc<str>,
    /// The status the client saw.
    pub status: u16,
    /// The status the service answered with. None if it never did.
    pub upstream_status: Option<u16>,
    /// What the service said the answer costs (`NVMCreditsConsumed`). None: it said nothing usable.
    pub reported: Option<Credits>,
    /// What the holder is charged: the rule is [`super::credits::Price::charge`].
    pub charged: Credits,
    /// Where the credits live that pay.
    pub source: CreditSource,
    /// From the first byte of the request to the last of the response, in microseconds.
    pub duration_micros: u64,
    /// The endpoint was one that anybody may call (nevermined.md section 6).
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
        record::write(self, into);
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else, or were written by a version too far away.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAnEvent> {
        Self::decode_after(None, bytes)
    }

    /// The same, sharing texts with an event that was read before.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_after(before: Option<&Self>, bytes: &[u8]) -> Result<Self, NotAnEvent> {
        record::read(before, bytes)
    }

    /// The same event with every text cut to `limit` bytes: what remains when a hostile path does not fit the spool.
    #[must_use]
    pub(crate) fn cut(&self, limit: usize) -> Self {
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
    fn a_record_is_written_as_earlier_versions_read_it() {
        let mut bytes = Vec::new();
        let listener = Some("a \"listener\"\n".into());
        UsageEvent { listener, upstream_status: None, ..sample(1) }.encode(&mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            concat!(
                r#"{"event_id":"01920000-0000-7000-0000-000000000001","at_micros":1795000000000001,"#,
                r#""request_id":"01J00000000000000000000001","route":"weather","listener":"a \"listener\"\n","#,
                r#""service":"did:nv:5555555555555555555555555555555555555555555555555555555555555555","#,
                r#""plan":"did:nv:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#,
                r#""holder":"0x3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c","#,
                r#""user_id":"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC","#,
                r#""owner":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8","#,
                r#""endpoint":"https://api.example.com/v1/forecast/daily","method":"GET","status":200,"#,
                r#""reported":3,"charged":3,"source":"0xc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0","#,
                r#""duration_micros":12345,"open":false}"#,
            )
        );
    }

    #[test]
    fn texts_that_are_the_same_are_kept_once() {
        let mut bytes = Vec::new();
        sample(2).encode(&mut bytes);
        let before = sample(1);
        let after = UsageEvent::decode_after(Some(&before), &bytes).unwrap();
        assert_eq!(after, sample(2));
        assert!(Arc::ptr_eq(&after.route, &before.route) && Arc::ptr_eq(&after.user_id, &before.user_id));
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
