//! Tests through the front door, in one binary.

// `cfg(test)` is always true here; written out, it tells clippy that all of it is test code.
#[cfg(test)]
mod authorization;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod drop_in;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
#[cfg(test)]
mod usage;
