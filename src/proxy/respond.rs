//! Answers of our own. The one place where a [`Denial`] becomes HTTP, and where it is decided what a stranger may know.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{Method, Version, header};
use pingora::{Result, http::ResponseHeader};
use pingora_proxy::Session;

use super::cors::expose_to_pages;
use crate::{
    config::{Compatibility, Cors, CredentialKind, Route},
    model::decision::{Denial, Dependency},
};

/// What a route asks of callers, as far as a refusal depends on it.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose status numbers it has.
    pub compatibility: Compatibility,
    /// A credential in `Authorization`.
    pub authorization: bool,
    /// A client certificate.
    pub certificate: bool,
    /// A signature over the request: the first kind.
    pub signature: Option<CredentialKind>,
    /// The scope that a client should ask an access token for, if it is known.
    pub scope: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Where there is no route.
    pub const NOTHING: Self = Self {
        compatibility: Compatibility::Standard,
        authorization: false,
        certificate: false,
        signature: None,
        scope: None,
    };

    /// By this route.
    #[must_use]
    pub fn by(route: &'a Route) -> Self {
        Self {
            compatibility: route.compatibility,
            authorization: route.reads_authorization(),
            certificate: route.accepts.contains(&CredentialKind::ClientCertificate),
            signature: route.accepts.iter().copied().find(|kind| kind.is_signature()),
            scope: route.access_token.as_ref().and_then(|policy| policy.scope_to_ask_for.as_deref()),
        }
    }
}

/// A request that may not pass.
#[derive(Clone, Copy)]
pub struct Refusal<'a> {
    /// Why.
    pub denial: &'a Denial,
    /// What its route asks for.
    pub wanted: Wanted<'a>,
    /// The kind of credential that it brought.
    pub presented: Option<CredentialKind>,
}

impl Refusal<'_> {
    /// The status: the RFCs', or that of a replaced system, which knew one number for whatever it did not allow
    /// (nevermined.md section 4, nexus.md section 1.2). What it never refused has no old number.
    ///
    /// A 401 must name a scheme to authenticate by (RFC 9110 §15.5.2), and there is none for TLS certificates. So who is
    /// missing one is told 403, as by other servers, and 401 only where headers would have helped too.
    #[must_use]
    pub fn status(&self) -> u16 {
        use Denial::{
            BadRequest, BodyTooLarge, InvalidCredential, LengthRequired, NoCredential, NoRoute, NotEntitled,
            TooManyRequests, Unavailable,
        };
        match (self.wanted.compatibility, self.denial) {
            (
                Compatibility::Nevermined,
                BadRequest(_)
                | LengthRequired
                | BodyTooLarge
                | NoRoute
                | TooManyRequests { .. }
                | Unavailable(
                    Dependency::Spool
                    | Dependency::Store
                    | Dependency::Revocations
                    | Dependency::BodyMemory
                    | Dependency::ReplayMemory,
                ),
            ) => self.denial.status(),
            (Compatibility::Nevermined, _) => 401,
            (
                Compatibility::NexusAuth,
                NoCredential | InvalidCredential(_) | NotEntitled(_) | Unavailable(Dependency::Neurons),
            ) => 403,
            (Compatibility::Standard, NoCredential | InvalidCredential(_)) if !self.by_headers() => 403,
            (Compatibility::Standard | Compatibility::NexusAuth, _) => self.denial.status(),
        }
    }

    /// Whether a header could have helped.
    fn by_headers(&self) -> bool {
        self.wanted.authorization || self.wanted.signature.is_some()
    }

    /// The signature that is wrong.
    fn wrong_signature(&self) -> Option<CredentialKind> {
        self.presented.filter(|kind| kind.is_signature())
    }

    /// Whether the same connection will be refused again: its certificate, or that it has none, does not change.
    #[must_use]
    pub fn ends_connection(&self) -> bool {
        let by_certificate = self.presented == Some(CredentialKind::ClientCertificate);
        match self.denial {
            Denial::InvalidCredential(_) | Denial::NotEntitled(_) => by_certificate,
            Denial::NoCredential => self.wanted.certificate && !self.by_headers(),
            _ => false,
        }
    }
}

/// The whole answer to a refused request.
///
/// # Errors
/// When the client is gone.
pub async fn refuse(
    session: &mut Session,
    refusal: &Refusal<'_>,
    cors: Option<&Cors>,
    request_id: &str,
) -> Result<u16> {
    let status = refusal.status();
    let mut header = ResponseHeader::build(status, Some(8))?;
    // RFC 6750 §3.1 has a challenge with a 403 too, for a token with more.
    if status == 401 || matches!(refusal.denial, Denial::InsufficientScope(_)) {
        for challenge in challenges(refusal) {
            header.append_header(header::WWW_AUTHENTICATE, challenge)?;
        }
    }
    match refusal.denial {
        Denial::TooManyRequests { retry_after } => {
            header.insert_header(header::RETRY_AFTER, retry_after.as_secs().max(1).to_string())?;
        }
        Denial::Unavailable(_) => header.insert_header(header::RETRY_AFTER, "1")?,
        _ => {}
    }
    if refusal.ends_connection() {
        session.set_keepalive(None);
    }
    body(session, header, cors, &explain(refusal, request_id)).await?;
    Ok(status)
}

