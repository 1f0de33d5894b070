//! The queue of events to be told to the backend.

use sqlx::Row;
use uuid::Uuid;

use super::{Database, json_list, usage::select_usage};
use crate::store::{ReportJob, Result, UsageRow, row::Columns};

/// Two statements: the first claims, and commits; what it claimed is then ours until the lease ends, so reading it
/// needs no lock.
pub async fn claim(database: &Database, limit: u32, now_micros: i64, until_micros: i64) -> Result<Vec<ReportJob>> {
    let claimed: Vec<(String, i64)> = sqlx::query(
        "
        update usage_report
           set due_at = $3, attempts = attempts + 1
         where event_id in (
               select event_id from usage_report where due_at <= $2 order by due_at limit $1)
        returning event_id, attempts
        ",
    )
    .bind(limit)
    .bind(now_micros)
    .bind(until_micros)
    .fetch_all(&database.write)
    .await?
    .into_iter()
    .map(|row| Ok((row.try_get("event_id")?, row.try_get("attempts")?)))
    .collect::<Result<_>>()?;
    let ids: Vec<_> = claimed.iter().map(|(id, _)| id.clone()).collect();
    let rows: Vec<Columns> = sqlx::query_as(select_usage(
        "where event_id in (select value from json_each($1)) order by occurred_at, event_id",
    ))
    .bind(json_list(&ids))
    .fetch_all(&database.read)
    .await?;
    rows.into_iter()
        .map(|row| {
            let attempts = claimed.iter().find(|(id, _)| *id == row.event_id).map_or(1, |(_, attempts)| *attempts);
            Ok(ReportJob {
                event: UsageRow::try_from(row)?.event,
                attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            })
        })
        .collect()
}

pub async fn done(database: &Database, events: &[Uuid]) -> Result<()> {
    sqlx::query("delete from usage_report where event_id in (select value from json_each($1))")
        .bind(list(events))
        .execute(&database.write)
        .await?;
    Ok(())
}

pub async fn failed(database: &Database, events: &[Uuid], retry_at_micros: Option<i64>, error: &str) -> Result<()> {
    sqlx::query("update usage_report set due_at = $2, error = $3 where event_id in (select value from json_each($1))")
        .bind(list(events))
        .bind(retry_at_micros)
        .bind(error)
        .execute(&database.write)
        .await?;
    Ok(())
}

fn list(events: &[Uuid]) -> String {
    json_list(&events.iter().map(Uuid::to_string).collect::<Vec<_>>())
}
