//! Events that can never be written.

use sqlx::Row;

use super::Database;
use crate::{
    model::clock,
    store::{Rejected, Result},
};

pub async fn insert(database: &Database, raw: &str, error: &str) -> Result<()> {
    sqlx::query("insert into usage_rejected (raw, error, rejected_at) values ($1, $2, $3) on conflict do nothing")
        .bind(raw)
        .bind(error)
        .bind(clock::now_micros())
        .execute(&database.write)
        .await?;
    Ok(())
}

pub async fn list(database: &Database, limit: u32) -> Result<Vec<Rejected>> {
    let rows = sqlx::query("select id, raw, error, rejected_at from usage_rejected order by id desc limit $1")
        .bind(limit)
        .fetch_all(&database.read)
        .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Rejected {
                id: row.try_get("id")?,
                raw: row.try_get("raw")?,
                error: row.try_get("error")?,
                at_micros: row.try_get("rejected_at")?,
            })
        })
        .collect()
}
