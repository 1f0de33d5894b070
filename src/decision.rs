//! Decisions for somebody else's proxy, at the endpoints of the systems we replace, so that an operator can keep NGINX and
//! swap only the service that it asks.

pub mod auth_request;
pub mod introspect;
