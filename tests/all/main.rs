//! Tests through the front door, in one binary.

// `cfg(test)` is always true here; written out, it tells clippy that all of it is test code.
#[cfg(test)]
mod store;
#[cfg(test)]
mod usage;
