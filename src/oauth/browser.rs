//! The browser that began an authorization, known by a cookie: no other may go on with it, so nobody can have his own
//! sign-in finished in somebody else's browser, nor the other way round (auth-gateway.md section 14.1, 4).

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};

use super::{
    Settings,
    opaque::{self, Kind, NoRandomness},
};
use crate::{model::secret::Secret, store::grant::Digest};

/// A browser.
pub struct Browser {
    /// What is kept of its cookie.
    pub digest: Digest,
    cookie: Option<HeaderValue>,
}

/// With https the name says that only this host, and no page of a neighbour's, can have set it (RFC 6265bis).
fn name(settings: &Settings) -> &'static str {
    if settings.public_url.starts_with("https://") { "__Host-tollgate-browser" } else { "tollgate-browser" }
}

/// The one that sends this request, if it has our cookie.
#[must_use]
pub fn known(headers: &HeaderMap, settings: &Settings) -> Option<Digest> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(found, _)| *found == name(settings))?;
    opaque::presented(Kind::Browser, value)
}

/// The one that sends this request, known from now on. Several authorizations may be under way in one browser.
///
/// # Errors
/// When the system has no random numbers.
pub fn known_or_new(headers: &HeaderMap, settings: &Settings) -> Result<Browser, NoRandomness> {
    if let Some(digest) = known(headers, settings) {
        return Ok(Browser { digest, cookie: None });
    }
    let (value, digest) = opaque::issue(Kind::Browser)?;
    let secure = if settings.public_url.starts_with("https://") { "; Secure" } else { "" };
    let text = Secret::new(format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", name(settings), value.expose()));
    let cookie = HeaderValue::from_str(text.expose()).ok().map(|mut cookie| {
        cookie.set_sensitive(true);
        cookie
    });
    Ok(Browser { digest, cookie })
}

impl Browser {
    /// Gives a new browser its cookie.
    pub fn remember(self, response: &mut Response) {
        if let Some(cookie) = self.cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
}
