//! OAuth clients: the applications that users sign in to (RFC 6749 §2).

use std::{fmt, str::FromStr};

/// A registered application.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// What users are told.
    pub name: String,
    /// How it proves that it is itself.
    pub authentication: ClientAuthentication,
    /// Where codes may be sent, compared letter by letter (RFC 6749 §3.1.2.3).
    pub redirect_uris: Vec<String>,
    /// What it may do at the token endpoint.
    pub grant_types: Vec<GrantType>,
    /// Patterns of what it may ask for; empty: anything.
    pub allowed_scopes: Vec<String>,
    /// Origins of pages that may use it, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// The wallets its users have.
    pub sign_method: SignMethod,
    /// Token requests in a minute; 0 or less: any number.
    pub rate_limit: i32,
    /// Whether it may be used.
    pub active: bool,
    /// When it was registered, in microseconds since the Unix epoch.
    pub created_at_micros: i64,
    /// When it changed last, in microseconds since the Unix epoch.
    pub updated_at_micros: i64,
}

/// How a client proves that it is itself (RFC 8414 §2, `token_endpoint_auth_methods_supported`).
#[derive(Clone, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// `none`: a public client, which cannot keep a secret and must use PKCE.
    None,
    /// `client_secret_basic` and `client_secret_post`: the hash of its secret.
    Secret(String),
}

/// What a client may do at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantType {
    /// `authorization_code` (RFC 6749 §4.1).
    AuthorizationCode,
    /// `refresh_token` (RFC 6749 §6).
    RefreshToken,
    /// `urn:ietf:params:oauth:grant-type:device_code` (RFC 8628 §3.4).
    DeviceCode,
}

/// What kind of key users sign in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignMethod {
    /// `sr25519`: a Bittensor wallet.
    Sr25519,
    /// `evm`: an Ethereum wallet.
    Evm,
}

impl Client {
    /// Whether it cannot keep a secret.
    #[must_use]
    pub fn is_public(&self) -> bool {
        matches!(self.authentication, ClientAuthentication::None)
    }

    /// `public` or `confidential` (RFC 6749 §2.1).
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.is_public() { "public" } else { "confidential" }
    }
}

impl fmt::Debug for ClientAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Secret(_) => "Secret([secret])",
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl GrantType {
    /// All of them, in the order of the metadata.
    pub const ALL: [Self; 3] = [Self::AuthorizationCode, Self::RefreshToken, Self::DeviceCode];

    /// The word in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
        }
    }
}

impl SignMethod {
    /// All of them, in the order of the metadata.
    pub const ALL: [Self; 2] = [Self::Sr25519, Self::Evm];

    /// The word in requests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sr25519 => "sr25519",
            Self::Evm => "evm",
        }
    }
}

/// A word that names none of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such word")]
pub struct UnknownWord;

impl FromStr for GrantType {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        // The replaced system's earliest clients have the short name of the device grant.
        let device = (word == "device_code").then_some(Self::DeviceCode);
        device.or_else(|| Self::ALL.into_iter().find(|grant| grant.as_str() == word)).ok_or(UnknownWord)
    }
}

impl FromStr for SignMethod {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|method| method.as_str() == word).ok_or(UnknownWord)
    }
}
