//! Does this signature belong to this account?
//!
//! What was signed is bytes here, and how an account came to be trusted is somebody else's question.

pub mod evm;
pub mod keyfile;
pub mod sign_in;
pub mod substrate;
pub mod throwaway;
