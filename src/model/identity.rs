//! Who is calling, and what the credential says they may do.

use std::{borrow::Cow, sync::Arc};

use http::HeaderValue;
use uuid::Uuid;

use super::{
    address::EvmAddress, clock::Timestamp, did::Did, endpoint::Endpoint, hotkey::Hotkey, scope::Scope, secret::Secret,
};

/// Who is calling, and how we know. Produced only by `authn`.
#[derive(Debug)]
pub struct Identity {
    /// The account.
    pub subject: Subject,
    /// How it was proven: for the log, not for policy.
    pub proof: Proof,
    /// The credential is not valid before this moment (RFC 7519 §4.1.5).
    pub not_before: Option<Timestamp>,
    /// The credential is not valid at or after this moment (RFC 7519 §4.1.4).
    pub expires_at: Option<Timestamp>,
    /// When the credential was issued (RFC 7519 §4.1.6).
    pub issued_at: Option<Timestamp>,
    /// What a Nevermined access token carries besides the account.
    pub entitlement: Option<Entitlement>,
    /// What an access token of our authorization server carries besides the account.
    pub access_token: Option<AccessToken>,
}

/// An account of one of the systems we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An Ethereum account.
    Evm(EvmAddress),
    /// A Bittensor hotkey.
    Hotkey(Hotkey),
    /// A Bittensor account that is nobody's hotkey: a coldkey.
    Coldkey(Hotkey),
    /// The neuron that this gateway itself is, called `self` (nexus.md section 7, W2). Known only where the replaced system's
    /// rules are asked for, and only by the key: whoever tells us its key does not say its hotkey.
    OwnNeuron,
}

impl Subject {
    /// What `X-Hotkey` says of this account: a hotkey in its one spelling, or `self`. None for accounts of other systems.
    #[must_use]
    pub fn hotkey(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Evm(_) | Self::Coldkey(_) => None,
            Self::Hotkey(hotkey) => Some(hotkey.to_string().into()),
            Self::OwnNeuron => Some("self".into()),
        }
    }
}

/// How an identity was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A Nevermined access token (nevermined.md section 2).
    NeverminedToken,
    /// An X.509 certificate with the key that a hotkey has published (nexus.md section 0).
    ClientCertificate,
    /// A request signed as btauth/1 says (nexus.md section 6.1).
    Btauth,
    /// A request signed as Epistula's version 2 says (nexus.md section 6.2).
    Epistula,
    /// A request signed in Epistula's dialect without a receiver (nexus.md section 6.2).
    EpistulaLite,
    /// An access token of our authorization server (RFC 9068).
    AccessToken,
}

impl Proof {
    /// The word in the access log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverminedToken => "nevermined",
            Self::ClientCertificate => "client_certificate",
            Self::Btauth => "btauth",
            Self::Epistula => "epistula",
            Self::EpistulaLite => "epistula_lite",
            Self::AccessToken => "access_token",
        }
    }
}

/// What kind of wallet signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerKind {
    /// A Bittensor hotkey, which has an owner.
    Hotkey,
    /// A Bittensor account that no coldkey owns.
    Coldkey,
    /// An Ethereum account.
    Evm,
}

impl SignerKind {
    /// The word in tables, in the configuration and in the claim `signer_type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hotkey => "hotkey",
            Self::Coldkey => "coldkey",
            Self::Evm => "evm",
        }
    }

    /// The kind that a word is for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Hotkey, Self::Coldkey, Self::Evm].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What an access token says that our authorization server has issued (RFC 9068 section 2.2). Its texts are visible ASCII.
#[derive(Debug)]
pub struct AccessToken {
    /// The account that signed in: claim `sub`, in its one spelling. The subject is its parsed form.
    pub account: Arc<str>,
    /// What kind of key signed: claim `signer_type`.
    pub signer: SignerKind,
    /// The client it was issued to: claim `client_id`. None: the direct flow, which knows no clients.
    pub client: Option<Arc<str>>,
    /// Claim `scope`: scopes with a blank between them.
    pub scope: Arc<str>,
    /// The same, read.
    pub scopes: Vec<Scope>,
    /// The grant it belongs to: claim `grant_id`. None: the direct flow, whose tokens nobody can take back.
    pub grant: Option<Uuid>,
}

/// The right to a service, as its token states it (nevermined.md section 2.4).
#[derive(Debug)]
pub struct Entitlement {
    /// The service the token was issued for: claim `did`.
    pub service: Did,
    /// The plan whose credits pay: claim `subscriptionDid`.
    pub plan: Did,
    /// The service's owner as the issuer wrote it: claim `owner`. Told to the upstream, never used to decide.
    pub owner: Arc<str>,
    /// The account as the issuer wrote it: claim `userId`. The subject is its parsed form.
    pub user_id: Arc<str>,
    /// Claim `ercType`, only repeated by introspection.
    pub erc_type: Option<u64>,
    /// The account, the service and its owner, as an upstream is told them.
    pub fields: IdentityFields,
    /// What may be called: claim `endpoints`, without the ones that could not be parsed.
    pub endpoints: Vec<Endpoint>,
    /// What the provider's service wants to see instead of the token: claim `headers.authentication`.
    pub upstream_credential: UpstreamCredential,
}

/// Who is calling, for whom, and whose service it is, as values of `NVM-User-id`, `NVM-Scope` and `NVM-Owner`
/// (nevermined.md section 5.2). They are made once, for what is sent with each request. None: there is nothing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFields {
    /// The account, as its token spells it.
    pub user_id: Option<HeaderValue>,
    /// The service's DID.
    pub scope: Option<HeaderValue>,
    /// The service's owner.
    pub owner: Option<HeaderValue>,
}

impl IdentityFields {
    /// Makes values of texts. One that is empty, or that no field can have, is not told.
    #[must_use]
    pub fn new(user_id: &str, service: Did, owner: &str) -> Self {
        let value = |text: &str| HeaderValue::from_str(text).ok().filter(|value| !value.is_empty());
        Self { user_id: value(user_id), scope: value(service.text(&mut [0; 71])), owner: value(owner) }
    }
}

/// The provider's secret, which replaces the client's `Authorization` on the way to the upstream
/// (nevermined.md section 2.6).
#[derive(Debug)]
pub struct UpstreamCredential {
    /// The claim's `type` as written, which introspection repeats.
    pub kind: Box<str>,
    /// `service_token` of introspection: the bearer token, or the base64 of `username:password`.
    pub service_token: Secret,
    /// The whole `Authorization` value, or none for the types that send none.
    pub authorization: Option<Secret>,
}
