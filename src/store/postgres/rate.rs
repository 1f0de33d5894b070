//! Rate limits that several gateways share.

use super::Database;
use crate::store::{Result, to_time};

pub async fn take(database: &Database, key: &str, window_micros: i64, units: i64) -> Result<i64> {
    let taken = sqlx::query_scalar!(
        r#"
        insert into rate (key, window_start, taken) values ($1, $2, $3)
            on conflict (key, window_start) do update set taken = rate.taken + excluded.taken
        returning taken
        "#,
        key,
        to_time(window_micros),
        units,
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(taken)
}

pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let deleted = sqlx::query!(
        r#"
        delete from rate
         where ctid = any (array(select ctid from rate where window_start < $1 limit $2 for update skip locked))
        "#,
        to_time(before_micros),
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(deleted.rows_affected())
}
