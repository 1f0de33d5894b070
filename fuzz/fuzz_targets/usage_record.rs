//! Whatever lies in the spool is an event or is not one, and an event is the same however often it is written and read, with
//! its terms or with the place of a record that says them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::model::usage::{Reader, Sequence, UsageEvent, encode_place};

fuzz_target!(|input: &[u8]| {
    if let Ok(event) = UsageEvent::decode(input) {
        assert_eq!(UsageEvent::decode(event.to_json().as_bytes()).expect("it was written"), event);
        let mut written = Vec::new();
        event.encode(&mut written);
        let mut reader = Reader::default();
        for _ in 0..2 {
            assert_eq!(reader.read(&written).expect("it was written"), event);
        }
        let mut short = Vec::new();
        event.record().encode_own(&mut short);
        encode_place(written.len() as u64, &mut short);
        let place = |place| (place == written.len() as u64).then(|| written.clone());
        assert_eq!(reader.read_in_file(&short, place).expect("it was written"), event);
    }
    // As a file in which the input stands at every place.
    if let Ok(event) = Reader::default().read_in_file(input, |_| Some(input.to_vec())) {
        assert_eq!(UsageEvent::decode(input).expect("it says its terms"), event);
    }
    if let Ok(events) = UsageEvent::decode_sequence(input, std::iter::repeat_with(Default::default)) {
        let ids = || events.iter().map(|event| event.event_id);
        let mut written = Vec::new();
        events.iter().for_each(|event| event.encode(&mut written));
        assert_eq!(UsageEvent::decode_sequence(&written, []).expect("it was written"), events);
        let (mut sequence, mut written) = (Sequence::default(), Vec::new());
        events.iter().for_each(|event| sequence.append(event, &mut written));
        assert_eq!(UsageEvent::decode_sequence(&written, ids()).expect("it was written"), events);
    }
});
