//! The networks of Bittensor.

/// A Bittensor network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// `mainnet`, also called Finney.
    Mainnet,
    /// `testnet`.
    Testnet,
}

impl Network {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mainnet => "mainnet",
            Self::Testnet => "testnet",
        }
    }
}
