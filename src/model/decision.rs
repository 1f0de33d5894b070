//! The ways to say no.

use std::time::Duration;

use super::credits::Credits;

/// Why a request may not pass. Turning one into HTTP is `proxy::respond`'s work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The request is not one any route should see: the reason says why.
    BadRequest(Reason),
    /// No route has this host, path and method.
    NoRoute,
    /// The route wants a credential and none was presented.
    NoCredential,
    /// A credential was presented and is wrong.
    InvalidCredential(Reason),
    /// The credential is genuine and does not cover this: the reason says what is not covered.
    NotEntitled(Reason),
    /// The access token is genuine and would do if it had been asked for with more (RFC 6750 §3.1): the reason says with what.
    InsufficientScope(Reason),
    /// The holder cannot pay for the most that this request may cost.
    InsufficientCredits {
        /// The most that the request may cost.
        needed: Credits,
    },
    /// Too many of these from this client.
    TooManyRequests {
        /// When to try again.
        retry_after: Duration,
    },
    /// The request's body must be held, and is long and does not say how long.
    LengthRequired,
    /// The request's body is larger than the route takes.
    BodyTooLarge,
    /// We could not find out. Never treated as "no", and never as "yes".
    Unavailable(Dependency),
}

/// Fixed words for the log, the metrics and, where harmless, the client. Operators build alerts on them: never rename one.
pub type Reason = &'static str;

/// What we could not ask, or could not write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// The marketplace, which describes services and plans.
    Marketplace,
    /// The chain's JSON-RPC node, which knows balances.
    Chain,
    /// Who knows neurons and the keys they have published: a Subtensor node, or Pylon.
    Neurons,
    /// Our own database.
    Store,
    /// Which grants were taken back, as the database says.
    Revocations,
    /// The usage spool on disk.
    Spool,
    /// Memory for the bodies of signed requests, which is bounded.
    BodyMemory,
    /// Memory of the signed requests that have been used, which is bounded, and empty after a start.
    ReplayMemory,
}

impl Dependency {
    /// The metric label and the word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Marketplace => "marketplace",
            Self::Chain => "chain",
            Self::Neurons => "neurons",
            Self::Store => "store",
            Self::Revocations => "revocations",
            Self::Spool => "spool",
            Self::BodyMemory => "body_memory",
            Self::ReplayMemory => "replay_memory",
        }
    }
}

impl Denial {
    /// The status of the answer (architecture.md section 8).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::NoRoute => 404,
            Self::NoCredential | Self::InvalidCredential(_) => 401,
            Self::NotEntitled(_) | Self::InsufficientScope(_) => 403,
            Self::InsufficientCredits { .. } => 402,
            Self::TooManyRequests { .. } => 429,
            Self::LengthRequired => 411,
            Self::BodyTooLarge => 413,
            Self::Unavailable(_) => 503,
        }
    }

    /// The metric label and the `reason` field of the access log.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::BadRequest(reason)
            | Self::InvalidCredential(reason)
            | Self::NotEntitled(reason)
            | Self::InsufficientScope(reason) => reason,
            Self::NoRoute => "no_route",
            Self::NoCredential => "no_credential",
            Self::InsufficientCredits { .. } => "insufficient_credits",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::LengthRequired => "length_required",
            Self::BodyTooLarge => "body_too_large",
            Self::Unavailable(dependency) => match dependency {
                Dependency::Marketplace => "marketplace_unavailable",
                Dependency::Chain => "chain_unavailable",
                Dependency::Neurons => "neurons_unavailable",
                Dependency::Store => "store_unavailable",
                Dependency::Revocations => "revocations_unavailable",
                Dependency::Spool => "spool_unavailable",
                Dependency::BodyMemory => "body_memory_unavailable",
                Dependency::ReplayMemory => "replay_memory_unavailable",
            },
        }
    }
}
