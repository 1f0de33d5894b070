//! The end of a metered request: the hold becomes a charge, and the event goes to the spool, before the client has the
//! last byte.

use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::{
    Gateway,
    context::{Context, NormalTarget},
};
use crate::{
    authz::{Meter, Permit},
    config::WhenFull,
    model::{
        credits::Credits,
        endpoint::Endpoint,
        identity::Subject,
        usage::{Parts, Record, TermsRecord},
    },
    usage::spool::SpoolError,
};

impl Gateway {
    /// Settles a request that was answered with `status`, if it is metered and not settled yet.
    ///
    /// # Errors
    /// When the event cannot be recorded. Nothing is charged then, and the answer must not be completed.
    pub(super) fn settle(&self, ctx: &mut Context, method: &str, status: u16) -> Result<()> {
        let Some(mut metered) = ctx.meter.take() else { return Ok(()) };
        let charged = metered.meter.charge(status, ctx.answer.reported);
        let record = record(ctx, &metered.meter, method, status, charged.amount);
        let recorded = match metered.room.take() {
            Some(room) => room.append(&record),
            None => self.spool.append(&record),
        };
        if let Err(error) = recorded {
            charged.undo();
            return self.unrecorded(ctx, &error);
        }
        if let Some(route) = &ctx.route {
            route.metrics.credits_charged.inc_by(charged.amount.get());
        }
        ctx.charged = Some(charged.amount);
        Ok(())
    }

    /// A request of which nothing could be recorded, and for which nothing is charged.
    #[cold]
    fn unrecorded(&self, ctx: &mut Context, error: &SpoolError) -> Result<()> {
        if self.when_full == WhenFull::ServeUnmetered {
            self.metrics.spool_dropped.inc();
            tracing::error!(%error, request_id = %ctx.id, "served unmetered: the usage event could not be recorded");
            return Ok(());
        }
        ctx.failure = Some("spool_unavailable");
        tracing::error!(%error, request_id = %ctx.id, "answer withheld: the usage event could not be recorded");
        Err(Error::explain(ErrorType::HTTPStatus(503), "usage event not recorded"))
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

/// What is written of the request, borrowed from where it is: nothing is copied but into the spool.
fn record<'a>(
    ctx: &'a Context,
    meter: &'a Meter,
    method: &'a str,
    status: u16,
    charged: Credits,
) -> Record<'a, Parts<'a>> {
    let identity = meter.identity();
    let facts = meter.facts();
    let entitlement = identity.entitlement.as_ref();
    let duration_micros = u64::try_from(ctx.started.elapsed().as_micros()).unwrap_or(u64::MAX);
    Record {
        event_id: Some(ctx.id.into_bytes().into()),
        at_micros: ctx.at_micros.saturating_add_unsigned(duration_micros),
        duration_micros,
        status,
        upstream_status: ctx.answer.status,
        reported: ctx.answer.reported,
        charged,
        request_id: None,
        open: false,
        method,
        endpoint: called(ctx),
        terms: TermsRecord {
            route: ctx.route.as_ref().map_or("", |route| &route.name),
            listener: ctx.listener.as_deref(),
            service: facts.service,
            plan: entitlement.map(|entitlement| entitlement.plan),
            holder: match identity.subject {
                Subject::Evm(holder) => Some(holder),
                Subject::Hotkey(_) | Subject::Coldkey(_) | Subject::OwnNeuron => None,
            },
            user_id: entitlement.map_or("", |entitlement| &entitlement.user_id),
            owner: entitlement.map_or("", |entitlement| &entitlement.owner),
            contract: facts.source.contract(),
        },
    }
}

/// `scheme://host[:port]/path`, without the query (nevermined.md section 8.1).
fn called(ctx: &Context) -> Parts<'_> {
    let path = ctx.target.as_ref().map_or("", NormalTarget::path);
    let origin = ctx.permit.as_ref().and_then(Permit::endpoint).map(Endpoint::origin);
    Parts(origin.map_or(["", "", "", path], |origin| [origin.scheme().as_str(), "://", origin.authority(), path]))
}
