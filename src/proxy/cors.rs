//! What a route tells browsers about pages of other origins (Fetch standard, "CORS protocol").

use http::{HeaderName, Method, StatusCode, header};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
};
use pingora_proxy::Session;

use crate::config::{Cors, Origins};

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
