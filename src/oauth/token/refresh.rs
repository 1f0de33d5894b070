//! A refresh token for the next one (RFC 6749 section 6).
//!
//! Each is good for one use, and all that came from one sign-in are a family. A second use means that two have it, so the
//! family ends (RFC 9700 section 4.14.2), except that an answer may have been lost on its way: then the client has only
//! the old token, asks again, and is forgiven once. Two uses at the same moment are neither: the second is refused, and
//! nothing else happens, because one of them has the answer. All of this holds for the replaced server's tokens too.

use super::{Issued, Request, another_clients, invalid_grant, narrowed, required, revoke};
use crate::{
    model::{client::Client, clock},
    oauth::{Error, State, account::Account, facts::Acquaintance, issue, refresh_token, sign_in},
    store::grant::{Grant, RefreshToken, SignerKind},
};

/// Who lost an answer has waited for it; who asks again sooner has sent two requests at once.
const AT_ONCE_MICROS: i64 = 2_000_000;

pub async fn exchange(state: &State, client: &Client, request: &Request) -> Result<Issued, Error> {
    let unverified = required(request.refresh_token.as_ref(), "refresh_token")?;
    let unknown = || invalid_grant("Invalid or expired refresh token");
    let presented = refresh_token::find(state, unverified).await?.ok_or_else(unknown)?;
    let (digest, old) = (presented.digest, presented.token);
    if old.grant.client_id != client.id {
        return Err(another_clients());
    }
    let now = clock::now_micros();
    if old.revoked {
        return Err(revoked());
    }
    if old.expires_at_micros <= now || old.grant.expires_at_micros <= now {
        return Err(unknown());
    }
    let forgive = used_again(state, &old, now).await?;
    let granted = verified_again(state, old.grant.clone()).await?;
    if presented.taken_over {
        state.store.complete_grant(granted.id, &granted.signer, granted.auth_time).await?;
    }
    let grant = narrowed(state, granted, request)?;
    let (token, kept) = issue::refresh_token(state, &old.grant)?;
    let exchanged = match forgive {
        None => state.store.rotate_refresh_token(&digest, &kept, now).await?,
        Some(since) => state.store.forgive_refresh_token(&digest, &kept, since, now).await?,
    };
    if !exchanged {
        if forgive.is_some() {
            revoke(state, &old.grant, "a refresh token was used twice").await?;
        }
        return Err(revoked());
    }
    let answer = issue::answer(state, client, &grant, &token, None)?;
    Ok(Issued { answer, grant })
}

/// None for the first use; from when on a second one is forgiven; an error for one that is not.
async fn used_again(state: &State, old: &RefreshToken, now: i64) -> Result<Option<i64>, Error> {
    let Some(used_at) = old.used_at_micros else { return Ok(None) };
    if now < used_at.saturating_add(AT_ONCE_MICROS) {
        return Err(revoked());
    }
    if now > sign_in::after(used_at, state.settings.lifetimes.refresh_retry) {
        revoke(state, &old.grant, "a refresh token was used twice").await?;
        return Err(revoked());
    }
    Ok(Some(used_at))
}

/// What was true of a Bittensor wallet must still be. Of an Ethereum wallet nothing is known but that it signed.
pub async fn verified_again(state: &State, grant: Grant) -> Result<Grant, Error> {
    if grant.signer.kind == SignerKind::Evm {
        return Ok(grant);
    }
    let account = Account::parse(&grant.signer.account)?;
    let signer = sign_in::checked(state, account, &grant.scope, Acquaintance::Known).await?;
    Ok(Grant { signer, ..grant })
}

fn revoked() -> Error {
    invalid_grant("The refresh token has been revoked or used")
}
