//! Who calls: from what a connection and a request bring to an identity.

use std::{
    any::Any,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use http::header;
use pingora::{listeners::TlsAccept, protocols::tls::TlsRef};
use pingora_proxy::Session;

use super::Serving;
use crate::{
    authn::{
        Authorization, Presented,
        certificate::{self, Rules},
        signed::{self, Protocol, Unverified},
    },
    config::{Compatibility, CredentialKind, Route},
    model::{
        certificate::ClientCertificate,
        clock::Timestamp,
        decision::{Denial, Dependency},
        identity::{Identity, SignerKind, Subject},
    },
    tls::client::ClientCertificates,
};

/// Hands a connection's certificate to its requests, through Pingora's digest of the connection.
///
/// It is the certificate of the first handshake where a session is resumed, which the verifier does not see again.
pub struct HandOver(pub Arc<ClientCertificates>);

#[async_trait]
impl TlsAccept for HandOver {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let certificate = self.0.parse(tls.peer_certificate_der()?)?;
        Some(Arc::new(Peer { certificate, address: OnceLock::new() }))
    }
}

/// The other end of a connection, which has a certificate.
pub struct Peer {
    certificate: Arc<ClientCertificate>,
    /// Whom the certificate proved first, and how that is written: base 58 takes longer than the rest of a decision.
    address: OnceLock<(Subject, Arc<str>)>,
}

impl Peer {
    fn of(session: &Session) -> Option<&Self> {
        session.digest()?.ssl_digest.as_ref()?.extension.get()
    }
}

/// What `X-Hotkey` and the access log call the hotkey that calls; None: it is none. A hotkey's token says so itself; its
/// owner's says nothing of hotkeys.
pub(super) fn address(session: &Session, identity: &Identity) -> Option<Arc<str>> {
    let subject = identity.subject;
    if let Some(token) = &identity.access_token {
        return (token.signer == SignerKind::Hotkey).then(|| Arc::clone(&token.account));
    }
    if let Some((known, address)) = Peer::of(session).and_then(|peer| peer.address.get())
        && *known == subject
    {
        return Some(Arc::clone(address));
    }
    let address: Arc<str> = subject.hotkey()?.into();
    if let Some(peer) = Peer::of(session) {
        // Another request may have been quicker, or the neuron has proven itself in another way: then it is not kept.
        let _ = peer.address.set((subject, Arc::clone(&address)));
    }
    Some(address)
}

fn claimed(session: &Session, protocol: Protocol) -> Result<Option<Caller>, Denial> {
    let claim = signed::presented(&session.req_header().headers, protocol)?;
    Ok(claim.map(|claim| Caller::Claimed(Box::new(claim))))
}

/// Whether `Authorization` is for the other of the two kinds of tokens, where a route accepts both: ours are signed, the
/// marketplace's are encrypted, and each looks like it.
fn is_another_token(route: &Route, kind: CredentialKind, authorization: &Authorization<'_>) -> bool {
    let both =
        [CredentialKind::Nevermined, CredentialKind::AccessToken].iter().all(|kind| route.accepts.contains(kind));
    both && match kind {
        CredentialKind::Nevermined => authorization.is_signed_token(),
        CredentialKind::AccessToken => !authorization.is_signed_token(),
        _ => false,
    }
}

/// Who calls, as far as the header of a request tells.
pub(super) enum Caller {
    /// No credential is there.
    Unknown,
    /// This one.
    Known(Arc<Identity>),
    /// Whoever signed the request, if it is signed: that takes its body.
    Claimed(Box<Unverified>),
}

impl Serving {
    /// Who calls. The first kind of credential that is presented counts, in the order of the route's `accepts`, and is
    /// left in `presented`.
    ///
    /// A certificate is looked at for every request, because its connection may be older than what its neuron says today.
    pub(super) async fn identify(
        &self,
        route: &Route,
        session: &Session,
        now: Timestamp,
        presented: &mut Option<CredentialKind>,
    ) -> Result<Caller, Denial> {
        let headers = session.req_header().headers.get_all(header::AUTHORIZATION);
        let authorization = Authorization::from_values(headers.iter().map(http::HeaderValue::as_bytes))?;
        for kind in route.accepts.iter().filter(|kind| !is_another_token(route, **kind, &authorization)) {
            *presented = Some(*kind);
            let caller = match kind {
                CredentialKind::Nevermined => match &self.tokens {
                    Some(tokens) => tokens.identify(&Presented { authorization }, now)?.map(Caller::Known),
                    None => None,
                },
                CredentialKind::AccessToken => self.bearer(route, &Presented { authorization }, now)?,
                CredentialKind::ClientCertificate => match Peer::of(session) {
                    Some(peer) => Some(Caller::Known(self.neuron(route, &peer.certificate, now).await?)),
                    None => None,
                },
                CredentialKind::Btauth => claimed(session, Protocol::Btauth)?,
                CredentialKind::Epistula => claimed(session, Protocol::Epistula)?,
                CredentialKind::EpistulaLite => claimed(session, Protocol::EpistulaLite)?,
            };
            if let Some(caller) = caller {
                return Ok(caller);
            }
        }
        *presented = None;
        Ok(Caller::Unknown)
    }

    /// Whoever was given an access token of ours. Routes that accept one have a policy, and then there is who verifies it.
    fn bearer(&self, route: &Route, presented: &Presented<'_>, now: Timestamp) -> Result<Option<Caller>, Denial> {
        let (Some(tokens), Some(policy)) = (&self.access_tokens, &route.access_token) else { return Ok(None) };
        Ok(tokens.identify(presented, &policy.audience, now)?.map(Caller::Known))
    }

    async fn neuron(
        &self,
        route: &Route,
        certificate: &ClientCertificate,
        now: Timestamp,
    ) -> Result<Arc<Identity>, Denial> {
        let (Some(neurons), Some(policy)) = (&self.neurons, &route.neurons) else {
            return Err(Denial::Unavailable(Dependency::Neurons));
        };
        let rules = match route.compatibility {
            Compatibility::NexusAuth => Rules::NexusAuth,
            Compatibility::Standard | Compatibility::Nevermined => Rules::Strict,
        };
        certificate::identify(certificate, rules, policy.netuid, neurons, now).await.map(Arc::new)
    }
}
