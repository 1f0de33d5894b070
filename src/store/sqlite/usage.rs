//! Usage: written in batches, read by people.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, SqliteConnection};
use uuid::Uuid;

use super::{Database, joined, json_list};
use crate::{
    model::{
        address::EvmAddress,
        clock,
        credits::{CreditSource, Credits},
        did::Did,
    },
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

/// Nearly always a batch holds nothing that is there already, and then nobody has to be asked which events were new. The
/// other way takes four times as long per event, most of it for reading JSON, and sorts out the rest.
pub async fn append(database: &Database, events: &[UsageEvent]) -> Result<Appended> {
    let mut transaction = database.write.begin_with("begin immediate").await?;
    if let Some(burns) = local_burns(events)
        && insert_new(&mut transaction, events).await?
    {
        burn(&mut transaction, &burns).await?;
        if database.reports {
            let ids: Vec<_> = events.iter().map(|event| event.event_id.to_string()).collect();
            queue_reports(&mut transaction, &json_list(&ids)).await?;
        }
        transaction.commit().await?;
        return Ok(Appended::of(events.len(), events.len()));
    }
    transaction.rollback().await?;

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

/// Rows per statement at the most. Few enough for the statements of all sizes to stay prepared.
const ROWS: usize = 64;

/// Inserts events of which none is there yet. False: one is, and the transaction must be rolled back.
async fn insert_new(connection: &mut SqliteConnection, events: &[UsageEvent]) -> Result<bool> {
    let recorded_at = clock::now_micros();
    let mut rest = events;
    while !rest.is_empty() {
        // Powers of two: seven statements, which stay prepared.
        let rows = ROWS.min(1 << rest.len().ilog2());
        let (now, later) = rest.split_at(rows);
        rest = later;
        let mut statement = QueryBuilder::new(
            "insert into usage (event_id, occurred_at, recorded_at, request_id, route, listener, service, plan, holder, user_id, owner,
                                endpoint, method, status, upstream_status, reported, charged, source, contract,
                                duration_micros, open, burned_at, burn) ",
        );
        statement.push_values(now, |mut row, event| {
            let (source, contract) = source_columns(&event.source);
            let burned = event.source == CreditSource::Local && event.charged > Credits::ZERO;
            row.push_bind(event.event_id.to_string())
                .push_bind(event.at_micros)
                .push_bind(recorded_at)
                .push_bind(without_nul(&event.request_id))
                .push_bind(without_nul(&event.route))
                .push_bind(event.listener.as_deref().map(without_nul))
                .push_bind(event.service.to_string())
                .push_bind(event.plan.map(|plan| plan.to_string()))
                .push_bind(event.holder.map(|holder| holder.to_string()))
                .push_bind(without_nul(&event.user_id))
                .push_bind(without_nul(&event.owner))
                .push_bind(without_nul(&event.endpoint))
                .push_bind(without_nul(&event.method))
                .push_bind(event.status)
                .push_bind(event.upstream_status)
                .push_bind(event.reported.map(Credits::to_i64))
                .push_bind(event.charged.to_i64())
                .push_bind(source)
                .push_bind(contract)
                .push_bind(i64::try_from(event.duration_micros).unwrap_or(i64::MAX))
                .push_bind(event.open)
                .push_bind(burned.then_some(recorded_at))
                .push_bind(burned.then_some("local"));
        });
        statement.push(" on conflict (event_id) do nothing");
        let inserted = statement.build().execute(&mut *connection).await?.rows_affected();
        if usize::try_from(inserted) != Ok(rows) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a batch takes from each local balance, by plan and holder. None: some sum does not fit, and the database shall
/// say of which events.
fn local_burns(events: &[UsageEvent]) -> Option<BTreeMap<(Did, EvmAddress), i64>> {
    let mut burns: BTreeMap<_, i64> = BTreeMap::new();
    for event in events.iter().filter(|event| event.source == CreditSource::Local && event.charged > Credits::ZERO) {
        // A charge that nobody pays is refused by a constraint of the table.
        let (Some(plan), Some(holder)) = (event.plan, event.holder) else { continue };
        let sum = burns.entry((plan, holder)).or_default();
        *sum = sum.checked_add(event.charged.to_i64())?;
    }
    Some(burns)
}

/// Takes the sums from the local balances. An account that was never granted anything gets a debt, for what was served
/// is charged.
async fn burn(connection: &mut SqliteConnection, burns: &BTreeMap<(Did, EvmAddress), i64>) -> Result<()> {
    if burns.is_empty() {
        return Ok(());
    }
    let burns: Vec<_> =
        burns.iter().map(|((plan, holder), sum)| json!([plan.to_string(), holder.to_string(), sum])).collect();
    sqlx::query(
        "
        insert into credit_balance (plan, holder, balance, updated_at)
        select value ->> 0, value ->> 1, -(value ->> 2), $2
          from json_each($1)
         where true
            on conflict (plan, holder) do update
           set balance = credit_balance.balance + excluded.balance, updated_at = excluded.updated_at
        ",
    )
    .bind(serde_json::Value::from(burns).to_string())
    .bind(clock::now_micros())
    .execute(connection)
    .await?;
    Ok(())
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

/// Takes what these events cost from the local balances, as [`burn`] does.
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
           and source = 'chain'
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
