//! A usage event as the spool keeps it: one CBOR array (RFC 8949), each field in the place of its number.
//!
//! A later version appends fields, which earlier ones skip; what an earlier one did not write has a default. What the
//! events of one holder share is an array within the array, which [`Reader`] reads once where neighbours have the same.
//!
//! In a file of the spool a record need not say its terms: the place of an earlier record may stand there that says them.
//!
//! A [`Sequence`] of records does not say an endpoint or terms twice: in their place stands the number that they have
//! among those before them in the sequence, which are counted from nought. Nor does it say ids, for which null stands.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    bytes::ByteArray,
    decode,
    encode::{Error, Write},
};
use quick_cache::DefaultHashBuilder;
use uuid::Uuid;

use super::{CreditSource, NotAnEvent, Terms, UsageEvent, json};
use crate::model::{address::EvmAddress, credits::Credits, did::Did};

/// The fields of a [`UsageEvent`], which says what they mean, borrowed from wherever they are: what the request path
/// writes to the spool. `E` is the endpoint, as one text or as [`Parts`].
#[derive(Clone, Copy, Debug, Encode)]
#[expect(missing_docs, reason = "as in UsageEvent")]
pub struct Record<'a, E = &'a str, T = TermsRecord<'a>> {
    /// None: it stands elsewhere, as in a [`Sequence`].
    #[n(0)]
    pub event_id: Option<ByteArray<16>>,
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
    #[n(8)]
    pub open: bool,
    #[n(9)]
    pub method: &'a str,
    #[n(10)]
    pub endpoint: E,
    #[n(11)]
    pub terms: T,
}

/// By hand, because the writer reads every event: what is derived takes three times as long for fields that come in any
/// order or not at all.
impl<'b, C, E: Decode<'b, C>, T: Decode<'b, C>> Decode<'b, C> for Record<'b, E, T> {
    fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, decode::Error> {
        let fields = d.array()?.ok_or_else(|| decode::Error::message("an event of unknown length"))?;
        let Some(unknown) = fields.checked_sub(FIELDS) else {
            return Err(decode::Error::message(format!(
                "an event has {FIELDS} fields, the last are its terms; these are {fields}"
            )));
        };
        let record = Self {
            event_id: unless_null(d, |d| ByteArray::decode(d, context))?,
            at_micros: d.i64()?,
            duration_micros: d.u64()?,
            status: d.u16()?,
            upstream_status: unless_null(d, Decoder::u16)?,
            reported: unless_null(d, |d| Credits::decode(d, context))?,
            charged: Credits::decode(d, context)?,
            request_id: unless_null(d, Decoder::str)?,
            open: d.bool()?,
            method: d.str()?,
            endpoint: E::decode(d, context)?,
            terms: T::decode(d, context)?,
        };
        (0..unknown).try_for_each(|_| d.skip())?;
        Ok(record)
    }
}

/// The fields of a [`Record`] that this version knows.
const FIELDS: u64 = 12;

/// The value that stands here. None: null stands here (RFC 8949 §3.3).
fn unless_null<'b, T>(
    d: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<Option<T>, decode::Error> {
    const NULL: u8 = 0xf6;
    if d.input().get(d.position()) == Some(&NULL) {
        d.set_position(d.position().saturating_add(1));
        return Ok(None);
    }
    read(d).map(Some)
}

/// The fields of [`Terms`], which says what they mean, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[expect(missing_docs, reason = "as in Terms")]
pub struct TermsRecord<'a> {
    #[n(0)]
    pub service: Did,
    #[n(1)]
    pub plan: Option<Did>,
    #[n(2)]
    pub holder: Option<EvmAddress>,
    #[n(3)]
    pub route: &'a str,
    #[n(4)]
    pub listener: Option<&'a str>,
    #[cbor(n(5), default)]
    pub user_id: &'a str,
    #[cbor(n(6), default)]
    pub owner: &'a str,
    /// Where the credits are on chain. None: they are our own.
    #[n(7)]
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
        Self {
            event_id: Some(event.event_id.into_bytes().into()),
            at_micros: event.at_micros,
            duration_micros: event.duration_micros,
            status: event.status,
            upstream_status: event.upstream_status,
            reported: event.reported,
            charged: event.charged,
            request_id: event.request_id.as_deref(),
            open: event.open,
            method: &event.method,
            endpoint: &event.endpoint,
            terms: (&*event.terms).into(),
        }
    }
}

