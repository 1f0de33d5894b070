//! The queue of events to be told to the backend.

use sqlx::Row;
use uuid::Uuid;

use super::{Database, json_list};
use crate::{
    model::usage::UsageEvent,
    store::{ReportJob, Result, StoreError},
};

/// What is claimed is the claimant's until the lease ends.
pub async fn claim(database: &Database, limit: u32, now_micros: i64, until_micros: i64) -> Result<Vec<ReportJob>> {
    let claimed = sqlx::query(
        "
        update usage_report_queue
           set due_at = $3, attempts = attempts + 1
         where event_id in (
               select event_id from usage_report_queue where due_at <= $2 order by due_at limit $1)
        returning record, attempts
        ",
    )
    .bind(limit)
    .bind(now_micros)
    .bind(until_micros)
    .fetch_all(&database.write)
    .await?;
    let mut jobs: Vec<_> = claimed
        .iter()
        .map(|row| {
            let event = UsageEvent::decode(row.try_get("record")?)
                .map_err(|error| StoreError::Unreadable { table: "usage_report_queue", error: error.to_string() })?;
            Ok(ReportJob { event, attempts: row.try_get("attempts")? })
        })
        .collect::<Result<_>>()?;
    jobs.sort_by_key(|job: &ReportJob| (job.event.at_micros, job.event.event_id));
    Ok(jobs)
}

pub async fn done(database: &Database, events: &[Uuid]) -> Result<()> {
    sqlx::query("delete from usage_report_queue where event_id in (select value from json_each($1))")
        .bind(list(events))
        .execute(&database.write)
        .await?;
    Ok(())
}

pub async fn failed(database: &Database, events: &[Uuid], retry_at_micros: Option<i64>, error: &str) -> Result<()> {
    sqlx::query(
        "update usage_report_queue set due_at = $2, error = $3 where event_id in (select value from json_each($1))",
    )
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
