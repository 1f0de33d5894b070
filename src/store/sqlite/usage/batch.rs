//! Events as a row of `usage_batch` keeps them: their ids, and their records, compressed.

use std::{
    io::{Read, Write},
    sync::Arc,
};

use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use uuid::Uuid;

use crate::{
    model::{
        credits::{CreditSource, Credits},
        usage::{Sequence, Terms, UsageEvent},
    },
    store::{Result, StoreError, UsageRow, without_nul},
};

/// What is written to a row.
pub struct Batch {
    /// [`began`] of all its events.
    pub began: i64,
    /// The greatest id.
    pub last_event: Vec<u8>,
    /// The earliest and the latest end of a request, in microseconds since the Unix epoch.
    pub first_at: i64,
    pub last_at: i64,
    /// [`owed`] of all its events.
    pub owed: bool,
    pub events: i64,
    pub event_ids: Vec<u8>,
    pub records: Vec<u8>,
}

impl Batch {
    /// Packs events that are in the order of their ids and belong together. None: there is none.
    pub fn pack(events: &[&UsageEvent]) -> Result<Option<Self>> {
        let Some(last) = events.last() else { return Ok(None) };
        let mut batch = Self {
            began: began(last.event_id),
            last_event: last.event_id.as_bytes().to_vec(),
            first_at: last.at_micros,
            last_at: last.at_micros,
            owed: owed(last),
            events: i64::try_from(events.len()).unwrap_or(i64::MAX),
            event_ids: Vec::with_capacity(events.len().saturating_mul(16)),
            records: Vec::new(),
        };
        let info = FrameInfo::new().block_size(BlockSize::Max64KB);
        let mut compressed = FrameEncoder::with_frame_info(info, Vec::new());
        let (mut sequence, mut record) = (Sequence::default(), Vec::new());
        for event in events {
            batch.first_at = batch.first_at.min(event.at_micros);
            batch.last_at = batch.last_at.max(event.at_micros);
            batch.event_ids.extend_from_slice(event.event_id.as_bytes());
            record.clear();
            sequence.append(event, &mut record);
            compressed.write_all(&record).map_err(sqlx::Error::Io)?;
        }
        batch.records = compressed.finish().map_err(|error| StoreError::InvalidEvent(error.to_string()))?;
        Ok(Some(batch))
    }
}

/// What [`Batch::pack`] packed, out of the columns `event_ids` and `records`.
pub fn unpack(event_ids: &[u8], records: &[u8]) -> Result<Vec<UsageEvent>> {
    let unreadable =
        |error: &dyn std::fmt::Display| StoreError::Unreadable { table: "usage_batch", error: error.to_string() };
    let mut sequence = Vec::new();
    FrameDecoder::new(records).read_to_end(&mut sequence).map_err(|error| unreadable(&error))?;
    let ids = ids(event_ids);
    let events = UsageEvent::decode_sequence(&sequence, ids.clone()).map_err(|error| unreadable(&error))?;
    if events.len() != ids.len() {
        // Whose id is whose goes by their order, so now it is anybody's guess.
        return Err(unreadable(&format_args!("{} ids and {} records", ids.len(), events.len())));
    }
    Ok(events.into_iter().map(clean).collect())
}

/// Ids out of the column `event_ids`.
pub fn ids(column: &[u8]) -> impl DoubleEndedIterator<Item = Uuid> + ExactSizeIterator + Clone {
    column.as_chunks().0.iter().map(|id| Uuid::from_bytes(*id))
}

/// The ten seconds in which a request began, counted from the Unix epoch: ids are of version 7, and begin with the
/// milliseconds.
pub fn began(event: Uuid) -> i64 {
    let milliseconds = event.as_u64_pair().0 >> 16;
    i64::try_from(milliseconds / 10_000).unwrap_or(i64::MAX)
}

/// Whether the charge still has to be burned. Local ones are burned as they are recorded.
pub fn owed(event: &UsageEvent) -> bool {
    event.charged > Credits::ZERO && event.terms.source != CreditSource::Local
}

/// What is known of an event that was recorded at this time.
pub fn row(event: UsageEvent, recorded_at_micros: i64) -> UsageRow {
    let burned = event.charged > Credits::ZERO && event.terms.source == CreditSource::Local;
    UsageRow {
        event,
        recorded_at_micros,
        burned_at_micros: burned.then_some(recorded_at_micros),
        burn: burned.then(|| "local".to_owned()),
    }
}

/// The event as Postgres would give it back, whose texts have no NUL.
fn clean(event: UsageEvent) -> UsageEvent {
    let UsageEvent { request_id, endpoint, method, terms, .. } = &event;
    let Terms { route, listener, user_id, owner, .. } = &**terms;
    let texts = [route, user_id, owner, endpoint, method].into_iter().chain(request_id).chain(listener);
    if !texts.into_iter().any(|text| text.contains('\0')) {
        return event;
    }
    let clean = |text: &str| without_nul(text).into();
    UsageEvent {
        request_id: request_id.as_deref().map(clean),
        terms: Arc::new(Terms {
            route: clean(route),
            listener: listener.as_deref().map(clean),
            user_id: clean(user_id),
            owner: clean(owner),
            ..**terms
        }),
        endpoint: clean(endpoint),
        method: clean(method),
        ..event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::usage::tests::sample;

    #[test]
    fn each_record_has_its_id_or_none_is_believed() {
        let events = [sample(1), sample(2)];
        let batch = Batch::pack(&events.iter().collect::<Vec<_>>()).unwrap().unwrap();
        assert_eq!(unpack(&batch.event_ids, &batch.records).unwrap(), events);
        let one_too_many = [batch.event_ids.as_slice(), &[7; 16]].concat();
        for ids in [&one_too_many, &batch.event_ids[..16], &[]] {
            let error = unpack(ids, &batch.records).unwrap_err();
            assert!(matches!(error, StoreError::Unreadable { table: "usage_batch", .. }), "{error:?}");
        }
    }
}