/// The answer when the upstream failed.
///
/// # Errors
/// When the client is gone.
pub async fn failed(session: &mut Session, status: u16, cors: Option<&Cors>, request_id: &str) -> Result<()> {
    let (error, message) = match status {
        504 => ("upstream_timeout", "The service did not answer in time."),
        502 => ("upstream_failed", "The service could not be reached, or broke off."),
        413 => ("body_too_large", "The request's body is larger than this service takes."),
        400 => ("bad_request", "The request could not be understood."),
        408 => ("request_timeout", "The request did not arrive in time."),
        503 => ("unavailable", "The request could not be accounted for. Nothing was charged; try again."),
        _ => ("internal_error", "Something went wrong here."),
    };
    let header = ResponseHeader::build(status, Some(6))?;
    body(session, header, cors, &json(error, message, request_id)).await
}

/// Lets a client send the body of its request, if it waits for leave (RFC 9110 section 10.1.1), where the body is read here
/// and not passed on. Pingora has no such answer for HTTP/2 clients, which wait for a moment and send it all the same.
///
/// # Errors
/// When the client is gone.
pub async fn let_send(session: &mut Session) -> Result<()> {
    let request = session.req_header();
    let expected = request.headers.get(header::EXPECT);
    let waits = expected.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if !waits || request.version != Version::HTTP_11 {
        return Ok(());
    }
    // Pingora takes the answer to have begun, with the body outstanding, and would close the connection after it.
    let keepalive = session.get_keepalive();
    session.write_continue_response().await?;
    session.set_keepalive(keepalive);
    Ok(())
}

/// Every way that a header has to prove who calls. Who has tried one is told about that one.
fn challenges(refusal: &Refusal<'_>) -> Vec<String> {
    if let (Denial::InvalidCredential(reason), Some(kind)) = (refusal.denial, refusal.wrong_signature()) {
        return vec![format!("{}, error=\"{reason}\"", signature_scheme(kind))];
    }
    if matches!(refusal.denial, Denial::InsufficientScope(_)) {
        return vec![challenge(refusal)];
    }
    let token = (refusal.wanted.authorization || refusal.wanted.signature.is_none()).then(|| challenge(refusal));
    let signature = refusal.wanted.signature.map(|kind| signature_scheme(kind).to_owned());
    token.into_iter().chain(signature).collect()
}

/// The names are no registered ones, and what they ask for goes into headers of its own. They say what is missing.
fn signature_scheme(kind: CredentialKind) -> &'static str {
    match kind {
        CredentialKind::Epistula | CredentialKind::EpistulaLite => r#"Epistula realm="tollgate""#,
        _ => r#"btauth realm="tollgate""#,
    }
}