impl<'a> From<&'a Terms> for TermsRecord<'a> {
    fn from(terms: &'a Terms) -> Self {
        Self {
            service: terms.service,
            plan: terms.plan,
            holder: terms.holder,
            route: &terms.route,
            listener: terms.listener.as_deref(),
            user_id: &terms.user_id,
            owner: &terms.owner,
            contract: terms.source.contract(),
        }
    }
}

/// A value, or the number of the one before that is the same.
enum Said<T> {
    Now(T),
    Before(u32),
}

impl<T> Said<T> {
    fn map<U>(self, into: impl FnOnce(T) -> U) -> Said<U> {
        match self {
            Self::Now(value) => Said::Now(into(value)),
            Self::Before(number) => Said::Before(number),
        }
    }
}

impl<C, T: Encode<C>> Encode<C> for Said<T> {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, context: &mut C) -> Result<(), Error<W::Error>> {
        match self {
            Self::Now(value) => value.encode(e, context),
            Self::Before(number) => e.u32(*number)?.ok(),
        }
    }
}

/// Writes events as a CBOR sequence (RFC 8742), without their ids: those are random, so whoever compresses the sequence had
/// better keep them elsewhere.
#[derive(Debug, Default)]
pub struct Sequence<'e> {
    endpoints: Numbers<&'e Arc<str>>,
    terms: Numbers<&'e Arc<Terms>>,
}

/// The numbers of the values so far, and the last value's.
#[derive(Debug)]
struct Numbers<T> {
    known: HashMap<T, u32, DefaultHashBuilder>,
    last: Option<(T, u32)>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { known: HashMap::default(), last: None }
    }
}

impl<T: Copy + Eq + Hash> Numbers<T> {
    fn say(&mut self, value: T) -> Said<T> {
        // Neighbours mostly say the same, and mostly share it.
        if let Some((last, number)) = self.last
            && last == value
        {
            return Said::Before(number);
        }
        let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let number = *self.known.entry(value).or_insert(next);
        self.last = Some((value, number));
        if number == next { Said::Now(value) } else { Said::Before(number) }
    }
}

impl<'e> Sequence<'e> {
    /// Appends the next event.
    pub fn append(&mut self, event: &'e UsageEvent, to: &mut Vec<u8>) {
        let endpoint = self.endpoints.say(&event.endpoint).map(|endpoint| &**endpoint);
        let terms = self.terms.say(&event.terms).map(|terms| TermsRecord::from(&**terms));
        let record = Record { event_id: None, ..event.record().with(endpoint, terms) };
        write(&record, to);
    }
}

fn write(record: &impl Encode<()>, to: &mut Vec<u8>) {
    // Memory takes everything, and no field here refuses to be written.
    let written = minicbor::encode(record, to);
    debug_assert!(written.is_ok(), "{written:?}");
}

/// What is written later.
struct Later;

impl<C> Encode<C> for Later {
    fn encode<W: Write>(&self, _: &mut Encoder<W>, _: &mut C) -> Result<(), Error<W::Error>> {
        Ok(())
    }
}

impl<E: Encode<()>> Record<'_, E> {
    /// Appends the record.
    pub fn encode_into(&self, to: &mut Vec<u8>) {
        self.encode_own(to);
        self.terms.encode_into(to);
    }

    /// Appends the record without its terms, which are the last of it: [`TermsRecord::encode_into`] or [`encode_place`] makes
    /// it whole.
    pub fn encode_own(&self, to: &mut Vec<u8>) {
        write(&self.with(&self.endpoint, Later), to);
    }
}

