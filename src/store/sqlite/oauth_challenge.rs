//! Messages that wallets are asked to sign.

use sqlx::Row;

use super::Database;
use crate::store::{
    Result, StoreError,
    challenge::{Challenge, Digest, Flow},
    row::digest,
};

pub async fn insert(database: &Database, message: &Digest, challenge: &Challenge) -> Result<()> {
    sqlx::query(
        "insert into oauth_challenge (digest, flow, binding, account, scope, expires_at) values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(message.as_slice())
    .bind(challenge.flow.as_str())
    .bind(challenge.binding.as_ref().map(Digest::as_slice))
    .bind(&challenge.account)
    .bind(&challenge.scope)
    .bind(challenge.expires_at_micros)
    .execute(&database.write)
    .await?;
    Ok(())
}

pub async fn consume(database: &Database, message: &Digest, now_micros: i64) -> Result<Option<Challenge>> {
    let row = sqlx::query(
        "
        delete from oauth_challenge
         where digest = $1 and expires_at > $2
        returning flow, binding, account, scope, expires_at
        ",
    )
    .bind(message.as_slice())
    .bind(now_micros)
    .fetch_optional(&database.write)
    .await?;
    row.map(|row| {
        let flow: &str = row.try_get("flow")?;
        Ok(Challenge {
            flow: Flow::from_word(flow)
                .ok_or_else(|| StoreError::Unreadable { table: "oauth_challenge", error: flow.to_owned() })?,
            binding: row
                .try_get::<Option<&[u8]>, _>("binding")?
                .map(|bytes| digest("oauth_challenge", bytes))
                .transpose()?,
            account: row.try_get("account")?,
            scope: row.try_get("scope")?,
            expires_at_micros: row.try_get("expires_at")?,
        })
    })
    .transpose()
}

/// Removes what has expired; at most `limit` rows.
pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query(
        "
        delete from oauth_challenge
         where digest in (select digest from oauth_challenge where expires_at <= $1 limit $2)
        ",
    )
    .bind(now_micros)
    .bind(limit)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected())
}
