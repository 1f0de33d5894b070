//! Cached questions to the outside.