impl TermsRecord<'_> {
    /// Appends them.
    pub fn encode_into(&self, to: &mut Vec<u8>) {
        write(self, to);
    }
}

/// Appends where in its file a record says the terms: what [`Reader::read_in_file`] hands to its `payload_at`.
pub fn encode_place(place: u64, to: &mut Vec<u8>) {
    write(&place, to);
}

impl<'a, E, T> Record<'a, E, T> {
    /// The same with these in the place of its endpoint and terms.
    fn with<F, U>(&self, endpoint: F, terms: U) -> Record<'a, F, U> {
        Record {
            event_id: self.event_id,
            at_micros: self.at_micros,
            duration_micros: self.duration_micros,
            status: self.status,
            upstream_status: self.upstream_status,
            reported: self.reported,
            charged: self.charged,
            request_id: self.request_id,
            open: self.open,
            method: self.method,
            endpoint,
            terms,
        }
    }
}

impl<'a> Record<'a> {
    /// Reads the record that these bytes begin with.
    ///
    /// # Errors
    /// When they begin with something else.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, decode::Error> {
        minicbor::decode(bytes)
    }

    /// The same with every text cut to `limit` bytes: what remains when a hostile path does not fit the spool.
    #[must_use]
    pub(crate) fn cut(self, limit: usize) -> Self {
        let cut = |text: &'a str| text.get(..text.floor_char_boundary(limit)).unwrap_or_default();
        let terms = TermsRecord {
            route: cut(self.terms.route),
            listener: self.terms.listener.map(cut),
            user_id: cut(self.terms.user_id),
            owner: cut(self.terms.owner),
            ..self.terms
        };
        let request_id = self.request_id.map(cut);
        Self { request_id, method: cut(self.method), endpoint: cut(self.endpoint), terms, ..self }
    }
}

/// Reads events one after the other, which mostly say the same: texts and terms are kept once.
#[derive(Debug, Default)]
pub struct Reader {
    method: Option<Arc<str>>,
    kept: Kept,
}

/// What events before said.
#[derive(Debug, Default)]
struct Kept {
    endpoint: KeptText,
    terms: KeptTerms,
    /// In a file: those of records by the places of these.
    places: HashMap<u64, Arc<Terms>, DefaultHashBuilder>,
    /// In a sequence.
    before: Option<Before>,
}

/// What [`Said::Before`] may mean.
#[derive(Debug, Default)]
struct Before {
    endpoints: Vec<Arc<str>>,
    terms: Vec<Arc<Terms>>,
}

/// The last text, and how it was written.
#[derive(Debug, Default)]
struct KeptText {
    written: Vec<u8>,
    text: Option<Arc<str>>,
}

/// Terms by how they were written, and the last ones: neighbours often have the same, and many holders take turns.
#[derive(Debug, Default)]
struct KeptTerms {
    last: Option<(Arc<[u8]>, Arc<Terms>)>,
    all: HashMap<Arc<[u8]>, Arc<Terms>, DefaultHashBuilder>,
}

impl Reader {
    /// Reads a sequence.
    pub(super) fn of_sequence() -> Self {
        Self { kept: Kept { before: Some(Before::default()), ..Kept::default() }, ..Self::default() }
    }

    /// Reads one event: what [`UsageEvent::encode`] wrote, or the JSON of an earlier version.
    ///
    /// # Errors
    /// When the bytes are something else, or were written by a version too far away.
    pub fn read(&mut self, bytes: &[u8]) -> Result<UsageEvent, NotAnEvent> {
        self.read_in_file(bytes, |_| None)
    }

    /// The places that were read are another file's.
    pub fn begin_file(&mut self) {
        self.kept.places.clear();
    }

