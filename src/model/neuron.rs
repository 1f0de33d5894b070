//! What a chain says about neurons: who they are, and which keys they have published.

use std::{collections::HashMap, fmt};

use super::{decision::Reason, hotkey::Hotkey};

/// The number of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetUid(pub u16);

impl fmt::Display for NetUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The neuron certificate of a hotkey: the public key it has published for TLS (nexus.md section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedKey {
    /// Algorithm 1: Ed25519, 32 bytes.
    Ed25519([u8; 32]),
    /// Published, and of no use: another algorithm, or another length. Never read as "none published".
    Unusable(Reason),
}

impl PublishedKey {
    /// Published in a block that may yet be thrown away, instead of another key or of none: nobody is admitted by the one
    /// nor by the other.
    pub const NOT_FINAL: Self = Self::Unusable("published_key_not_final");

    /// Reads what the chain stores: `NeuronCertificates` has the key's bytes and the number of its algorithm.
    #[must_use]
    pub fn new(algorithm: u64, key: &[u8]) -> Self {
        match (algorithm, <[u8; 32]>::try_from(key)) {
            (1, Ok(key)) => Self::Ed25519(key),
            (1, Err(_)) => Self::Unusable("published_key_length"),
            _ => Self::Unusable("published_key_algorithm"),
        }
    }
}

/// What a subnet's consensus says of one neuron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neuron {
    /// Its number in the subnet. Another neuron's tomorrow: never a key.
    pub uid: u16,
    /// Whether it may validate. On small subnets miners hold permits as well (subtensor.md section 5).
    pub validator_permit: bool,
    /// Its stake weight in the subnet (`total_stake`: alpha and weighted TAO), in units of 10⁻⁹.
    pub stake: u64,
}

/// A subnet as one block had it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// The number of that block.
    pub block: u64,
    /// Who has published which key.
    pub keys: HashMap<Hotkey, PublishedKey>,
    /// Who is registered. None: the source did not say.
    pub neurons: Option<HashMap<Hotkey, Neuron>>,
}
