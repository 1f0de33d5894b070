//! The queue of events to be told to the backend.

use uuid::Uuid;

use super::{Database, usage::select_usage};
use crate::store::{ReportJob, Result, UsageRow, row::Columns, to_time};

/// Two statements: the first claims, and commits; what it claimed is then ours until the lease ends, so reading it
/// needs no lock.
pub async fn claim(database: &Database, limit: u32, now_micros: i64, until_micros: i64) -> Result<Vec<ReportJob>> {
    let claimed = sqlx::query!(
        r#"
        update usage_report
           set due_at = $3, attempts = attempts + 1
         where event_id in (
               select event_id from usage_report where due_at <= $2 order by due_at limit $1 for update skip locked)
        returning event_id, attempts
        "#,
        i64::from(limit),
        to_time(now_micros),
        to_time(until_micros),
    )
    .fetch_all(&database.pool)
    .await?;
    let ids: Vec<_> = claimed.iter().map(|row| row.event_id).collect();
    let rows = select_usage!("where event_id = any($1) order by occurred_at, event_id", &ids)
        .fetch_all(&database.pool)
        .await?;
    rows.into_iter()
        .map(|row| {
            let event = UsageRow::try_from(row)?.event;
            let attempts = claimed.iter().find(|row| row.event_id == event.event_id).map_or(1, |row| row.attempts);
            Ok(ReportJob { event, attempts: u32::try_from(attempts).unwrap_or(u32::MAX) })
        })
        .collect()
}

pub async fn done(database: &Database, events: &[Uuid]) -> Result<()> {
    sqlx::query!("delete from usage_report where event_id = any($1)", events).execute(&database.pool).await?;
    Ok(())
}

pub async fn failed(database: &Database, events: &[Uuid], retry_at_micros: Option<i64>, error: &str) -> Result<()> {
    sqlx::query!(
        "update usage_report set due_at = $2, error = $3 where event_id = any($1)",
        events,
        retry_at_micros.map(to_time),
        error,
    )
    .execute(&database.pool)
    .await?;
    Ok(())
}
