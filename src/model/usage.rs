//! The usage event: what is remembered of one metered request, from the spool to the burn.

mod json;
mod record;

use std::{borrow::Cow, sync::Arc};

use minicbor::Decoder;
use uuid::Uuid;

pub use self::record::{Parts, Reader, Record, Sequence, TermsRecord, encode_place};
use super::{
    address::EvmAddress,
    credits::{CreditSource, Credits},
    did::Did,
};

/// One metered request, as it is kept in the spool and written to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEvent {
    /// Made with the hold, version 7. What every later stage recognises the event by.
    pub event_id: Uuid,
    /// When the response ended, in microseconds since the Unix epoch.
    pub at_micros: i64,
    /// The id in the access log and in the answer to the client. None: the event's, as text.
    pub request_id: Option<Arc<str>>,
    /// Whose service was called, and who pays with what.
    pub terms: Arc<Terms>,
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
    /// From the first byte of the request to the last of the response, in microseconds.
    pub duration_micros: u64,
    /// The endpoint was one that anybody may call (nevermined.md section 6).
    pub open: bool,
}

/// What events of one holder at one service have in common. The events of a batch share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
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
    /// Where the credits live that pay.
    pub source: CreditSource,
}

/// The bytes are not a usage event this version understands.
#[derive(Debug, thiserror::Error)]
pub enum NotAnEvent {
    /// They are no CBOR, or miss what every event has.
    #[error("not a usage event: {0}")]
    Record(#[from] minicbor::decode::Error),
    /// They look like the JSON of an earlier version and are something else.
    #[error("not a usage event: {0}")]
    Json(#[from] serde_json::Error),
    /// More follows where the event ends.
    #[error("more than a usage event")]
    More,
}

impl UsageEvent {
    /// Appends the event as one CBOR array. Fields this version does not know are ignored by [`Self::decode`] and
    /// fields it misses have defaults, so neighbouring versions read each other's spool.
    pub fn encode(&self, into: &mut Vec<u8>) {
        self.record().encode_into(into);
    }

    /// The id in the access log and in the answer to the client.
    #[must_use]
    pub fn request_id(&self) -> Cow<'_, str> {
        self.request_id.as_deref().map_or_else(|| self.event_id.to_string().into(), Cow::Borrowed)
    }

    /// What [`Self::request_id`] is of an event with this id, of whose request this is the id.
    #[must_use]
    pub fn request_id_of(event_id: Uuid, text: &str) -> Option<Arc<str>> {
        let mut id = Uuid::encode_buffer();
        (*text != *event_id.as_hyphenated().encode_lower(&mut id)).then(|| text.into())
    }

    /// Its fields, as they are written.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        self.into()
    }

