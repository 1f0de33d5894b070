//! What is remembered about one request between Pingora's phases.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::{Uuid, fmt::Hyphenated};

use super::{Serving, held_body::HeldBody, routes::ServedRoute, signed::Proven};
use crate::{
    authz::{Meter, Permit},
    config::CredentialKind,
    model::{clock::Timestamp, credits::Credits, decision::Denial, identity::Identity},
    usage::spool::Reservation,
};

/// One request.
pub struct Context {
    /// The routes and upstreams it began with; a reload does not change them for it.
    pub serving: Arc<Serving>,
    /// Its id, which is its usage event's id too: version 7, so that ids sort by time.
    pub id: Uuid,
    id_text: [u8; Hyphenated::LENGTH],
    /// When it arrived.
    pub started: Instant,
    /// When it arrived, in microseconds since the epoch.
    pub at_micros: i64,
    /// The listener it came by.
    pub listener: Option<Arc<str>>,
    /// Whether it came by TLS.
    pub tls: bool,
    /// Who sent it: the connection's other end.
    pub client: Option<IpAddr>,
    /// Its route.
    pub route: Option<Arc<ServedRoute>>,
    /// Path and query in normal form: what was decided on is what is sent.
    pub target: Option<NormalTarget>,
    /// The kind of credential that it brought.
    pub presented: Option<CredentialKind>,
    /// Who sent it, once that is proven: also where it is refused all the same.
    pub identity: Option<Arc<Identity>>,
    /// What it is called, if it is a neuron.
    pub hotkey: Option<Arc<str>>,
    /// That it is its sender's, if it is signed.
    pub proven: Option<Proven>,
    /// Its body, if that had to be read before anything could be decided.
    pub held: Option<HeldBody>,
    /// Leave to forward it.
    pub permit: Option<Permit>,
    /// What it will cost. Gone once it is settled.
    pub meter: Option<Metered>,
    /// How long the decision took.
    pub decision: Duration,
    /// Why it was refused.
    pub denial: Option<Denial>,
    /// What went wrong on the way to the upstream, or our side of it.
    pub failure: Option<&'static str>,
    /// Which of the upstream's addresses is being tried.
    pub attempt: usize,
    /// What the upstream answered.
    pub answer: Answer,
    /// Bytes of the request's body so far.
    pub received: u64,
    /// What was charged, once that is known.
    pub charged: Option<Credits>,
}

/// A request's target in its normal form, in one text.
pub struct NormalTarget {
    text: Box<str>,
    path_length: usize,
}

impl NormalTarget {
    /// Keeps the parts.
    #[must_use]
    pub fn new(path: &str, query: Option<&str>) -> Self {
        let mut text = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
        text.push_str(path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Self { text: text.into(), path_length: path.len() }
    }

    /// Path and query, as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path alone: what may be logged.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(..self.path_length).unwrap_or_default()
    }
}

/// A meter, and the room in the spool for what it will say. No room: the operator prefers to serve unmetered.
pub struct Metered {
    /// The meter.
    pub meter: Meter,
    /// The room.
    pub room: Option<Reservation>,
}

/// The upstream's answer, as it passes.
#[derive(Default)]
pub struct Answer {
    /// Its status.
    pub status: Option<u16>,
    /// Body bytes that are still to come, if the header said how many.
    pub remaining: Option<u64>,
    /// Whether credits are still to come in the trailer.
    pub trailer_announced: bool,
    /// What the service says it cost.
    pub reported: Option<Credits>,
}

impl Context {
    /// A request that has just arrived.
    #[must_use]
    pub fn new(serving: Arc<Serving>, id: Uuid, at_micros: i64) -> Self {
        let mut id_text = [0; Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut id_text);
        Self {
            serving,
            id,
            id_text,
            started: Instant::now(),
            at_micros,
            listener: None,
            tls: false,
            client: None,
            route: None,
            target: None,
            presented: None,
            identity: None,
            hotkey: None,
            proven: None,
            held: None,
            permit: None,
            meter: None,
            decision: Duration::ZERO,
            denial: None,
            failure: None,
            attempt: 0,
            answer: Answer::default(),
            received: 0,
            charged: None,
        }
    }

    /// When it arrived, to the second.
    #[must_use]
    pub fn arrived(&self) -> Timestamp {
        Timestamp(self.at_micros.div_euclid(1_000_000))
    }

    /// The id as text, which every request needs two or three times.
    #[must_use]
    pub fn id_text(&self) -> &str {
        // It is hexadecimal.
        str::from_utf8(&self.id_text).unwrap_or_default()
    }
}
