//! Messages that wallets are asked to sign, each good for one answer.

use super::{Result, Store, postgres, sqlite};

/// SHA-256 of something that is presented later: what the store keeps of it.
pub type Digest = [u8; 32];

/// Where a challenge may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// `POST /v1/auth/verify`.
    Direct,
    /// `POST /v1/oauth/callback`.
    Code,
    /// `POST /v1/device/confirm`.
    Device,
}

/// A message that was handed out to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Where it may be answered.
    pub flow: Flow,
    /// What it belongs to: the digest of an authorize session or of a user code.
    pub binding: Option<Digest>,
    /// The only wallet that may answer, if that was said when it was asked for.
    pub account: Option<String>,
    /// Scopes with a blank between them.
    pub scope: String,
    /// The end of its life, in microseconds since the Unix epoch.
    pub expires_at_micros: i64,
}

impl Flow {
    /// The word in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "auth",
            Self::Code => "oauth",
            Self::Device => "device",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Self> {
        [Self::Direct, Self::Code, Self::Device].into_iter().find(|flow| flow.as_str() == word)
    }
}

impl Store {
    /// Remembers a message that was handed out.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn insert_challenge(&self, message: &Digest, challenge: &Challenge) -> Result<()> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::oauth_challenge::insert(database, message, challenge)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::oauth_challenge::insert(database, message, challenge)).await
            }
        }
    }

    /// Takes a message out, whoever asks first: from then on it is answered. None for one that was never handed out, is
    /// used, or has expired.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn consume_challenge(&self, message: &Digest, now_micros: i64) -> Result<Option<Challenge>> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::oauth_challenge::consume(database, message, now_micros)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::oauth_challenge::consume(database, message, now_micros)).await
            }
        }
    }
}
