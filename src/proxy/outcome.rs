//! What became of a request, in numbers and words: its status, why it failed, its line in the access log.

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;

use super::{context::Context, request};
use crate::{
    model::{credits::Credits, decision::Denial},
    telemetry::{AccessLog, Line},
};

/// The status of the answer; 0: there is none yet. Leave to send the body is no answer.
pub(super) fn answered_with(session: &Session) -> u16 {
    let written = session.response_written().map_or(0, |response| response.status.as_u16());
    if matches!(written, 100 | 102..200) { 0 } else { written }
}

/// The status and the metric label of a failure.
pub(super) fn failure_of(error: &Error) -> (u16, &'static str) {
    match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(status), _) => (*status, "refused"),
        (
            ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout,
            ErrorSource::Upstream,
        ) => (504, "timeout"),
        (ErrorType::InvalidCert | ErrorType::TLSHandshakeFailure, ErrorSource::Upstream) => (502, "tls"),
        (_, ErrorSource::Upstream) => (502, "broken"),
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => (408, "client_timeout"),
        (
            ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed | ErrorType::WriteTimedout,
            ErrorSource::Downstream,
        ) => (0, "client_gone"),
        (_, ErrorSource::Downstream) => (400, "bad_request"),
        _ => (500, "internal"),
    }
}

/// Writes the line of a request that has ended.
pub(super) fn write_line(log: &AccessLog, session: &Session, ctx: &Context, status: u16) {
    let request = session.req_header();
    let identity = ctx.identity.as_ref();
    let verdict = match (&ctx.denial, &ctx.permit) {
        (Some(_), _) => "deny",
        (None, Some(permit)) if permit.identity().is_none() => "open",
        (None, Some(_)) => "permit",
        (None, None) => "none",
    };
    let user = identity.and_then(|identity| match (&identity.entitlement, &identity.access_token) {
        (Some(entitlement), _) => Some(&*entitlement.user_id),
        (None, token) => token.as_ref().map(|token| &*token.account),
    });
    let raw_path = request.raw_path();
    let unparsed = raw_path.split(|byte| *byte == b'?').next().unwrap_or_default();
    log.append(&Line {
        at_micros: ctx.at_micros,
        request_id: ctx.id_text(),
        listener: ctx.listener.as_deref().unwrap_or("-"),
        route: ctx.route.as_ref().map_or("-", |route| &*route.name),
        client: ctx.client,
        method: request.method.as_str(),
        host: request::authority(request).unwrap_or_default(),
        path: ctx.target.as_ref().map_or(unparsed, |target| target.path().as_bytes()),
        status,
        upstream_status: ctx.answer.status,
        duration: ctx.started.elapsed(),
        decision: ctx.decision,
        bytes_sent: session.body_bytes_sent(),
        bytes_received: session.body_bytes_read(),
        proof: identity.map(|identity| identity.proof.as_str()),
        subject: user.or(ctx.hotkey.as_deref()),
        verdict,
        reason: ctx.denial.as_ref().map(Denial::reason).or(ctx.failure),
        charged: ctx.charged.map(Credits::get),
    });
}
