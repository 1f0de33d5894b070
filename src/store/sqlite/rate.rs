//! Rate limits.

use super::Database;
use crate::store::Result;

pub async fn take(database: &Database, key: &str, window_micros: i64, units: i64) -> Result<i64> {
    let taken = sqlx::query_scalar(
        "
        insert into rate (key, window_start, taken) values ($1, $2, $3)
            on conflict (key, window_start) do update set taken = rate.taken + excluded.taken
        returning taken
        ",
    )
    .bind(key)
    .bind(window_micros)
    .bind(units)
    .fetch_one(&database.write)
    .await?;
    Ok(taken)
}

pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let deleted = sqlx::query(
        "
        delete from rate
         where (key, window_start) in (select key, window_start from rate where window_start < $1 limit $2)
        ",
    )
    .bind(before_micros)
    .bind(limit)
    .execute(&database.write)
    .await?;
    Ok(deleted.rows_affected())
}
