//! Which pages may send requests (auth-gateway.md section 10). Programs that are no browsers can write any `Origin`: this
//! keeps pages of strangers out of a user's browser, and nobody else.

use axum::http::{HeaderMap, header};
use url::Url;

use super::{Error, Settings, cors};
use crate::model::client::Client;

/// A page must be one of the client's; a program, which has no `Origin`, may be anywhere.
///
/// # Errors
/// 403, or 400 for an origin that is none.
pub fn of_client(headers: &HeaderMap, client: &Client) -> Result<(), Error> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin =
        origin.to_str().ok().and_then(cors::normal).ok_or_else(|| Error::bad_request("Invalid Origin header"))?;
    if client.allowed_origins.contains(&origin) {
        return Ok(());
    }
    Err(Error::forbidden("Origin is not allowed for this client"))
}

/// A page must be ours, and there must be one.
///
/// # Errors
/// 403.
pub fn of_ours(headers: &HeaderMap, settings: &Settings) -> Result<(), Error> {
    let origin = headers.get(header::ORIGIN).ok_or_else(|| Error::forbidden("Origin header required"))?;
    let origin = origin.to_str().ok().and_then(cors::normal);
    let ours = [of(&settings.public_url), of(&settings.verification_uri)];
    if origin.is_some() && ours.contains(&origin) { Ok(()) } else { Err(Error::forbidden("Origin is not allowed")) }
}

/// The origin of an address, as browsers write it.
#[must_use]
pub fn of(url: &str) -> Option<String> {
    Url::parse(url).ok().map(|url| url.origin().ascii_serialization())
}
