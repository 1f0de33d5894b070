//! Authorization requests that wait for a signature.

use super::{Database, oauth_grant};
use crate::store::{
    Result,
    grant::{Digest, Grant, NewCode, Session},
    row::digest,
    to_time,
};

pub async fn insert(database: &Database, id: &Digest, session: &Session) -> Result<()> {
    sqlx::query!(
        r#"
        insert into oauth_session
               (digest, browser, client_id, redirect_uri, scope, resource, state, nonce, code_challenge, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        id.as_slice(),
        session.browser.as_slice(),
        session.client_id,
        session.redirect_uri,
        session.scope,
        session.resource,
        session.state,
        session.nonce,
        session.code_challenge,
        to_time(session.expires_at_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(())
}

pub async fn find(database: &Database, id: &Digest, now_micros: i64) -> Result<Option<Session>> {
    let row = sqlx::query!(
        r#"
        select browser, client_id, redirect_uri, scope, resource, state, nonce, code_challenge,
               (extract(epoch from expires_at) * 1000000)::bigint as "expires_at!"
          from oauth_session
         where digest = $1 and expires_at > $2
        "#,
        id.as_slice(),
        to_time(now_micros),
    )
    .fetch_optional(&database.pool)
    .await?;
    row.map(|row| {
        Ok(Session {
            browser: digest("oauth_session", &row.browser)?,
            client_id: row.client_id,
            redirect_uri: row.redirect_uri,
            scope: row.scope,
            resource: row.resource,
            state: row.state,
            nonce: row.nonce,
            code_challenge: row.code_challenge,
            expires_at_micros: row.expires_at,
        })
    })
    .transpose()
}

pub async fn end(database: &Database, id: &Digest, now_micros: i64) -> Result<bool> {
    let done = sqlx::query!(
        "delete from oauth_session where digest = $1 and expires_at > $2",
        id.as_slice(),
        to_time(now_micros)
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn approve(database: &Database, id: &Digest, grant: &Grant, code: &NewCode, now_micros: i64) -> Result<bool> {
    let mut transaction = database.pool.begin().await?;
    let ended = sqlx::query!(
        r#"
        delete from oauth_session where digest = $1 and expires_at > $2
        returning redirect_uri, code_challenge
        "#,
        id.as_slice(),
        to_time(now_micros)
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(session) = ended else { return Ok(false) };
    oauth_grant::insert(&mut transaction, grant).await?;
    sqlx::query!(
        "insert into oauth_code (digest, grant_id, redirect_uri, code_challenge, expires_at) values ($1, $2, $3, $4, $5)",
        code.digest.as_slice(),
        grant.id,
        session.redirect_uri,
        session.code_challenge,
        to_time(code.expires_at_micros),
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Removes what has expired; at most `limit` rows.
pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        delete from oauth_session
         where digest in (select digest from oauth_session where expires_at <= $1 limit $2 for update skip locked)
        "#,
        to_time(now_micros),
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected())
}
