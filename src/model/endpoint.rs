//! Endpoints of a paid service.

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint;
