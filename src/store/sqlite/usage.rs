//! Usage: written in batches, read by people.

use serde_json::json;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;

use super::{Database, joined, json_list};
use crate::{
    model::{clock, credits::Credits},
    store::{
        Appended, GroupBy, Result, UsageFilter, UsageRow, UsageSum,
        row::{Columns, source_columns},
        without_nul,
    },
    usage::UsageEvent,
};

/// Selects [`Columns`] with the rest of the statement given.
pub(super) fn select_usage(rest: &'static str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "select event_id, occurred_at, recorded_at, request_id, route, listener,
                service, plan, holder, user_id, owner, endpoint, method, status, upstream_status, reported, charged,
                source, contract, duration_micros, open, burned_at, burn
           from usage {rest}"
    ))
}

pub async fn append(database: &Database, events: &[UsageEvent]) -> Result<Appended> {
    let mut transaction = database.write.begin_with("begin immediate").await?;
    let inserted = insert(&mut transaction, events).await?;
    if !inserted.is_empty() {
        let list = json_list(&inserted);
        burn_local(&mut transaction, &list).await?;
        if database.reports {
            queue_reports(&mut transaction, &list).await?;
        }
    }
    transaction.commit().await?;
    Ok(Appended::of(events.len(), inserted.len()))
}

/// Inserts what is not there yet, and says which that was. Local charges are burned by the same transaction, hence
/// marked at once: the constraint `usage_local_is_burned` wants it so.
async fn insert(connection: &mut SqliteConnection, events: &[UsageEvent]) -> Result<Vec<String>> {
    let events: Vec<_> = events
        .iter()
        .map(|event| {
            let (source, contract) = source_columns(&event.source);
            json!({
                "event_id": event.event_id.to_string(),
                "occurred_at": event.at_micros,
                "request_id": without_nul(&event.request_id),
                "route": without_nul(&event.route),
                "listener": event.listener.as_deref().map(without_nul),
                "service": event.service.to_string(),
                "plan": event.plan.map(|plan| plan.to_string()),
                "holder": event.holder.map(|holder| holder.to_string()),
                "user_id": without_nul(&event.user_id),
                "owner": without_nul(&event.owner),
                "endpoint": without_nul(&event.endpoint),
                "method": without_nul(&event.method),
                "status": event.status,
                "upstream_status": event.upstream_status,
                "reported": event.reported.map(Credits::to_i64),
                "charged": event.charged.to_i64(),
                "source": source,
                "contract": contract,
                "duration_micros": i64::try_from(event.duration_micros).unwrap_or(i64::MAX),
                "open": u8::from(event.open),
            })
        })
        .collect();
    let inserted = sqlx::query_scalar(
        "
        insert into usage (event_id, occurred_at, recorded_at, request_id, route, listener, service, plan, holder, user_id, owner,
                           endpoint, method, status, upstream_status, reported, charged, source, contract,
                           duration_micros, open, burned_at, burn)
        select value ->> 'event_id', value ->> 'occurred_at', $2, value ->> 'request_id', value ->> 'route', value ->> 'listener',
               value ->> 'service', value ->> 'plan', value ->> 'holder', value ->> 'user_id', value ->> 'owner',
               value ->> 'endpoint', value ->> 'method', value ->> 'status', value ->> 'upstream_status',
               value ->> 'reported', value ->> 'charged', value ->> 'source', value ->> 'contract',
               value ->> 'duration_micros', value ->> 'open',
               case when value ->> 'source' = 'local' and value ->> 'charged' > 0 then $2 end,
               case when value ->> 'source' = 'local' and value ->> 'charged' > 0 then 'local' end
          from json_each($1)
         where true
            on conflict (event_id) do nothing
        returning event_id
        ",
    )
    .bind(serde_json::Value::from(events).to_string())
    .bind(clock::now_micros())
    .fetch_all(connection)
    .await?;
    Ok(inserted)
}

/// Takes what these events cost from the local balances. An account that was never granted anything gets a debt, for
/// what was served is charged.
async fn burn_local(connection: &mut SqliteConnection, events: &str) -> Result<()> {
    sqlx::query(
        "
        insert into credit_balance (plan, holder, balance, updated_at)
        select plan, holder, -sum(charged), $2
          from usage
         where event_id in (select value from json_each($1)) and source = 'local' and charged > 0
         group by plan, holder
            on conflict (plan, holder) do update
           set balance = credit_balance.balance + excluded.balance, updated_at = excluded.updated_at
        ",
    )
    .bind(events)
    .bind(clock::now_micros())
    .execute(connection)
    .await?;
    Ok(())
}

