//! Tests through the front door, in one binary.

// `cfg(test)` is always true here; written out, it tells clippy that all of it is test code.
#[cfg(test)]
mod access_tokens;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod auth_request;
#[cfg(test)]
mod authorization;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod client_certificates;
#[cfg(test)]
mod credits;
#[cfg(test)]
mod drill_kill;
#[cfg(test)]
mod drop_in;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod import;
#[cfg(test)]
mod introspect;
#[cfg(test)]
mod neurons;
#[cfg(test)]
mod neurons_drill;
#[cfg(test)]
mod oauth_base;
#[cfg(test)]
mod oauth_bittensor;
#[cfg(test)]
mod oauth_clients;
#[cfg(test)]
mod oauth_compatibility;
#[cfg(test)]
mod oauth_device;
#[cfg(test)]
mod oauth_libraries;
#[cfg(test)]
mod oauth_pages;
#[cfg(test)]
mod oauth_reload;
#[cfg(test)]
mod oauth_sign_in;
#[cfg(test)]
mod oauth_tokens;
#[cfg(test)]
mod oauth_weaknesses;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod owners;
#[cfg(test)]
mod signed_requests;
#[cfg(test)]
mod store;
#[cfg(test)]
mod store_oauth;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod usage;
