//! The end of a metered request: the hold becomes a charge, and the event goes to the spool, before the client has the
//! last byte.

use std::sync::Arc;

use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::{Gateway, context::Context};
use crate::{
    config::WhenFull,
    model::{clock, credits::Credits, identity::Subject, usage::UsageEvent},
};

impl Gateway {
    /// Settles a request that was answered with `status`, if it is metered and not settled yet.
    ///
    /// # Errors
    /// When the event cannot be recorded. Nothing is charged then, and the answer must not be completed.
    pub(super) fn settle(&self, ctx: &mut Context, method: &str, status: u16) -> Result<()> {
        let Some(mut metered) = ctx.meter.take() else { return Ok(()) };
        let charged = metered.meter.charge(status, ctx.answer.reported);
        let event = event(ctx, &metered.meter, method, status, charged.amount);
        let recorded = match metered.room.take() {
            Some(room) => room.append(&event),
            None => self.spool.append(&event),
        };
        match recorded {
            Ok(()) => {}
            Err(error) if self.when_full == WhenFull::ServeUnmetered => {
                self.metrics.spool_dropped.inc();
                charged.undo();
                tracing::error!(%error, request_id = %ctx.id, "served unmetered: the usage event could not be recorded");
                return Ok(());
            }
            Err(error) => {
                charged.undo();
                ctx.failure = Some("spool_unavailable");
                tracing::error!(%error, request_id = %ctx.id, "answer withheld: the usage event could not be recorded");
                return Err(Error::explain(ErrorType::HTTPStatus(503), "usage event not recorded"));
            }
        }
        if let Some(route) = &ctx.route {
            route.metrics.credits_charged.inc_by(charged.amount.get());
        }
        ctx.charged = Some(charged.amount);
        Ok(())
    }

    /// Settles a request whose answer did not come to its end. A client that goes away has had what it took, or nobody
    /// would read the last byte any more; what the upstream broke off was not delivered.
    pub(super) fn settle_unfinished(&self, session: &Session, error: Option<&Error>, ctx: &mut Context, status: u16) {
        let by_client = error.is_none_or(|error| *error.esource() == ErrorSource::Downstream);
        let delivered = match status {
            0 => NOBODY_WAITED,
            begun if !by_client && (200..300).contains(&begun) => BROKEN_OFF,
            status => status,
        };
        if self.settle(ctx, session.req_header().method.as_str(), delivered).is_err() {
            self.metrics.spool_dropped.inc();
        }
    }
}

/// Recorded as the status of an answer that the upstream began and did not finish: nothing is charged for it.
const BROKEN_OFF: u16 = 502;
/// Recorded where the client left before an answer, as NGINX does.
const NOBODY_WAITED: u16 = 499;
fn event(ctx: &Context, meter: &crate::authz::Meter, method: &str, status: u16, charged: Credits) -> UsageEvent {
    let identity = meter.identity();
    let facts = meter.facts();
    let holder = match identity.subject {
        Subject::Evm(holder) => Some(holder),
        Subject::Hotkey(_) | Subject::Coldkey(_) | Subject::OwnNeuron => None,
    };
    let entitlement = identity.entitlement.as_ref();
    let text = |text: Option<&Arc<str>>| text.map_or_else(|| Arc::from(""), Arc::clone);
    UsageEvent {
        event_id: ctx.id,
        at_micros: clock::now_micros(),
        request_id: ctx.id_text(&mut [0; 36]).into(),
        route: ctx.route.as_ref().map_or_else(|| Arc::from(""), |route| Arc::clone(&route.name)),
        listener: ctx.listener.clone(),
        service: facts.service,
        plan: entitlement.map(|entitlement| entitlement.plan),
        holder,
        user_id: text(entitlement.map(|entitlement| &entitlement.user_id)),
        owner: text(entitlement.map(|entitlement| &entitlement.owner)),
        endpoint: called(ctx),
        method: method.into(),
        status,
        upstream_status: ctx.answer.status,
        reported: ctx.answer.reported,
        charged,
        source: facts.source,
        duration_micros: u64::try_from(ctx.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        open: false,
    }
}

/// `scheme://host[:port]/path`, without the query (nevermined.md section 8.1).
fn called(ctx: &Context) -> Arc<str> {
    let path = ctx.target.as_ref().map_or("", super::context::NormalTarget::path);
    let origin = ctx.permit.as_ref().and_then(|permit| permit.endpoint()).map(crate::model::endpoint::Endpoint::origin);
    match origin {
        Some(origin) => [origin.scheme().as_str(), "://", origin.authority(), path].concat().into(),
        None => path.into(),
    }
}
