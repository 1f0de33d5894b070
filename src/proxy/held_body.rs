//! Bodies that are held until it is known whose they are: of a signed request nothing may reach the upstream before its
//! signature has been verified, and the signature is over the body.
//!
//! The whole body is read before the request goes on, and takes the place of what Pingora would send. Pingora must have
//! something to send, though, or it never asks: a body that was read before it looked is sent again out of its buffer for
//! retries, which has room for `REPLAYED` bytes and gives up on more. So of a long body only the end goes into that
//! buffer, where Content-Length says when the end is near. A long body that does not say how long it is is refused.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::header;
use pingora::{Error, ErrorType, http::RequestHeader};
use pingora_proxy::Session;
use prometheus::IntGauge;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{answer::content_length, respond};
use crate::model::decision::{Denial, Dependency};

/// Memory for held bodies, of all connections together.
pub struct Budget {
    room: Arc<Semaphore>,
    held: IntGauge,
}

/// A body that has arrived as a whole.
pub struct HeldBody {
    body: Option<Bytes>,
    /// How long it is, in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// Why a body could not be held.
pub enum Stop {
    /// The request is refused.
    Denied(Denial),
    /// The client is gone, silent, or sends what is not HTTP.
    Broken(Box<Error>),
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// What Pingora's buffer for retries has room for, in bytes (pingora-core 0.9.1, `BODY_BUF_LIMIT` of HTTP/1 and HTTP/2).
const REPLAYED: u64 = 64 << 10;

impl Budget {
    /// Room for so many bytes, and the gauge that shows how many are taken.
    #[must_use]
    pub fn new(bytes: u64, held: IntGauge) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(bytes)), held }
    }
}

/// The room that a body takes, and gives back when its last copy is gone.
struct Room {
    taken: Option<OwnedSemaphorePermit>,
    held: IntGauge,
}

impl Room {
    /// Only bytes that are there take room, so that nobody takes it by announcing them.
    fn grow(&mut self, budget: &Budget, bytes: usize) -> Result<(), Denial> {
        let full = Denial::Unavailable(Dependency::BodyMemory);
        let Ok(permits) = u32::try_from(bytes) else { return Err(full) };
        let more = Arc::clone(&budget.room).try_acquire_many_owned(permits).map_err(|_| full)?;
        self.held.add(i64::from(permits));
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.held.sub(i64::try_from(taken).unwrap_or(i64::MAX));
    }
}

/// A body and its room.
struct Body {
    bytes: Vec<u8>,
    room: Room,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a request's body, up to `most` bytes and for no longer than `within`: later its signature would be stale.
///
/// # Errors
/// [`Stop`]. Nothing may be forwarded then.
pub async fn read(session: &mut Session, most: u64, within: Duration, budget: &Budget) -> Result<HeldBody, Stop> {
    let length = announced(session.req_header());
    if length.is_some_and(|length| length > most) {
        return Err(Denial::BodyTooLarge.into());
    }
    respond::let_send(session).await.map_err(|error| Stop::Broken(error.into_down()))?;
    if let Ok(read) = tokio::time::timeout(within, pieces(session, length, most, budget)).await {
        return read;
    }
    // Where in the body the connection is, nobody knows any more.
    session.set_keepalive(None);
    Err(Denial::InvalidCredential("stale").into())
}

async fn pieces(session: &mut Session, length: Option<u64>, most: u64, budget: &Budget) -> Result<HeldBody, Stop> {
    let mut body = Body { bytes: Vec::new(), room: Room { taken: None, held: budget.held.clone() } };
    let mut hash = Sha256::new();
    let mut received = 0_u64;
    loop {
        if length.is_none_or(|length| length.saturating_sub(received) <= REPLAYED) {
            session.enable_retry_buffering();
        }
        let piece = session.read_request_body().await.map_err(|error| Stop::Broken(error.into_down()))?;
        let Some(piece) = piece else { break };
        received = received.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if received > most {
            return Err(Denial::BodyTooLarge.into());
        }
        if length.is_none() && received > REPLAYED {
            return Err(Denial::LengthRequired.into());
        }
        body.room.grow(budget, piece.len())?;
        hash.update(&piece);
        body.bytes.extend_from_slice(&piece);
    }
    if received > 0 && session.get_retry_buffer().is_none() {
        return Err(Stop::Broken(Error::explain(ErrorType::InternalError, "a held body cannot be sent on")));
    }
    body.bytes.shrink_to_fit();
    Ok(HeldBody { body: Some(Bytes::from_owner(body)), length: received, sha256: hash.finalize().into() })
}

impl HeldBody {
    /// Puts the body where Pingora has what it would send. It asks again for another address of the upstream.
    ///
    /// # Errors
    /// When the body has been let go: a part of it must not pass for the whole.
    pub fn replace(&self, sent: &mut Option<Bytes>) -> pingora::Result<()> {
        if sent.is_some() {
            let body = self.body.clone();
            *sent = Some(body.ok_or_else(|| Error::explain(ErrorType::InternalError, "a held body is gone"))?);
        }
        Ok(())
    }

    /// Lets the body go, once an answer has begun: nothing is sent a second time then.
    pub fn release(&mut self) {
        self.body = None;
    }
}

/// The length that a request's header promises; none where it does not count.
fn announced(request: &RequestHeader) -> Option<u64> {
    let chunked = request.headers.contains_key(header::TRANSFER_ENCODING);
    if chunked { None } else { content_length(&request.headers) }
}
