//! Routes that are answered here: an axum router called from inside Pingora.
//!
//! The router runs on the runtime for outside questions, since it may wait for a database. It is told the other end of the
//! connection by an extension, [`ConnectInfo`], which no client can write.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo};
use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, Response, StatusCode, header};
use pingora::{Error, ErrorType, Result, http::ResponseHeader};
use pingora_proxy::Session;
use tokio::{runtime::Handle, time::timeout};
use tower::ServiceExt as _;

use super::{
    context::{Context, NormalTarget},
    respond,
};

/// A router, and where it runs.
#[derive(Clone)]
pub struct Local {
    /// What answers.
    pub router: Router,
    /// The runtime for outside questions.
    pub outside: Handle,
    /// The longest body that is read, in bytes. Of a longer one the router gets a little more than this, and refuses it.
    pub max_body_bytes: usize,
}

/// How long an answer may take: longer than every question that the router asks.
const PATIENCE: Duration = Duration::from_mins(1);

/// The longest answer.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Answers a request.
///
/// # Errors
/// When the client is gone or too slow, or the router fails.
pub async fn answer(session: &mut Session, local: &Local, ctx: &Context) -> Result<()> {
    let body = read_body(session, local.max_body_bytes, ctx.serving.body_timeout).await?;
    let request = request(session, ctx, body)?;
    let bodiless = request.method() == Method::HEAD;
    let answered = local.outside.spawn(timeout(PATIENCE, local.router.clone().oneshot(request)));
    let response = match answered.await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_)) => return Err(Error::explain(ErrorType::HTTPStatus(504), "a local answer took too long")),
        Ok(Ok(Err(never))) => match never {},
        Err(_) => return Err(Error::explain(ErrorType::InternalError, "a local answer panicked")),
    };
    write(session, response, bodiless).await
}

/// The body, or the beginning of one that is too long.
async fn read_body(session: &mut Session, most: usize, patience: Duration) -> Result<Bytes> {
    respond::let_send(session).await?;
    let mut body = BytesMut::new();
    let whole = async {
        while let Some(chunk) = session.read_request_body().await? {
            body.extend_from_slice(&chunk);
            if body.len() > most {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match timeout(patience, whole).await {
        Ok(Ok(true)) => {}
        // What else is on its way is not read.
        Ok(Ok(false)) => session.set_keepalive(None),
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(Error::explain(ErrorType::HTTPStatus(408), "the body came too slowly")),
    }
    Ok(body.freeze())
}

fn request(session: &Session, ctx: &Context, body: Bytes) -> Result<http::Request<Body>> {
    let received = session.req_header();
    let target = ctx.target.as_ref().map_or("/", NormalTarget::as_str);
    let mut request = http::Request::builder().method(received.method.clone()).uri(target);
    if let Some(headers) = request.headers_mut() {
        headers.extend(received.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        // The body is whole, whatever it came in.
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        if !body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
    }
    let port = session.client_addr().and_then(|address| address.as_inet());
    let port = port.map_or(0, SocketAddr::port);
    let client = ctx.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let request = request.extension(ConnectInfo(SocketAddr::new(client, port))).body(Body::from(body));
    request.map_err(|error| Error::because(ErrorType::HTTPStatus(400), "passing a request on to a local route", error))
}

/// Headers that are about the connection, which is Pingora's business.
const OF_THE_CONNECTION: [HeaderName; 3] = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];

async fn write(session: &mut Session, response: Response<Body>, bodiless: bool) -> Result<()> {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, MAX_ANSWER_BYTES).await;
    let body = body.map_err(|error| Error::because(ErrorType::InternalError, "reading a local answer", error))?;
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len()))?;
    for (name, value) in &parts.headers {
        if !OF_THE_CONNECTION.contains(name) {
            head.append_header(name, value)?;
        }
    }
    let empty = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless && !empty {
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    let ends = bodiless || empty || body.is_empty();
    session.write_response_header(Box::new(head), ends).await?;
    if !ends {
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}
