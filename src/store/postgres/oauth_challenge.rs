//! Messages that wallets are asked to sign.

use super::Database;
use crate::store::{
    Result, StoreError,
    challenge::{Challenge, Digest, Flow},
    row::digest,
    to_time,
};

pub async fn insert(database: &Database, message: &Digest, challenge: &Challenge) -> Result<()> {
    sqlx::query!(
        "insert into oauth_challenge (digest, flow, binding, account, scope, expires_at) values ($1, $2, $3, $4, $5, $6)",
        message.as_slice(),
        challenge.flow.as_str(),
        challenge.binding.as_ref().map(Digest::as_slice),
        challenge.account,
        challenge.scope,
        to_time(challenge.expires_at_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(())
}

pub async fn consume(database: &Database, message: &Digest, now_micros: i64) -> Result<Option<Challenge>> {
    let row = sqlx::query!(
        r#"
        delete from oauth_challenge
         where digest = $1 and expires_at > $2
        returning flow, binding, account, scope, (extract(epoch from expires_at) * 1000000)::bigint as "expires_at!"
        "#,
        message.as_slice(),
        to_time(now_micros),
    )
    .fetch_optional(&database.pool)
    .await?;
    row.map(|row| {
        Ok(Challenge {
            flow: Flow::from_word(&row.flow)
                .ok_or_else(|| StoreError::Unreadable { table: "oauth_challenge", error: row.flow })?,
            binding: row.binding.as_deref().map(|bytes| digest("oauth_challenge", bytes)).transpose()?,
            account: row.account,
            scope: row.scope,
            expires_at_micros: row.expires_at,
        })
    })
    .transpose()
}

/// Removes what has expired; at most `limit` rows.
pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        delete from oauth_challenge
         where digest in (select digest from oauth_challenge where expires_at <= $1 limit $2 for update skip locked)
        "#,
        to_time(now_micros),
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected())
}
