//! Makes batches of the rows in which earlier versions kept usage.

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{Sums, batch::owed, insert, owe};
use crate::{
    model::usage::UsageEvent,
    store::{Result, UsageRow, row::Columns, sqlite::Database},
};

/// Rows a transaction.
const ROWS: u32 = 5000;

/// Converts what there is. May be interrupted at any point.
pub async fn run(database: &Database) -> Result<()> {
    let mut converted = 0_usize;
    // Asked without a lock: nearly always there is nothing to do.
    while sqlx::query_scalar("select exists (select 1 from usage)").fetch_one(&database.read).await? {
        let mut transaction = database.write.begin_with("begin immediate").await?;
        let rows = some(&mut transaction).await?;
        transaction.commit().await?;
        converted = converted.saturating_add(rows);
    }
    if converted > 0 {
        tracing::info!(events = converted, "usage that an earlier version recorded is now kept in batches");
    }
    Ok(())
}

/// Converts some rows; says how many.
async fn some(connection: &mut SqliteConnection) -> Result<usize> {
    let columns: Vec<Columns> = sqlx::query_as(AssertSqlSafe(format!(
        "
        select event_id, occurred_at, recorded_at, request_id, route, listener,
               service, plan, holder, user_id, owner, endpoint, method, status, upstream_status, reported, charged,
               source, contract, duration_micros, open, burned_at, burn
          from usage
         order by event_id
         limit {ROWS}
        "
    )))
    .fetch_all(&mut *connection)
    .await?;
    let rows: Vec<UsageRow> = columns.into_iter().map(UsageRow::try_from).collect::<Result<_>>()?;
    for rows in rows.chunk_by(|one, other| one.recorded_at_micros == other.recorded_at_micros) {
        let events: Vec<&UsageEvent> = rows.iter().map(|row| &row.event).collect();
        insert(connection, &events, rows.first().map_or(0, |row| row.recorded_at_micros)).await?;
        // Local charges were burned when they were recorded.
        let unburned: Vec<&UsageEvent> = events.into_iter().filter(|event| owed(event)).collect();
        owe(connection, &Sums::of(&unburned)?.chain).await?;
    }
    for row in &rows {
        let mut record = Vec::new();
        row.event.encode(&mut record);
        sqlx::query(
            "
            insert into usage_report_queue (event_id, record, due_at, attempts, error)
            select event_id, $2, due_at, attempts, error
              from usage_report
             where event_id = $1
            ",
        )
        .bind(row.event.event_id.to_string())
        .bind(record)
        .execute(&mut *connection)
        .await?;
    }
    if let Some(last) = rows.last() {
        let last = last.event.event_id.to_string();
        for statement in ["delete from usage_report where event_id <= $1", "delete from usage where event_id <= $1"] {
            sqlx::query(statement).bind(&last).execute(&mut *connection).await?;
        }
    }
    Ok(rows.len())
}
