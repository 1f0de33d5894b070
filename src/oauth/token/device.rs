//! A device code for tokens (RFC 8628 section 3.4).

use axum::http::StatusCode;

use super::{Issued, Request, another_clients, invalid_grant, narrowed, refresh::verified_again, required};
use crate::{
    config::OAuthCompatibility,
    model::{client::Client, clock},
    oauth::{
        Code, Error, State, issue,
        opaque::{self, Kind},
    },
    store::device::{Pace, Poll},
};

pub async fn exchange(state: &State, client: &Client, request: &Request) -> Result<Issued, Error> {
    let unverified = required(request.device_code.as_ref(), "device_code")?;
    let unknown = || invalid_grant("Unknown device code").or_as_replaced(StatusCode::NOT_FOUND, "Not Found");
    let digest = opaque::presented(Kind::DeviceCode, unverified).ok_or_else(unknown)?;
    let now = clock::now_micros();
    let pace = match state.settings.compatibility {
        OAuthCompatibility::Standard => Pace::Lengthen,
        // Its clients go on polling at the same interval, and would be told to slow down for ever.
        OAuthCompatibility::AuthGateway => Pace::Keep,
    };
    let granted = match state.store.poll_device(&digest, &client.id, pace, now).await? {
        Poll::Unknown => return Err(unknown()),
        Poll::AnotherClients => return Err(another_clients()),
        Poll::Expired => return Err(Error::oauth(Code::ExpiredToken, "The device code has expired")),
        Poll::Denied => return Err(Error::oauth(Code::AccessDenied, "The user said no")),
        Poll::Pending => return Err(Error::oauth(Code::AuthorizationPending, "The user has not signed yet")),
        Poll::TooSoon => return Err(Error::oauth(Code::SlowDown, "The device asks too often")),
        Poll::Approved(grant) => *grant,
    };
    let (token, kept) = issue::refresh_token(state, &granted)?;
    let grant = narrowed(state, verified_again(state, granted).await?, request)?;
    if !state.store.redeem_device(&digest, &kept, now).await? {
        return Err(unknown());
    }
    let answer = issue::answer(state, client, &grant, &token, None)?;
    Ok(Issued { answer, grant })
}
