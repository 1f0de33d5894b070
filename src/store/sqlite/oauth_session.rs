//! Authorization requests that wait for a signature.

use sqlx::Row;

use super::{Database, oauth_grant};
use crate::store::{
    Result,
    grant::{Digest, Grant, NewCode, Session},
    row::digest,
};

pub async fn insert(database: &Database, id: &Digest, session: &Session) -> Result<()> {
    sqlx::query(
        "
        insert into oauth_session
               (digest, browser, client_id, redirect_uri, scope, resource, state, nonce, code_challenge, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ",
    )
    .bind(id.as_slice())
    .bind(session.browser.as_slice())
    .bind(&session.client_id)
    .bind(&session.redirect_uri)
    .bind(&session.scope)
    .bind(&session.resource)
    .bind(&session.state)
    .bind(&session.nonce)
    .bind(&session.code_challenge)
    .bind(session.expires_at_micros)
    .execute(&database.write)
    .await?;
    Ok(())
}

pub async fn find(database: &Database, id: &Digest, now_micros: i64) -> Result<Option<Session>> {
    let row = sqlx::query(
        "
        select browser, client_id, redirect_uri, scope, resource, state, nonce, code_challenge, expires_at
          from oauth_session
         where digest = $1 and expires_at > $2
        ",
    )
    .bind(id.as_slice())
    .bind(now_micros)
    .fetch_optional(&database.read)
    .await?;
    row.map(|row| {
        Ok(Session {
            browser: digest("oauth_session", row.try_get("browser")?)?,
            client_id: row.try_get("client_id")?,
            redirect_uri: row.try_get("redirect_uri")?,
            scope: row.try_get("scope")?,
            resource: row.try_get("resource")?,
            state: row.try_get("state")?,
            nonce: row.try_get("nonce")?,
            code_challenge: row.try_get("code_challenge")?,
            expires_at_micros: row.try_get("expires_at")?,
        })
    })
    .transpose()
}

pub async fn end(database: &Database, id: &Digest, now_micros: i64) -> Result<bool> {
    let done = sqlx::query("delete from oauth_session where digest = $1 and expires_at > $2")
        .bind(id.as_slice())
        .bind(now_micros)
        .execute(&database.write)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn approve(database: &Database, id: &Digest, grant: &Grant, code: &NewCode, now_micros: i64) -> Result<bool> {
    let mut transaction = database.write.begin().await?;
    let ended = sqlx::query(
        "
        delete from oauth_session where digest = $1 and expires_at > $2
        returning redirect_uri, code_challenge
        ",
    )
    .bind(id.as_slice())
    .bind(now_micros)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(session) = ended else { return Ok(false) };
    oauth_grant::insert(&mut transaction, grant).await?;
    sqlx::query(
        "insert into oauth_code (digest, grant_id, redirect_uri, code_challenge, expires_at) values ($1, $2, $3, $4, $5)",
    )
    .bind(code.digest.as_slice())
    .bind(grant.id.to_string())
    .bind(session.try_get::<String, _>("redirect_uri")?)
    .bind(session.try_get::<Option<String>, _>("code_challenge")?)
    .bind(code.expires_at_micros)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Removes what has expired; at most `limit` rows.
pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query(
        "
        delete from oauth_session
         where digest in (select digest from oauth_session where expires_at <= $1 limit $2)
        ",
    )
    .bind(now_micros)
    .bind(limit)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected())
}
