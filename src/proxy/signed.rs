//! Signed requests: the body is held, the signature is verified, and only then is anything decided.

use std::sync::Arc;

use pingora_proxy::Session;

use super::{
    Gateway,
    context::Context,
    held_body::{self, Budget, Stop},
    request,
};
use crate::{
    authn::signed::{Sent, Unverified},
    config::SignedRequests,
    model::{
        clock,
        decision::{Denial, Dependency},
        identity::Identity,
        nonce::Nonce,
    },
};

/// What is asked of signed requests.
pub struct Signed {
    /// As configured.
    pub terms: SignedRequests,
    /// Memory for their bodies.
    pub bodies: Budget,
}

/// A request whose sender has signed it. It has not been admitted yet: it may have been used before.
pub struct Proven {
    /// The sender.
    pub identity: Arc<Identity>,
    nonce: Nonce,
}

impl Gateway {
    /// Finds out whether a request is its sender's, which takes its whole body. What cannot be right whatever the body is,
    /// is refused without it.
    pub(super) async fn prove(&self, session: &mut Session, ctx: &mut Context, claim: &Unverified) -> Result<(), Stop> {
        let serving = Arc::clone(&ctx.serving);
        let (Some(signed), Some(route)) = (&serving.signed, &ctx.route) else {
            return Err(Denial::NoCredential.into());
        };
        let time_left = claim.check(&signed.terms, clock::now_nanos())?;
        let most = signed.terms.max_body_bytes.min(route.config.max_body_bytes);
        let held = held_body::read(session, most, time_left, &signed.bodies).await?;
        let request = session.req_header();
        let target = request::sent_target(request);
        let sent = Sent { method: &request.method, target, body_sha256: &held.sha256 };
        let verified = claim.verify(&sent, &signed.terms, clock::now_nanos())?;
        ctx.received = held.length;
        ctx.held = Some(held);
        ctx.proven = Some(Proven { identity: Arc::new(verified.identity), nonce: verified.nonce });
        Ok(())
    }

    /// Uses a proven request. This comes last, so that who may not call at all cannot fill the memory of used requests.
    pub(super) async fn use_once(&self, ctx: &Context) -> Result<(), Denial> {
        let Some(proven) = &ctx.proven else { return Ok(()) };
        let signed = ctx.serving.signed.as_ref().ok_or(Denial::Unavailable(Dependency::ReplayMemory))?;
        self.replays.admit(&proven.nonce, signed.terms.max_skew, clock::now_micros()).await
    }
}
