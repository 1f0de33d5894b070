//! A usage event as the spool keeps it: one CBOR array (RFC 8949), each field in the place of its number.
//!
//! A later version appends fields, which earlier ones skip; what an earlier one did not write has a default. What
//! differs from event to event comes first, so that what neighbours share is in one piece, which compresses well.

use std::sync::Arc;

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    encode::{Error, Write},
};
use uuid::Uuid;

use super::{CreditSource, UsageEvent};
use crate::model::{address::EvmAddress, credits::Credits, did::Did};

/// The fields of a [`UsageEvent`], which says what they mean, borrowed from wherever they are: what the request path
/// writes to the spool. `E` is the endpoint, as one text or as [`Parts`].
#[derive(Clone, Copy, Debug, Encode, Decode)]
#[expect(missing_docs, reason = "as in UsageEvent")]
pub struct Record<'a, E = &'a str> {
    #[cbor(n(0), with = "uuid_bytes")]
    pub event_id: Uuid,
    #[n(1)]
    pub at_micros: i64,
    #[n(2)]
    pub duration_micros: u64,
    #[n(3)]
    pub status: u16,
    #[n(4)]
    pub upstream_status: Option<u16>,
    #[n(5)]
    pub reported: Option<Credits>,
    #[n(6)]
    pub charged: Credits,
    /// None: the event's id, as text.
    #[n(7)]
    pub request_id: Option<&'a str>,
    #[cbor(n(8), default)]
    pub open: bool,
    #[n(9)]
    pub method: &'a str,
    #[n(10)]
    pub endpoint: E,
    #[n(11)]
    pub route: &'a str,
    #[n(12)]
    pub listener: Option<&'a str>,
    #[n(13)]
    pub service: Did,
    #[n(14)]
    pub plan: Option<Did>,
    #[n(15)]
    pub holder: Option<EvmAddress>,
    #[cbor(n(16), default)]
    pub user_id: &'a str,
    #[cbor(n(17), default)]
    pub owner: &'a str,
    /// Where the credits are on chain. None: they are our own.
    #[n(18)]
    pub contract: Option<EvmAddress>,
}

/// A text in parts, written as one.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a>(pub [&'a str; 4]);

impl<C> Encode<C> for Parts<'_> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), Error<W::Error>> {
        let length = self.0.iter().fold(0_u64, |length, part| length.saturating_add(part.len() as u64));
        e.str_len(length)?;
        self.0.iter().try_for_each(|part| e.writer_mut().write_all(part.as_bytes()).map_err(Error::write))
    }
}

impl<'a> From<&'a UsageEvent> for Record<'a> {
    fn from(event: &'a UsageEvent) -> Self {
        let mut id = Uuid::encode_buffer();
        let id = event.event_id.as_hyphenated().encode_lower(&mut id);
        Self {
            event_id: event.event_id,
            at_micros: event.at_micros,
            duration_micros: event.duration_micros,
            status: event.status,
            upstream_status: event.upstream_status,
            reported: event.reported,
            charged: event.charged,
            request_id: (*event.request_id != *id).then_some(&event.request_id),
            open: event.open,
            method: &event.method,
            endpoint: &event.endpoint,
            route: &event.route,
            listener: event.listener.as_deref(),
            service: event.service,
            plan: event.plan,
            holder: event.holder,
            user_id: &event.user_id,
            owner: &event.owner,
            contract: event.source.contract(),
        }
    }
}

impl<E: Encode<()>> Record<'_, E> {
    /// Appends the record.
    pub fn encode_into(&self, to: &mut Vec<u8>) {
        // Memory takes everything, and no field here refuses to be written.
        let written = minicbor::encode(self, to);
        debug_assert!(written.is_ok(), "{written:?}");
    }
}

impl<'a> Record<'a> {
    /// Reads the first record.
    ///
    /// # Errors
    /// When the bytes begin with something else.
    pub fn read(decoder: &mut Decoder<'a>) -> Result<Self, minicbor::decode::Error> {
        decoder.decode()
    }

    /// The same with every text cut to `limit` bytes: what remains when a hostile path does not fit the spool.
    #[must_use]
    pub(crate) fn cut(self, limit: usize) -> Self {
        let cut = |text: &'a str| text.get(..text.floor_char_boundary(limit)).unwrap_or_default();
        Self {
            request_id: self.request_id.map(cut),
            method: cut(self.method),
            endpoint: cut(self.endpoint),
            route: cut(self.route),
            listener: self.listener.map(cut),
            user_id: cut(self.user_id),
            owner: cut(self.owner),
            ..self
        }
    }

    /// The event, sharing texts with the one before.
    pub(super) fn event(self, before: Option<&UsageEvent>) -> UsageEvent {
        let shared = |text: &str, known: fn(&UsageEvent) -> Option<&Arc<str>>| match before.and_then(known) {
            Some(known) if **known == *text => Arc::clone(known),
            _ => text.into(),
        };
        let mut id = Uuid::encode_buffer();
        UsageEvent {
            event_id: self.event_id,
            at_micros: self.at_micros,
            request_id: match self.request_id {
                Some(text) => text.into(),
                None => Arc::from(&*self.event_id.as_hyphenated().encode_lower(&mut id)),
            },
            route: shared(self.route, |event| Some(&event.route)),
            listener: self.listener.map(|listener| shared(listener, |event| event.listener.as_ref())),
            service: self.service,
            plan: self.plan,
            holder: self.holder,
            user_id: shared(self.user_id, |event| Some(&event.user_id)),
            owner: shared(self.owner, |event| Some(&event.owner)),
            endpoint: shared(self.endpoint, |event| Some(&event.endpoint)),
            method: shared(self.method, |event| Some(&event.method)),
            status: self.status,
            upstream_status: self.upstream_status,
            reported: self.reported,
            charged: self.charged,
            source: self.contract.map_or(CreditSource::Local, |contract| CreditSource::Chain { contract }),
            duration_micros: self.duration_micros,
            open: self.open,
        }
    }
}

/// A UUID as its 16 bytes.
mod uuid_bytes {
    use minicbor::{Decoder, Encoder, bytes, encode::Write};
    use uuid::Uuid;

    pub fn encode<C, W: Write>(
        id: &Uuid,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(id.as_bytes())?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, context: &mut C) -> Result<Uuid, minicbor::decode::Error> {
        bytes::decode(d, context).map(Uuid::from_bytes)
    }
}
