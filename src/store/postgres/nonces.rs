//! Signed requests that have been used.

use super::Database;
use crate::{
    model::nonce::Nonce,
    store::{Result, to_time},
};

/// One statement, so that of many gateways at the same moment one inserts the row, and the others find it.
pub async fn insert(database: &Database, nonce: &Nonce) -> Result<bool> {
    let done = sqlx::query!(
        "insert into request_nonces (id, ends_at) values ($1, $2) on conflict do nothing",
        nonce.id.as_slice(),
        to_time(nonce.until_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        delete from request_nonces
         where id in (
               select id from request_nonces where ends_at < $1 order by ends_at limit $2 for update skip locked)
        "#,
        to_time(before_micros),
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected())
}
