//! Usage events and their life.