    /// Reads one event of a file. `payload_at` gives the record at a place of the same file, if there is one: it is asked once
    /// for each.
    ///
    /// # Errors
    /// As [`Self::read`], of this record or of the one that says its terms.
    pub fn read_in_file(
        &mut self,
        bytes: &[u8],
        payload_at: impl FnOnce(u64) -> Option<Vec<u8>>,
    ) -> Result<UsageEvent, NotAnEvent> {
        // No CBOR array begins with this byte.
        if bytes.first() == Some(&b'{') {
            return Ok(json::read(bytes)?);
        }
        let mut decoder = Decoder::new(bytes);
        let record: OwnRecord<'_> = decoder.decode_with(&mut self.kept)?;
        if decoder.position() < bytes.len() {
            return Err(NotAnEvent::More);
        }
        let terms = match &record.terms {
            OwnTerms::Said(terms) => Arc::clone(terms),
            OwnTerms::At(place) => self.terms_at(*place, payload_at)?,
        };
        Ok(self.event(&record, terms, None)?)
    }

    /// Reads the next record of a sequence, which is the event with this id unless it says another.
    pub(super) fn next(&mut self, decoder: &mut Decoder<'_>, id: Option<Uuid>) -> Result<UsageEvent, decode::Error> {
        let record: OwnRecord<'_> = decoder.decode_with(&mut self.kept)?;
        let terms = record.terms.said()?;
        self.event(&record, terms, id)
    }

    fn terms_at(
        &mut self,
        place: u64,
        payload_at: impl FnOnce(u64) -> Option<Vec<u8>>,
    ) -> Result<Arc<Terms>, decode::Error> {
        if let Some(terms) = self.kept.places.get(&place) {
            return Ok(Arc::clone(terms));
        }
        let payload = payload_at(place)
            .ok_or_else(|| decode::Error::message(format!("its terms are said at {place}, where no record is")))?;
        let record: OwnRecord<'_> = minicbor::decode_with(&payload, &mut self.kept)?;
        let terms = record.terms.said()?;
        self.kept.places.insert(place, Arc::clone(&terms));
        Ok(terms)
    }

    fn event(
        &mut self,
        record: &OwnRecord<'_>,
        terms: Arc<Terms>,
        id: Option<Uuid>,
    ) -> Result<UsageEvent, decode::Error> {
        let said = record.event_id.map(|said| Uuid::from_bytes(*said));
        let event_id = said.or(id).ok_or_else(|| decode::Error::message("an event without an id"))?;
        Ok(UsageEvent {
            event_id,
            at_micros: record.at_micros,
            request_id: record.request_id.map(Into::into),
            terms,
            endpoint: Arc::clone(&record.endpoint.0),
            method: shared(&mut self.method, record.method),
            status: record.status,
            upstream_status: record.upstream_status,
            reported: record.reported,
            charged: record.charged,
            duration_micros: record.duration_micros,
            open: record.open,
        })
    }
}

/// The text that is kept, or else keeps this one.
fn shared(kept: &mut Option<Arc<str>>, text: &str) -> Arc<str> {
    match kept {
        Some(kept) if **kept == *text => Arc::clone(kept),
        kept => Arc::clone(kept.insert(text.into())),
    }
}

/// An endpoint that an event can have.
struct OwnEndpoint(Arc<str>);

impl<'b> Decode<'b, Kept> for OwnEndpoint {
    fn decode(decoder: &mut Decoder<'b>, kept: &mut Kept) -> Result<Self, decode::Error> {
        if let Some(before) = &kept.before
            && let Some(said) = said_before(decoder, &before.endpoints)?
        {
            return Ok(Self(said));
        }
        let endpoint = kept.endpoint.read(decoder)?;
        if let Some(before) = &mut kept.before {
            before.endpoints.push(Arc::clone(&endpoint));
        }
        Ok(Self(endpoint))
    }
}

/// Terms that an event can have.
enum OwnTerms {
    Said(Arc<Terms>),
    /// The record at this place of the same file says them.
    At(u64),
}

impl OwnTerms {
    fn said(&self) -> Result<Arc<Terms>, decode::Error> {
        match self {
            Self::Said(terms) => Ok(Arc::clone(terms)),
            Self::At(_) => Err(decode::Error::message("terms are said where they are not")),
        }
    }
}

