//! Answers of our own. The one place where a [`Denial`] becomes HTTP, and where it is decided what a stranger may know.

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode, header};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
};
use pingora_proxy::Session;

use crate::{
    config::{Compatibility, Cors, Origins},
    model::decision::{Denial, Dependency},
};

/// The status of a refusal on a route: the RFCs', or the replaced system's, which knew only 401 for whatever its
/// introspection did not allow (nevermined.md section 4). What it never refused has no old number.
#[must_use]
pub fn status(denial: &Denial, compatibility: Compatibility) -> u16 {
    match (compatibility, denial) {
        (Compatibility::Standard, _)
        | (
            _,
            Denial::BadRequest(_)
            | Denial::LengthRequired
            | Denial::BodyTooLarge
            | Denial::NoRoute
            | Denial::TooManyRequests { .. }
            | Denial::Unavailable(
                Dependency::Spool | Dependency::Store | Dependency::BodyMemory | Dependency::ReplayMemory,
            ),
        ) => denial.status(),
        (Compatibility::Nevermined, _) => 401,
    }
}

/// The whole answer to a refused request.
///
/// # Errors
/// When the client is gone.
pub async fn refuse(
    session: &mut Session,
    denial: &Denial,
    compatibility: Compatibility,
    cors: Option<&Cors>,
    request_id: &str,
) -> Result<u16> {
    let status = status(denial, compatibility);
    let mut header = ResponseHeader::build(status, Some(8))?;
    if status == 401 {
        header.insert_header(header::WWW_AUTHENTICATE, challenge(denial))?;
    }
    match denial {
        Denial::TooManyRequests { retry_after } => {
            header.insert_header(header::RETRY_AFTER, retry_after.as_secs().max(1).to_string())?;
        }
        Denial::Unavailable(_) => header.insert_header(header::RETRY_AFTER, "1")?,
        _ => {}
    }
    body(session, header, cors, &explain(denial, request_id)).await?;
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

/// A browser's question before a request (Fetch standard, "CORS-preflight request"): whether a page may send it.
#[must_use]
pub fn is_preflight(request: &RequestHeader) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(header::ORIGIN)
        && request.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Answers such a question from the route's settings: nobody has to sign in to ask it.
///
/// # Errors
/// When the client is gone.
pub async fn preflight(session: &mut Session, cors: &Cors) -> Result<()> {
    let mut response = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8))?;
    let request = session.req_header();
    allow_origin(&mut response, request, cors)?;
    let asked = |name: HeaderName| request.headers.get(name).cloned();
    let methods = cors.allow_methods.clone().or_else(|| asked(header::ACCESS_CONTROL_REQUEST_METHOD));
    let headers = cors.allow_headers.clone().or_else(|| asked(header::ACCESS_CONTROL_REQUEST_HEADERS));
    for (name, value) in
        [(header::ACCESS_CONTROL_ALLOW_METHODS, methods), (header::ACCESS_CONTROL_ALLOW_HEADERS, headers)]
    {
        if let Some(value) = value {
            response.insert_header(name, value)?;
        }
    }
    response.insert_header(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.as_secs().to_string())?;
    response.append_header(header::VARY, "Access-Control-Request-Method, Access-Control-Request-Headers")?;
    session.write_response_header(Box::new(response), true).await
}

/// Lets pages read an answer, whatever its status. What the upstream said about it is replaced, not repeated.
///
/// # Errors
/// When a value cannot stand in a header.
pub fn expose_to_pages(response: &mut ResponseHeader, request: &RequestHeader, cors: &Cors) -> Result<()> {
    response.remove_header(&header::ACCESS_CONTROL_ALLOW_ORIGIN);
    response.remove_header(&header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
    allow_origin(response, request, cors)?;
    if let Some(names) = &cors.expose_headers {
        response.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, names.clone())?;
    }
    Ok(())
}

fn allow_origin(response: &mut ResponseHeader, request: &RequestHeader, cors: &Cors) -> Result<()> {
    match &cors.allow_origins {
        Origins::Any => response.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")?,
        Origins::List(allowed) => {
            response.append_header(header::VARY, "Origin")?;
            let Some(origin) = request.headers.get(header::ORIGIN).filter(|origin| allowed.contains(origin)) else {
                return Ok(());
            };
            response.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())?;
            if cors.allow_credentials {
                response.insert_header(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")?;
            }
        }
    }
    Ok(())
}

/// RFC 6750 §3: no error code where no credential was presented, and a fixed text where one was wrong. The reason is in
/// the log.
fn challenge(denial: &Denial) -> &'static str {
    match denial {
        Denial::InvalidCredential("expired") => {
            r#"Bearer realm="tollgate", error="invalid_token", error_description="The access token has expired""#
        }
        Denial::InvalidCredential(_) => {
            r#"Bearer realm="tollgate", error="invalid_token", error_description="The access token is not valid""#
        }
        _ => r#"Bearer realm="tollgate""#,
    }
}

fn explain(denial: &Denial, request_id: &str) -> Bytes {
    let (error, message) = match denial {
        Denial::BadRequest(reason) => (*reason, "The request is not acceptable in this form."),
        Denial::NoRoute => ("not_found", "There is nothing here."),
        Denial::NoCredential => ("no_credential", "An access token is needed: Authorization: Bearer <token>."),
        Denial::InvalidCredential("expired") => ("expired", "The access token has expired."),
        Denial::InvalidCredential(_) => ("invalid_token", "The access token is not valid."),
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

    #[test]
    fn refusals_carry_the_numbers_of_their_route() {
        //   denial, standard, as the replaced system
        for (denial, standard, nevermined) in [
            (Denial::BadRequest("x"), 400, 400),
            (Denial::NoRoute, 404, 404),
            (Denial::NoCredential, 401, 401),
            (Denial::InvalidCredential("expired"), 401, 401),
            (Denial::NotEntitled("other_service"), 403, 401),
            (Denial::InsufficientCredits { needed: Credits::new(1) }, 402, 401),
            (Denial::TooManyRequests { retry_after: Duration::from_secs(1) }, 429, 429),
            (Denial::BodyTooLarge, 413, 413),
            (Denial::Unavailable(Dependency::Marketplace), 503, 401),
            (Denial::Unavailable(Dependency::Chain), 503, 401),
            (Denial::Unavailable(Dependency::Store), 503, 503),
            (Denial::Unavailable(Dependency::Spool), 503, 503),
        ] {
            assert_eq!(status(&denial, Compatibility::Standard), standard, "{denial:?}");
            assert_eq!(status(&denial, Compatibility::Nevermined), nevermined, "{denial:?}");
        }
    }

    #[test]
    fn a_wrong_credential_is_told_apart_from_a_missing_one_and_from_nothing_else() {
        assert!(!challenge(&Denial::NoCredential).contains("error"));
        let wrong = ["wrong_key", "malformed_token", "malformed_claims"]
            .map(|reason| challenge(&Denial::InvalidCredential(reason)));
        assert!(wrong.iter().all(|text| text.contains("invalid_token") && *text == wrong[0]));
    }
}
