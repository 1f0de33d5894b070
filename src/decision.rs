//! The same decision for somebody else's proxy.