type OwnRecord<'b> = Record<'b, OwnEndpoint, OwnTerms>;

impl<'b> Decode<'b, Kept> for OwnTerms {
    fn decode(decoder: &mut Decoder<'b>, kept: &mut Kept) -> Result<Self, decode::Error> {
        match &kept.before {
            Some(before) => {
                if let Some(said) = said_before(decoder, &before.terms)? {
                    return Ok(Self::Said(said));
                }
            }
            None if is_number(decoder) => return Ok(Self::At(decoder.u64()?)),
            None => {}
        }
        let terms = kept.terms.read(decoder)?;
        if let Some(before) = &mut kept.before {
            before.terms.push(Arc::clone(&terms));
        }
        Ok(Self::Said(terms))
    }
}

impl KeptText {
    /// The text that stands here.
    fn read(&mut self, decoder: &mut Decoder<'_>) -> Result<Arc<str>, decode::Error> {
        if let Some(text) = &self.text
            && skip_same(decoder, &self.written)
        {
            return Ok(Arc::clone(text));
        }
        let start = decoder.position();
        let text: Arc<str> = decoder.str()?.into();
        self.written.clear();
        self.written.extend_from_slice(decoder.input().get(start..decoder.position()).unwrap_or_default());
        self.text = Some(Arc::clone(&text));
        Ok(text)
    }
}

/// Goes past an item if it is written so.
fn skip_same(decoder: &mut Decoder<'_>, written: &[u8]) -> bool {
    let start = decoder.position();
    // No CBOR item is the beginning of another, so this is the same.
    let same = decoder.input().get(start..).is_some_and(|rest| rest.starts_with(written));
    if same {
        decoder.set_position(start.saturating_add(written.len()));
    }
    same
}

impl KeptTerms {
    /// The terms that stand here.
    fn read(&mut self, decoder: &mut Decoder<'_>) -> Result<Arc<Terms>, decode::Error> {
        if let Some((written, terms)) = &self.last
            && skip_same(decoder, written)
        {
            return Ok(Arc::clone(terms));
        }
        let start = decoder.position();
        let rest = decoder.input().get(start..).unwrap_or_default();
        decoder.skip()?;
        let written = rest.get(..decoder.position().saturating_sub(start)).unwrap_or_default();
        let (written, terms) = if let Some((written, terms)) = self.all.get_key_value(written) {
            (Arc::clone(written), Arc::clone(terms))
        } else {
            let terms = Arc::new(minicbor::decode::<TermsRecord<'_>>(written)?.into());
            let written: Arc<[u8]> = written.into();
            self.all.insert(Arc::clone(&written), Arc::clone(&terms));
            (written, terms)
        };
        self.last = Some((written, Arc::clone(&terms)));
        Ok(terms)
    }
}

impl From<TermsRecord<'_>> for Terms {
    fn from(record: TermsRecord<'_>) -> Self {
        Self {
            route: record.route.into(),
            listener: record.listener.map(Into::into),
            service: record.service,
            plan: record.plan,
            holder: record.holder,
            user_id: record.user_id.into(),
            owner: record.owner.into(),
            source: record.contract.map_or(CreditSource::Local, |contract| CreditSource::Chain { contract }),
        }
    }
}

/// The value whose number stands here. None: a value stands here.
fn said_before<T: Clone>(decoder: &mut Decoder<'_>, before: &[T]) -> Result<Option<T>, decode::Error> {
    if !is_number(decoder) {
        return Ok(None);
    }
    let number = usize::try_from(decoder.u32()?).unwrap_or(usize::MAX);
    let said = before.get(number).cloned();
    said.map(Some).ok_or_else(|| decode::Error::message("the number of nothing before"))
}

/// Whether a number (major type 0) stands here, and neither a text nor an array.
fn is_number(decoder: &Decoder<'_>) -> bool {
    decoder.input().get(decoder.position()).is_some_and(|first| *first < 0x20)
}