/// RFC 6750 §3: no error code where no token was presented, and a fixed text where one was wrong. The reason is in the
/// log.
fn challenge(refusal: &Refusal<'_>) -> String {
    let error = match refusal.denial {
        Denial::InvalidCredential(_) if refusal.presented == Some(CredentialKind::ClientCertificate) => None,
        Denial::InvalidCredential("expired") => Some(("invalid_token", "The access token has expired")),
        Denial::InvalidCredential(_) => Some(("invalid_token", "The access token is not valid")),
        Denial::InsufficientScope("wrong_signer") => {
            Some(("insufficient_scope", "The access token was signed for with another kind of key"))
        }
        Denial::InsufficientScope(_) => Some(("insufficient_scope", "The access token lacks a scope")),
        _ => None,
    };
    let mut text = String::from(r#"Bearer realm="tollgate""#);
    if let Some((error, description)) = error {
        write!(text, r#", error="{error}", error_description="{description}""#).unwrap_or_default();
    }
    // Of the configuration, where nothing else than the letters of scopes can stand.
    let helps = matches!(refusal.denial, Denial::NoCredential | Denial::InsufficientScope(_));
    if let Some(scope) = refusal.wanted.scope.filter(|_| helps) {
        write!(text, r#", scope="{scope}""#).unwrap_or_default();
    }
    text
}

fn explain(refusal: &Refusal<'_>, request_id: &str) -> Bytes {
    let certificate = refusal.presented == Some(CredentialKind::ClientCertificate);
    let (error, message) = match refusal.denial {
        Denial::BadRequest(reason) => (*reason, "The request is not acceptable in this form."),
        Denial::NoRoute => ("not_found", "There is nothing here."),
        Denial::NoCredential => ("no_credential", needed(refusal.wanted)),
        // What is published is public, and what was presented is the caller's own; but which of them is wrong is not said.
        Denial::InvalidCredential(_) if certificate => {
            ("invalid_certificate", "The client certificate does not prove who is calling.")
        }
        // These words say nothing that the sender does not know, except what our clock says.
        Denial::InvalidCredential(reason) if refusal.wrong_signature().is_some() => {
            (*reason, "The request's signature does not prove who is calling.")
        }
        Denial::NotEntitled(_) if refusal.presented.is_some_and(CredentialKind::proves_neuron) => {
            ("not_entitled", "This neuron may not call here.")
        }
        Denial::InvalidCredential("expired") => ("expired", "The access token has expired."),
        Denial::InvalidCredential(_) => ("invalid_token", "The access token is not valid."),
        Denial::InsufficientScope("wrong_signer") => {
            ("insufficient_scope", "The access token was signed for with another kind of key than is needed here.")
        }
        Denial::InsufficientScope(_) => ("insufficient_scope", "The access token lacks a scope that is needed here."),
        Denial::NotEntitled("client_not_listed") => {
            ("not_entitled", "The access token was issued to a client that may not call here.")
        }
        Denial::NotEntitled("endpoint_not_covered") => {
            ("endpoint_not_covered", "The access token does not cover this address.")
        }
        Denial::NotEntitled(_) => ("not_entitled", "The access token is not for this service."),
        Denial::InsufficientCredits { needed } => {
            let message = format!("This request may cost {needed} credits, and fewer are left.");
            return json("insufficient_credits", &message, request_id);
        }
        Denial::TooManyRequests { .. } => ("too_many_requests", "Too many requests; try again later."),
        Denial::LengthRequired => ("length_required", "A signed body of this size must come with its Content-Length."),
        Denial::BodyTooLarge => ("body_too_large", "The request's body is larger than this service takes."),
        Denial::Unavailable(_) => ("unavailable", "It could not be found out whether this is allowed; try again."),
    };
    json(error, message, request_id)
}

fn needed(wanted: Wanted<'_>) -> &'static str {
    match (wanted.authorization, wanted.certificate, wanted.signature.is_some()) {
        (true, true, true) => {
            "A neuron's client certificate or signature is needed, or an access token: Authorization: Bearer <token>."
        }
        (true, false, true) => "A neuron's signature is needed, or an access token: Authorization: Bearer <token>.",
        (false, true, true) => "A neuron's client certificate or signature is needed.",
        (false, false, true) => "A neuron's signature is needed.",
        (true, true, false) => {
            "A neuron's client certificate is needed, or an access token: Authorization: Bearer <token>."
        }
        (false, true, false) => "A neuron's client certificate is needed.",
        (_, false, false) => "An access token is needed: Authorization: Bearer <token>.",
    }
}

fn json(error: &str, message: &str, request_id: &str) -> Bytes {
    // All three are our own words: nothing of the request is repeated to it.
    Bytes::from(format!("{{\"error\":\"{error}\",\"message\":\"{message}\",\"request_id\":\"{request_id}\"}}\n"))
}

async fn body(session: &mut Session, mut header: ResponseHeader, cors: Option<&Cors>, body: &Bytes) -> Result<()> {
    header.insert_header(header::CONTENT_TYPE, "application/json")?;
    header.insert_header(header::CONTENT_LENGTH, body.len().to_string())?;
    header.insert_header(header::CACHE_CONTROL, "no-store")?;
    if let Some(cors) = cors {
        expose_to_pages(&mut header, session.req_header(), cors)?;
    }
    let bodiless = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(header), bodiless).await?;
    if !bodiless {
        session.write_response_body(Some(body.clone()), true).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::credits::Credits;

    const TOKENS: Wanted<'_> = Wanted { authorization: true, ..Wanted::NOTHING };
    const CERTIFICATES: Wanted<'_> = Wanted { certificate: true, ..Wanted::NOTHING };

    #[test]
    fn refusals_carry_the_numbers_of_their_route() {
        //   denial, standard, as the replaced proxy, by certificate, as nexus-auth
        for (denial, standard, nevermined, certificate, nexus_auth) in [
            (Denial::BadRequest("x"), 400, 400, 400, 400),
            (Denial::NoRoute, 404, 404, 404, 404),
            (Denial::NoCredential, 401, 401, 403, 403),
            (Denial::InvalidCredential("expired"), 401, 401, 403, 403),
            (Denial::NotEntitled("other_service"), 403, 401, 403, 403),
            (Denial::InsufficientScope("wrong_signer"), 403, 401, 403, 403),
            (Denial::InsufficientCredits { needed: Credits::new(1) }, 402, 401, 402, 402),
            (Denial::TooManyRequests { retry_after: Duration::from_secs(1) }, 429, 429, 429, 429),
            (Denial::BodyTooLarge, 413, 413, 413, 413),
            (Denial::LengthRequired, 411, 411, 411, 411),
            (Denial::Unavailable(Dependency::BodyMemory), 503, 503, 503, 503),
            (Denial::Unavailable(Dependency::ReplayMemory), 503, 503, 503, 503),
            (Denial::Unavailable(Dependency::Marketplace), 503, 401, 503, 503),
            (Denial::Unavailable(Dependency::Chain), 503, 401, 503, 503),
            (Denial::Unavailable(Dependency::Neurons), 503, 401, 503, 403),
            (Denial::Unavailable(Dependency::Store), 503, 503, 503, 503),
            (Denial::Unavailable(Dependency::Revocations), 503, 503, 503, 503),
            (Denial::Unavailable(Dependency::Spool), 503, 503, 503, 503),
        ] {
            for (wanted, expected) in [
                (TOKENS, standard),
                (Wanted { compatibility: Compatibility::Nevermined, ..TOKENS }, nevermined),
                (CERTIFICATES, certificate),
                (Wanted { certificate: true, ..TOKENS }, standard),
                (Wanted { compatibility: Compatibility::NexusAuth, ..CERTIFICATES }, nexus_auth),
            ] {
                let refusal = Refusal { denial: &denial, wanted, presented: None };
                assert_eq!(refusal.status(), expected, "{denial:?}");
            }
        }
    }

    #[test]
    fn a_wrong_credential_is_told_apart_from_a_missing_one_and_from_nothing_else() {
        let challenge = |denial: &Denial, presented| challenge(&Refusal { denial, wanted: TOKENS, presented });
        assert!(!challenge(&Denial::NoCredential, None).contains("error"));
        let wrong = ["wrong_key", "malformed_token", "malformed_claims"]
            .map(|reason| challenge(&Denial::InvalidCredential(reason), Some(CredentialKind::Nevermined)));
        assert!(wrong.iter().all(|text| text.contains("invalid_token") && *text == wrong[0]));
        let certificate = challenge(&Denial::InvalidCredential("expired"), Some(CredentialKind::ClientCertificate));
        assert!(!certificate.contains("error"), "it is not about a token: {certificate}");
    }

    #[test]
    fn a_challenge_names_every_header_that_would_help() {
        let btauth = Wanted { signature: Some(CredentialKind::Btauth), ..Wanted::NOTHING };
        let both = Wanted { signature: Some(CredentialKind::Epistula), ..TOKENS };
        for (denial, wanted, presented, expected) in [
            (Denial::NoCredential, btauth, None, vec![r#"btauth realm="tollgate""#]),
            (Denial::NoCredential, both, None, vec![r#"Bearer realm="tollgate""#, r#"Epistula realm="tollgate""#]),
            (
                Denial::InvalidCredential("stale"),
                both,
                Some(CredentialKind::EpistulaLite),
                vec![r#"Epistula realm="tollgate", error="stale""#],
            ),
        ] {
            let refusal = Refusal { denial: &denial, wanted, presented };
            assert_eq!(refusal.status(), 401, "{denial:?}");
            assert_eq!(challenges(&refusal), expected, "{denial:?}");
        }
    }

    #[test]
    fn a_token_with_too_little_is_told_apart_and_what_to_ask_for() {
        let openid = Wanted { scope: Some("openid signer:hotkey"), ..TOKENS };
        let signature = Wanted { signature: Some(CredentialKind::Btauth), ..openid };
        let lacks = r#"Bearer realm="tollgate", error="insufficient_scope", error_description="The access token lacks a scope""#;
        let invalid =
            r#"Bearer realm="tollgate", error="invalid_token", error_description="The access token is not valid""#;
        let scope = r#", scope="openid signer:hotkey""#;
        for (denial, wanted, expected) in [
            (Denial::NoCredential, openid, vec![format!(r#"Bearer realm="tollgate"{scope}"#)]),
            (Denial::InvalidCredential("revoked"), openid, vec![invalid.to_owned()]),
            (Denial::InsufficientScope("insufficient_scope"), openid, vec![format!("{lacks}{scope}")]),
            (Denial::InsufficientScope("insufficient_scope"), signature, vec![format!("{lacks}{scope}")]),
            (Denial::InsufficientScope("insufficient_scope"), TOKENS, vec![lacks.to_owned()]),
        ] {
            let refusal = Refusal { denial: &denial, wanted, presented: Some(CredentialKind::AccessToken) };
            assert_eq!(challenges(&refusal), expected, "{denial:?}");
        }
    }
}
