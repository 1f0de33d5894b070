//! Events that can never be written.

use super::Database;
use crate::store::{Rejected, Result};

pub async fn insert(database: &Database, raw: &str, error: &str) -> Result<()> {
    sqlx::query!("insert into usage_rejected (raw, error) values ($1, $2) on conflict do nothing", raw, error)
        .execute(&database.pool)
        .await?;
    Ok(())
}

pub async fn list(database: &Database, limit: u32) -> Result<Vec<Rejected>> {
    let rows = sqlx::query_as!(
        Rejected,
        r#"
        select id, raw, error, (extract(epoch from rejected_at) * 1000000)::bigint as "at_micros!"
          from usage_rejected
         order by id desc
         limit $1
        "#,
        i64::from(limit),
    )
    .fetch_all(&database.pool)
    .await?;
    Ok(rows)
}
