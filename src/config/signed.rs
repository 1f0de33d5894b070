//! `[signed_requests]`: requests that a neuron has signed with its hotkey (nexus.md section 6).

use std::time::Duration;

use super::{
    reader::Section,
    value::{Parse, Raw, Size, Timeout, word},
};
use crate::model::hotkey::Hotkey;

/// What is asked of signed requests, on every route that accepts them.
#[derive(Clone, Debug)]
pub struct SignedRequests {
    /// `receiver`: our own hotkey, or a list of them: whom a request must be signed for.
    pub receivers: Vec<Hotkey>,
    /// `require_receiver`: refuse requests that are signed for nobody in particular. Default true.
    pub require_receiver: bool,
    /// `max_age`: how old a btauth request may be. Default 10 s.
    pub max_age: Duration,
    /// `epistula_max_age`: how old an Epistula request may be, in both dialects. Default 8 s.
    pub epistula_max_age: Duration,
    /// `max_skew`: how far ahead of ours a sender's clock may be. Default 2 s.
    pub max_skew: Duration,
    /// `max_body_bytes`: the largest body that is held until its signature is verified. Default 1 MiB.
    pub max_body_bytes: u64,
    /// `max_held_bytes`: of all such bodies together. Default 256 MiB.
    pub max_held_bytes: u64,
    /// `replay`: where used requests are remembered. None: the database if gateways can share it, else memory.
    pub replay: Option<Replay>,
}

/// Where used requests are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// `memory`: of this process. Two gateways would admit a request once each.
    Memory,
    /// `store`: the database.
    Store,
}

impl SignedRequests {
    /// None: there is no such section.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let up_to_longest = |key, duration: Duration| {
            if duration > LONGEST {
                section.mistake(key, format!("must be at most {} s", LONGEST.as_secs()));
            }
            duration
        };
        let age = |key, default| up_to_longest(key, section.or(key, Timeout(default)).0);
        let settings = Self {
            receivers: section.values("receiver", &[]),
            require_receiver: section.or("require_receiver", true),
            max_age: age("max_age", Duration::from_secs(10)),
            epistula_max_age: age("epistula_max_age", Duration::from_secs(8)),
            max_skew: up_to_longest("max_skew", section.or("max_skew", Duration::from_secs(2))),
            max_body_bytes: section.or("max_body_bytes", Size(1 << 20)).0,
            max_held_bytes: section.or("max_held_bytes", Size(256 << 20)).0,
            replay: section.optional("replay", &[]).map(|found| found.value),
        };
        if settings.max_body_bytes > settings.max_held_bytes {
            section.mistake("max_held_bytes", "must have room for one body (max_body_bytes)");
        }
        if settings.max_held_bytes > MOST_HELD {
            section.mistake("max_held_bytes", "must be at most 2GiB");
        }
        section.present().then_some(settings)
    }
}

/// Every used request is remembered for so long, and more.
const LONGEST: Duration = Duration::from_mins(5);
const MOST_HELD: u64 = 2 << 30;

impl Parse for Replay {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("memory", Self::Memory), ("store", Self::Store)])
    }
}
