//! The decision point: may this identity use this route now?
