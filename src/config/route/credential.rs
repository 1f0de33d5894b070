//! `accepts`: how callers may prove who they are.

use crate::config::value::{Parse, Raw, word};

/// A kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// `nevermined`: an access token in `Authorization` (nevermined.md section 2).
    Nevermined,
    /// `client-certificate`: the certificate of a neuron, proven in the TLS handshake (nexus.md section 0).
    ClientCertificate,
    /// `btauth`: a request signed with a hotkey as btauth/1 says (nexus.md section 6.1).
    Btauth,
    /// `epistula`: a request signed with a hotkey as Epistula's version 2 says (nexus.md section 6.2).
    Epistula,
    /// `epistula-lite`: the same in the dialect with `X-` before every name, which names no receiver.
    EpistulaLite,
    /// `access-token`: an access token of our authorization server in `Authorization` (RFC 6750, RFC 9068).
    AccessToken,
}

impl CredentialKind {
    /// Whether it proves a Bittensor hotkey.
    #[must_use]
    pub fn proves_neuron(self) -> bool {
        match self {
            Self::Nevermined | Self::AccessToken => false,
            Self::ClientCertificate | Self::Btauth | Self::Epistula | Self::EpistulaLite => true,
        }
    }

    /// Whether it is a signature over the request.
    #[must_use]
    pub fn is_signature(self) -> bool {
        match self {
            Self::Nevermined | Self::ClientCertificate | Self::AccessToken => false,
            Self::Btauth | Self::Epistula | Self::EpistulaLite => true,
        }
    }
}

impl Parse for CredentialKind {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(
            raw,
            &[
                ("nevermined", Self::Nevermined),
                ("client-certificate", Self::ClientCertificate),
                ("btauth", Self::Btauth),
                ("epistula", Self::Epistula),
                ("epistula-lite", Self::EpistulaLite),
                ("access-token", Self::AccessToken),
            ],
        )
    }
}
