//! Tests through the front door, in one binary.

mod store;
