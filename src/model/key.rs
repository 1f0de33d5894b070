//! Keys. (Stand-in until the real file is merged.)

/// The 32 bytes that open a token.
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A phrase's key (nevermined.md section 2.2).
    ///
    /// # Errors
    /// When the phrase has not 32 UTF-16 code units.
    pub fn from_phrase(phrase: &str) -> Result<Self, KeyError> {
        let digit = |unit: u16| u8::try_from(unit.wrapping_sub(48)).ok().filter(|digit| *digit < 10).unwrap_or(0);
        let bytes: Vec<u8> = phrase.encode_utf16().map(digit).collect();
        bytes.try_into().map(Self).map_err(|_| KeyError)
    }
}

/// Not a key.
#[derive(Debug, thiserror::Error)]
#[error("not a key")]
pub struct KeyError;