async fn queue_reports(connection: &mut SqliteConnection, events: &str) -> Result<()> {
    sqlx::query(
        "
        insert into usage_report (event_id, due_at)
        select event_id, occurred_at
          from usage
         where event_id in (select value from json_each($1)) and status between 200 and 299 and holder is not null and not open
            on conflict (event_id) do nothing
        ",
    )
    .bind(events)
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn list(database: &Database, filter: &UsageFilter, limit: u32) -> Result<Vec<UsageRow>> {
    let rows: Vec<Columns> = sqlx::query_as(select_usage(
        "
         where ($1 is null or occurred_at >= $1) and ($2 is null or occurred_at < $2)
           and ($3 is null or holder = $3) and ($4 is null or plan = $4)
           and ($5 is null or service = $5) and ($6 is null or route = $6)
         order by occurred_at desc, event_id desc
         limit $7
        ",
    ))
    .bind(filter.since_micros)
    .bind(filter.until_micros)
    .bind(filter.holder.map(|holder| holder.to_string()))
    .bind(filter.plan.map(|plan| plan.to_string()))
    .bind(filter.service.map(|service| service.to_string()))
    .bind(filter.route.as_deref())
    .bind(limit)
    .fetch_all(&database.read)
    .await?;
    rows.into_iter().map(UsageRow::try_from).collect()
}

pub async fn show(database: &Database, id: &str) -> Result<Vec<UsageRow>> {
    let rows: Vec<Columns> = sqlx::query_as(select_usage(
        "
         where event_id = $1 or request_id = $2
         order by occurred_at desc, event_id desc
         limit 100
        ",
    ))
    .bind(Uuid::try_parse(id).ok().map(|id| id.to_string()))
    .bind(without_nul(id).into_owned())
    .fetch_all(&database.read)
    .await?;
    rows.into_iter().map(UsageRow::try_from).collect()
}

pub async fn sum(database: &Database, by: GroupBy, filter: &UsageFilter) -> Result<Vec<UsageSum>> {
    let rows = sqlx::query(
        "
        select coalesce(case $1 when 'holder' then holder when 'plan' then plan when 'service' then service
                                when 'route' then route else strftime('%Y-%m-%d', occurred_at / 1000000, 'unixepoch') end, '') as key,
               count(*) as events,
               sum(charged >> 32) as charged_high, sum(charged & 4294967295) as charged_low,
               coalesce(sum(charged >> 32) filter (where burned_at is null), 0) as unburned_high,
               coalesce(sum(charged & 4294967295) filter (where burned_at is null), 0) as unburned_low
          from usage
         where ($2 is null or occurred_at >= $2) and ($3 is null or occurred_at < $3)
           and ($4 is null or holder = $4) and ($5 is null or plan = $5)
           and ($6 is null or service = $6) and ($7 is null or route = $7)
         group by 1
        ",
    )
    .bind(by.as_str())
    .bind(filter.since_micros)
    .bind(filter.until_micros)
    .bind(filter.holder.map(|holder| holder.to_string()))
    .bind(filter.plan.map(|plan| plan.to_string()))
    .bind(filter.service.map(|service| service.to_string()))
    .bind(filter.route.as_deref())
    .fetch_all(&database.read)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(UsageSum {
                key: row.try_get("key")?,
                events: u64::try_from(row.try_get::<i64, _>("events")?).unwrap_or(0),
                charged: joined(row.try_get("charged_high")?, row.try_get("charged_low")?),
                unburned: joined(row.try_get("unburned_high")?, row.try_get("unburned_low")?),
            })
        })
        .collect()
}

pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let deleted = sqlx::query(
        "
        delete from usage
         where event_id in (
               select event_id
                 from usage
                where occurred_at < $1 and (burned_at is not null or charged = 0)
                  and not exists (select 1 from usage_report where usage_report.event_id = usage.event_id and due_at is not null)
                order by occurred_at
                limit $2)
        ",
    )
    .bind(before_micros)
    .bind(limit)
    .execute(&database.write)
    .await?;
    Ok(deleted.rows_affected())
}
