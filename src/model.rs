//! The nouns: what every room may know.
//!
//! No I/O, no async, no HTTP library. A value of one of these types has been parsed; text that has not been is called
//! `unverified_…` where it is used.

pub mod address;
pub mod certificate;
pub mod client;
pub mod clock;
pub mod credits;
pub mod decision;
pub mod did;
pub mod endpoint;
pub mod hotkey;
pub mod identity;
pub mod key;
pub mod network;
pub mod neuron;
pub mod nonce;
pub mod path;
pub mod scope;
pub mod secret;
pub mod usage;
