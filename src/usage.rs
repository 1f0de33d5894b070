//! The way of a usage event: the request path hands an event to the [`spool`], the [`writer`] moves it into the
//! store, [`report`] tells the marketplace's backend where that is wanted.
//!
//! The event id is made with the hold on the holder's credits and is the key at every later stage, so any stage may
//! run twice and none counts twice (architecture.md section 7).

pub mod report;
pub mod spool;
pub mod writer;
