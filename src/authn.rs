//! From a presented credential to an identity.
