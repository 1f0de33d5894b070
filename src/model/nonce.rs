//! What makes a signed request one that may be used once.

/// The name of one signed request, by which its second coming is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// SHA-256 over the protocol, the account and what the account promises not to use twice. Of one length, whatever
    /// a client has written.
    pub id: [u8; 32],
    /// When the request was signed, by its own account, in microseconds since the Unix epoch.
    pub signed_at_micros: i64,
    /// After this moment no gateway takes the request any more, used or not, in microseconds since the Unix epoch.
    pub until_micros: i64,
}
