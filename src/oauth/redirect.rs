//! Sending a browser back to the client (RFC 6749 section 4.1.2).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use url::Url;

use super::State;
use crate::config::OAuthCompatibility;

/// What an answer has besides: what the client wants to see again, and who answers (RFC 9207, which the replaced server did
/// not have).
#[must_use]
pub fn parameters<'p>(
    state: &'p State,
    own: &[(&'p str, &'p str)],
    client_state: Option<&'p str>,
) -> Vec<(&'p str, &'p str)> {
    let issuer = (state.settings.compatibility == OAuthCompatibility::Standard).then_some(&*state.settings.issuer);
    let mut all = own.to_vec();
    all.extend(client_state.map(|text| ("state", text)));
    all.extend(issuer.map(|issuer| ("iss", issuer)));
    all
}

/// The client's address with an answer, whether or not it has a query of its own.
#[must_use]
pub fn address(registered: &str, parameters: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse(registered) else { return registered.to_owned() };
    url.query_pairs_mut().extend_pairs(parameters);
    url.into()
}

/// Sends the browser there.
#[must_use]
pub fn to(registered: &str, parameters: &[(&str, &str)]) -> Response {
    let address = address(registered, parameters);
    let Ok(location) = HeaderValue::try_from(address) else { return StatusCode::BAD_REQUEST.into_response() };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::FOUND, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_added_to_whatever_query_there_is() {
        let answer = [("code", "tgc_x"), ("state", "a b&c=é#")];
        for (registered, expected) in [
            ("https://app.example/cb", "https://app.example/cb?code=tgc_x&state=a+b%26c%3D%C3%A9%23"),
            ("https://app.example/cb?x=1", "https://app.example/cb?x=1&code=tgc_x&state=a+b%26c%3D%C3%A9%23"),
            ("http://localhost:1/", "http://localhost:1/?code=tgc_x&state=a+b%26c%3D%C3%A9%23"),
        ] {
            assert_eq!(address(registered, &answer), expected);
        }
    }
}