    /// Reads what [`Self::encode`] wrote, or the JSON of an earlier version.
    ///
    /// # Errors
    /// When the bytes are something else, or were written by a version too far away.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAnEvent> {
        Reader::default().read(bytes)
    }

    /// Reads a CBOR sequence (RFC 8742): what [`Sequence::append`] or [`Self::encode`] wrote several times. `ids` are those
    /// of the events, in their order; a record that says its id keeps that.
    ///
    /// # Errors
    /// As [`Self::decode`], of the first that cannot be read or has no id.
    pub fn decode_sequence(bytes: &[u8], ids: impl IntoIterator<Item = Uuid>) -> Result<Vec<Self>, NotAnEvent> {
        let (mut events, mut ids) = (Vec::new(), ids.into_iter());
        let (mut reader, mut decoder) = (Reader::of_sequence(), Decoder::new(bytes));
        while decoder.position() < bytes.len() {
            let event = reader.next(&mut decoder, ids.next())?;
            if events.is_empty() {
                // They are about the same size.
                events.reserve_exact(bytes.len().div_ceil(decoder.position()));
            }
            events.push(event);
        }
        Ok(events)
    }

    /// As a person reads it: one JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
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
            request_id: Some(format!("01J{number:023}").into()),
            terms: Arc::new(Terms {
                route: "weather".into(),
                listener: None,
                service: Did([0x55; 32]),
                plan: Some(Did([0xaa; 32])),
                holder: Some(EvmAddress([0x3c; 20])),
                user_id: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
                owner: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into(),
                source: CreditSource::Chain { contract: EvmAddress([0xc0; 20]) },
            }),
            endpoint: "https://api.example.com/v1/forecast/daily".into(),
            method: "GET".into(),
            status: 200,
            upstream_status: Some(200),
            reported: Some(Credits::new(3)),
            charged: Credits::new(3),
            duration_micros: 12_345,
            open: false,
        }
    }

    /// The same on other terms.
    pub(crate) fn on(mut event: UsageEvent, change: impl FnOnce(&mut Terms)) -> UsageEvent {
        change(Arc::make_mut(&mut event.terms));
        event
    }

    const NO_IDS: [Uuid; 0] = [];

    fn ids(events: &[UsageEvent]) -> Vec<Uuid> {
        events.iter().map(|event| event.event_id).collect()
    }

    fn sequence(events: &[UsageEvent]) -> Vec<u8> {
        let (mut sequence, mut bytes) = (Sequence::default(), Vec::new());
        for event in events {
            sequence.append(event, &mut bytes);
        }
        bytes
    }

    fn encoded(event: &UsageEvent) -> Vec<u8> {
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        bytes
    }

    /// Every byte of it, because other versions read it.
    #[test]
    fn a_record_is_a_cbor_array_of_numbered_fields() {
        let event = UsageEvent { upstream_status: None, ..sample(1) };
        let event = on(event, |terms| terms.listener = Some("public".into()));
        let mut written = vec![0x8c, 0x50];
        written.extend(event.event_id.as_bytes());
        written.extend([0x1b, 0x00, 0x06, 0x60, 0x8b, 0x01, 0x5f, 0x30, 0x01]);
        written.extend([0x19, 0x30, 0x39, 0x18, 200, 0xf6, 3, 3]);
        written.extend(b"\x78\x1a01J00000000000000000000001\xf4\x63GET");
        written.extend(b"\x78\x29https://api.example.com/v1/forecast/daily");
        written.extend([&[0x88, 0x58, 32], &[0x55; 32][..], &[0x58, 32], &[0xaa; 32], &[0x54], &[0x3c; 20]].concat());
        written.extend(b"\x67weather\x66public");
        written.extend(b"\x78\x2a0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
        written.extend(b"\x78\x2a0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
        written.extend([[0x54].as_slice(), &[0xc0; 20]].concat());
        assert_eq!(encoded(&event), written);
        assert_eq!(UsageEvent::decode(&written).unwrap(), event);
    }

    #[test]
    fn a_request_id_that_is_the_event_id_is_not_written_twice() {
        let mut event = sample(1);
        let before = encoded(&event).len();
        event.request_id = None;
        assert!(encoded(&event).len() < before);
        assert_eq!(UsageEvent::decode(&encoded(&event)).unwrap(), event);
        assert_eq!(event.request_id(), event.event_id.to_string());
        assert_eq!(UsageEvent::decode(event.to_json().as_bytes()).unwrap(), event);
    }

    #[test]
    fn an_event_of_a_later_version_is_read_and_one_of_an_earlier_too() {
        // A number, a text, a list without a length, and a map.
        let added = b"\x18\x2a\x63new\x9f\x01\x80\xff\xa1\x01\x02";
        let mut later = encoded(&sample(1));
        let terms = later.iter().rposition(|byte| *byte == 0x88).unwrap();
        assert_eq!(later[0], 0x8c, "an array of 12");
        later.extend(added.repeat(2));
        (later[0], later[terms]) = (0x90, 0x8c);
        assert_eq!(UsageEvent::decode(&later).unwrap(), sample(1));
        assert_eq!(UsageEvent::decode_sequence(&later.repeat(3), NO_IDS).unwrap(), vec![sample(1); 3]);

        let short = on(sample(1), |terms| {
            (terms.user_id, terms.owner, terms.source) = ("".into(), "".into(), CreditSource::Local);
        });
        let mut earlier = encoded(&short);
        let terms = earlier.len() - 2 - 1 - 8 - 21 - 34 - 34 - 1;
        assert_eq!((earlier[terms], earlier.ends_with(&[0x60, 0x60])), (0x87, true));
        earlier.truncate(earlier.len() - 2);
        earlier[terms] = 0x85;
        assert_eq!(UsageEvent::decode(&earlier).unwrap(), short);
        earlier.truncate(terms);
        earlier[0] = 0x8b;
        assert!(UsageEvent::decode(&earlier).unwrap_err().to_string().contains("terms"));
    }

    #[test]
    fn what_an_earlier_version_left_as_json_is_read() {
        let json = concat!(
            r#"{"event_id":"01920000-0000-7000-0000-000000000001","at_micros":1795000000000001,"invented_later":{"a":[1]},"#,
            r#""request_id":"01J00000000000000000000001","route":"weather","listener":"a \"listener\"\n","#,
            r#""service":"did:nv:5555555555555555555555555555555555555555555555555555555555555555","#,
            r#""plan":"did:nv:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#,
            r#""holder":"0x3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c","#,
            r#""user_id":"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC","#,
            r#""owner":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8","#,
            r#""endpoint":"https://api.example.com/v1/forecast/daily","method":"GET","status":200,"#,
            r#""charged":3,"source":"0xc0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0","#,
            r#""duration_micros":12345}"#,
        );
        let listener = Some("a \"listener\"\n".into());
        let event = UsageEvent { upstream_status: None, reported: None, ..sample(1) };
        let event = on(event, |terms| terms.listener = listener);
        assert_eq!(UsageEvent::decode(json.as_bytes()).unwrap(), event);
    }

    #[test]
    fn an_event_is_shown_as_json_and_read_back() {
        for event in [
            sample(1),
            on(sample(2), |terms| (terms.listener, terms.source) = (Some("l\u{1}".into()), CreditSource::Local)),
            on(UsageEvent { reported: None, upstream_status: None, open: true, ..sample(3) }, |terms| {
                (terms.plan, terms.holder) = (None, None);
            }),
        ] {
            assert_eq!(UsageEvent::decode(event.to_json().as_bytes()).unwrap(), event);
        }
        let local = on(sample(1), |terms| terms.source = CreditSource::Local);
        let json = UsageEvent { reported: None, ..local }.to_json();
        for part in
            [r#""event_id":"01920000-"#, r#""service":"did:nv:5555"#, r#""holder":"0x3c3c"#, r#""source":"local""#]
        {
            assert!(json.contains(part), "{json}");
        }
        assert!(!json.contains("reported"), "{json}");
    }

    #[test]
    fn a_sequence_is_read_to_its_end_or_not_at_all() {
        let mut bytes = Vec::new();
        (0..100).for_each(|number| sample(number).encode(&mut bytes));
        let events = UsageEvent::decode_sequence(&bytes, NO_IDS).unwrap();
        assert_eq!(events, (0..100).map(sample).collect::<Vec<_>>());
        assert!(events.windows(2).all(|pair| Arc::ptr_eq(&pair[0].endpoint, &pair[1].endpoint)));
        assert_eq!(UsageEvent::decode_sequence(&[], NO_IDS).unwrap(), []);
        assert!(UsageEvent::decode_sequence(&bytes[..bytes.len() - 1], NO_IDS).is_err());
        assert!(matches!(UsageEvent::decode(&bytes), Err(NotAnEvent::More)));
    }

    #[test]
    fn a_sequence_says_an_endpoint_and_terms_once() {
        let other = |number| {
            let event = UsageEvent { endpoint: "https://h/2".into(), ..sample(number) };
            on(event, |terms| terms.user_id = "another".into())
        };
        let events: Vec<_> =
            (0..100).map(|number| if number % 3 == 0 { other(number) } else { sample(number) }).collect();
        let bytes = sequence(&events);
        assert_eq!(UsageEvent::decode_sequence(&bytes, ids(&events)).unwrap(), events);
        for said in [&b"https://h/2"[..], b"https://api.example.com", b"another", b"0x3C44"] {
            assert_eq!(bytes.windows(said.len()).filter(|window| *window == said).count(), 1, "{said:?}");
        }
        // A record without what it refers to is no record, in the spool nor in a sequence.
        let mut two = Vec::new();
        let mut sequence = Sequence::default();
        sequence.append(&events[1], &mut two);
        let second = two.len();
        sequence.append(&events[2], &mut two);
        assert_eq!(UsageEvent::decode_sequence(&two, ids(&events[1..])).unwrap(), events[1..3]);
        assert!(UsageEvent::decode_sequence(&two[second..], ids(&events)).is_err());
        assert!(UsageEvent::decode_sequence(&two, ids(&events[1..2])).is_err(), "an event without an id");
        assert!(UsageEvent::decode(&two[..second]).is_err());
        assert!(UsageEvent::decode(&two[second..]).is_err());
    }

    #[test]
    fn in_a_file_a_place_may_stand_for_terms() {
        let mut short = Vec::new();
        sample(2).record().encode_own(&mut short);
        let (terms, whole) = (short.len(), encoded(&sample(2)));
        assert_eq!((&whole[..terms], whole[terms]), (&*short, 0x88), "and then an array of 8");
        encode_place(70_000, &mut short);
        assert_eq!(short[terms..], [0x1a, 0x00, 0x01, 0x11, 0x70]);

        let mut reader = Reader::default();
        let said = |place| (place == 70_000).then(|| encoded(&sample(1)));
        assert_eq!(reader.read_in_file(&short, said).unwrap(), sample(2));
        assert_eq!(reader.read_in_file(&short, |_| None).unwrap(), sample(2), "asked once");
        assert_eq!(reader.read_in_file(&whole, |_| None).unwrap(), sample(2));
        reader.begin_file();
        assert!(reader.read_in_file(&short, |_| None).unwrap_err().to_string().contains("said at 70000"));
        for nothing in [short.clone(), vec![0x80], Vec::new()] {
            assert!(reader.read_in_file(&short, |_| Some(nothing)).is_err());
        }
        assert!(UsageEvent::decode(&short).is_err());
    }

    #[test]
    fn what_is_the_same_is_kept_once() {
        let mut reader = Reader::default();
        let mut read = |event: &UsageEvent| {
            let read = reader.read(&encoded(event)).unwrap();
            assert_eq!(read, *event);
            read
        };
        let (first, second) = (read(&sample(1)), read(&sample(2)));
        assert!(Arc::ptr_eq(&first.terms, &second.terms));
        assert!(Arc::ptr_eq(&first.endpoint, &second.endpoint) && Arc::ptr_eq(&first.method, &second.method));
        // Other terms, and an endpoint that begins as the last one.
        let other = UsageEvent { endpoint: "https://api".into(), ..sample(3) };
        let other = read(&on(other, |terms| terms.user_id = "u".into()));
        assert!(Arc::ptr_eq(&other.method, &first.method));
        assert!(Arc::ptr_eq(&read(&sample(4)).terms, &first.terms), "whoever comes between");
    }

    proptest! {
        #[test]
        fn events_round_trip_whatever_the_texts_hold(
            texts in proptest::array::uniform5(any::<String>()), charged: u64, reported: Option<u64>, micros: i64, status: u16,
            local: bool, bytes: [u8; 32],
        ) {
            let [request_id, user_id, owner, endpoint, route] = texts;
            let event = UsageEvent {
                request_id: Some(request_id.into()), endpoint: endpoint.into(), charged: Credits::new(charged),
                reported: reported.map(Credits::new), at_micros: micros, status, ..sample(7)
            };
            let event = on(event, |terms| {
                *terms = Terms {
                    user_id: user_id.into(), owner: owner.into(), listener: Some(route.as_str().into()), route: route.into(),
                    service: Did(bytes), source: if local { CreditSource::Local } else { terms.source }, ..terms.clone()
                };
            });
            prop_assert_eq!(&UsageEvent::decode(event.to_json().as_bytes()).unwrap(), &event);
            prop_assert_eq!(UsageEvent::decode(&encoded(&event)).unwrap(), event);
        }

        #[test]
        fn garbage_and_what_was_damaged_is_an_event_or_an_error(
            garbage: Vec<u8>, place: proptest::sample::Index, bytes: [u8; 2],
        ) {
            is_an_event_or_none(&garbage);
            let mut record = encoded(&sample(3));
            let place = place.index(record.len() - 1);
            record[place..place + 2].copy_from_slice(&bytes);
            is_an_event_or_none(&record);
        }
    }

    #[test]
    fn the_seeds_of_the_fuzzer_are_events_or_none() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/usage_record");
        let read = |name| std::fs::read(corpus.join(name)).unwrap();
        for seed in std::fs::read_dir(&corpus).unwrap() {
            is_an_event_or_none(&std::fs::read(seed.unwrap().path()).unwrap());
        }
        for name in ["record", "open", "later", "extremes", "json"] {
            UsageEvent::decode(&read(name)).unwrap();
        }
        assert_eq!(UsageEvent::decode_sequence(&read("sequence"), NO_IDS).unwrap().len(), 4);
        assert!(UsageEvent::decode(&read("indefinite")).is_err(), "no version says an event so");
    }

    /// As `fuzz_targets/usage_record.rs`.
    fn is_an_event_or_none(bytes: &[u8]) {
        if let Ok(event) = UsageEvent::decode(bytes) {
            assert_eq!(UsageEvent::decode(event.to_json().as_bytes()).unwrap(), event);
            let mut reader = Reader::default();
            for _ in 0..2 {
                assert_eq!(reader.read(&encoded(&event)).unwrap(), event);
            }
        }
        let some_id = std::iter::repeat(sample(0).event_id);
        if let Ok(events) = UsageEvent::decode_sequence(bytes, some_id) {
            let written: Vec<u8> = events.iter().flat_map(encoded).collect();
            assert_eq!(UsageEvent::decode_sequence(&written, NO_IDS).unwrap(), events);
            assert_eq!(UsageEvent::decode_sequence(&sequence(&events), ids(&events)).unwrap(), events);
        }
    }
}
