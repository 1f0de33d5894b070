//! Usage: written in batches, read by people.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Database, access};
use crate::{
    model::{credits::Credits, usage::UsageEvent},
    store::{
        Appended, GroupBy, Result, UsageFilter, UsageRow, UsageSum,
        row::{Columns, source_columns},
        to_time, without_nul,
    },
};

/// Selects [`Columns`] with the rest of the statement given: the column list is long and the macro wants a literal.
macro_rules! select_usage {
    ($rest:tt $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            Columns,
            r#"
            select event_id::text as "event_id!", (extract(epoch from occurred_at) * 1000000)::bigint as "occurred_at!",
                   (extract(epoch from recorded_at) * 1000000)::bigint as "recorded_at!", request_id, route, listener,
                   service, plan, holder, user_id, owner, endpoint, method, status, upstream_status, reported, charged,
                   source, contract, duration_micros, open, (extract(epoch from burned_at) * 1000000)::bigint as burned_at, burn
              from usage
            "# + $rest,
            $($argument),*
        )
    };
}
pub(super) use select_usage;

pub async fn append(database: &Database, events: &[UsageEvent]) -> Result<Appended> {
    let mut transaction = database.pool.begin().await?;
    let inserted = insert(&mut transaction, events).await?;
    if !inserted.is_empty() {
        burn_local(&mut transaction, &inserted).await?;
        if database.reports {
            queue_reports(&mut transaction, &inserted).await?;
        }
        if database.access_tables {
            access::insert(&mut transaction, &inserted).await?;
        }
    }
    transaction.commit().await?;
    Ok(Appended::of(events.len(), inserted.len()))
}

/// Inserts what is not there yet, and says which that was.
///
/// In the order of the ids: two writers with the same events wait for each other instead of dead-locking. Local charges
/// are burned by the same transaction, hence marked at once: the constraint `usage_local_is_burned` wants it so.
async fn insert(connection: &mut PgConnection, events: &[UsageEvent]) -> Result<Vec<Uuid>> {
    let ids: Vec<_> = events.iter().map(|event| event.event_id).collect();
    let times: Vec<_> = events.iter().map(|event| to_time(event.at_micros)).collect();
    let request_ids: Vec<_> = events.iter().map(UsageEvent::request_id).collect();
    let request_ids: Vec<_> = request_ids.iter().map(|id| without_nul(id)).collect();
    let routes: Vec<_> = events.iter().map(|event| without_nul(&event.terms.route)).collect();
    let listeners: Vec<_> = events.iter().map(|event| event.terms.listener.as_deref().map(without_nul)).collect();
    let services: Vec<_> = events.iter().map(|event| event.terms.service.to_string()).collect();
    let plans: Vec<_> = events.iter().map(|event| event.terms.plan.map(|plan| plan.to_string())).collect();
    let holders: Vec<_> = events.iter().map(|event| event.terms.holder.map(|holder| holder.to_string())).collect();
    let user_ids: Vec<_> = events.iter().map(|event| without_nul(&event.terms.user_id)).collect();
    let owners: Vec<_> = events.iter().map(|event| without_nul(&event.terms.owner)).collect();
    let endpoints: Vec<_> = events.iter().map(|event| without_nul(&event.endpoint)).collect();
    let methods: Vec<_> = events.iter().map(|event| without_nul(&event.method)).collect();
    let statuses: Vec<_> = events.iter().map(|event| i32::from(event.status)).collect();
    let upstream_statuses: Vec<_> = events.iter().map(|event| event.upstream_status.map(i32::from)).collect();
    let reports: Vec<_> = events.iter().map(|event| event.reported.map(Credits::to_i64)).collect();
    let charges: Vec<_> = events.iter().map(|event| event.charged.to_i64()).collect();
    let (sources, contracts): (Vec<_>, Vec<_>) = events.iter().map(|event| source_columns(&event.terms.source)).unzip();
    let durations: Vec<_> =
        events.iter().map(|event| i64::try_from(event.duration_micros).unwrap_or(i64::MAX)).collect();
    let opens: Vec<_> = events.iter().map(|event| event.open).collect();
    let inserted = sqlx::query_scalar!(
        r#"
        insert into usage (event_id, occurred_at, request_id, route, listener, service, plan, holder, user_id, owner,
                           endpoint, method, status, upstream_status, reported, charged, source, contract,
                           duration_micros, open, burned_at, burn)
        select event_id, occurred_at, request_id, route, listener, service, plan, holder, user_id, owner,
               endpoint, method, status, upstream_status, reported, charged, source, contract,
               duration_micros, open,
               case when source = 'local' and charged > 0 then now() end,
               case when source = 'local' and charged > 0 then 'local' end
          from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                      $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::integer[], $14::integer[],
                      $15::bigint[], $16::bigint[], $17::text[], $18::text[], $19::bigint[], $20::boolean[])
               as event (event_id, occurred_at, request_id, route, listener, service, plan, holder, user_id, owner,
                         endpoint, method, status, upstream_status, reported, charged, source, contract,
                         duration_micros, open)
         order by event_id
            on conflict (event_id) do nothing
        returning event_id
        "#,
        &ids,
        &times,
        &request_ids as _,
        &routes as _,
        &listeners as _,
        &services,
        &plans as _,
        &holders as _,
        &user_ids as _,
        &owners as _,
        &endpoints as _,
        &methods as _,
        &statuses,
        &upstream_statuses as _,
        &reports as _,
        &charges,
        &sources as _,
        &contracts as _,
        &durations,
        &opens,
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted)
}

/// Takes what these events cost from the local balances. An account that was never granted anything gets a debt, for
/// what was served is charged. In the order of the accounts, so that two writers cannot dead-lock.
async fn burn_local(connection: &mut PgConnection, events: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        insert into credit_balance (plan, holder, balance)
        select plan, holder, -sum(charged)::bigint
          from usage
         where event_id = any($1) and source = 'local' and charged > 0
         group by plan, holder
         order by plan, holder
            on conflict (plan, holder) do update
           set balance = credit_balance.balance + excluded.balance, updated_at = now()
        "#,
        events,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Only what is paid on chain: the backend's burner would charge what our own ledger has charged already.
async fn queue_reports(connection: &mut PgConnection, events: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        insert into usage_report (event_id, due_at)
        select event_id, occurred_at
          from usage
         where event_id = any($1) and status between 200 and 299 and holder is not null and not open
           and source = 'chain'
            on conflict (event_id) do nothing
        "#,
        events,
    )
    .execute(connection)
    .await?;
    Ok(())
}

pub async fn list(database: &Database, filter: &UsageFilter, limit: u32) -> Result<Vec<UsageRow>> {
    let rows = select_usage!(
        r#"
         where ($1::timestamptz is null or occurred_at >= $1) and ($2::timestamptz is null or occurred_at < $2)
           and ($3::text is null or holder = $3) and ($4::text is null or plan = $4)
           and ($5::text is null or service = $5) and ($6::text is null or route = $6)
         order by occurred_at desc, event_id desc
         limit $7
        "#,
        filter.since_micros.map(to_time),
        filter.until_micros.map(to_time),
        filter.holder.map(|holder| holder.to_string()),
        filter.plan.map(|plan| plan.to_string()),
        filter.service.map(|service| service.to_string()),
        filter.route.as_deref(),
        i64::from(limit),
    )
    .fetch_all(&database.pool)
    .await?;
    rows.into_iter().map(UsageRow::try_from).collect()
}

pub async fn show(database: &Database, id: &str) -> Result<Vec<UsageRow>> {
    let rows = select_usage!(
        r#"
         where event_id = $1 or request_id = $2
         order by occurred_at desc, event_id desc
         limit 100
        "#,
        Uuid::try_parse(id).ok() as _,
        without_nul(id) as _,
    )
    .fetch_all(&database.pool)
    .await?;
    rows.into_iter().map(UsageRow::try_from).collect()
}

pub async fn sum(database: &Database, by: GroupBy, filter: &UsageFilter) -> Result<Vec<UsageSum>> {
    let rows = sqlx::query!(
        r#"
        select coalesce(case $1::text when 'holder' then holder when 'plan' then plan when 'service' then service
                                      when 'route' then route else to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD') end, '') as "key!",
               count(*) as "events!",
               least(sum(charged), 9223372036854775807)::bigint as "charged!",
               least(coalesce(sum(charged) filter (where burned_at is null), 0), 9223372036854775807)::bigint as "unburned!"
          from usage
         where ($2::timestamptz is null or occurred_at >= $2) and ($3::timestamptz is null or occurred_at < $3)
           and ($4::text is null or holder = $4) and ($5::text is null or plan = $5)
           and ($6::text is null or service = $6) and ($7::text is null or route = $7)
         group by 1
        "#,
        by.as_str(),
        filter.since_micros.map(to_time),
        filter.until_micros.map(to_time),
        filter.holder.map(|holder| holder.to_string()),
        filter.plan.map(|plan| plan.to_string()),
        filter.service.map(|service| service.to_string()),
        filter.route.as_deref(),
    )
    .fetch_all(&database.pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| UsageSum {
            key: row.key,
            events: u64::try_from(row.events).unwrap_or(0),
            charged: Credits::from_i64(row.charged),
            unburned: Credits::from_i64(row.unburned),
        })
        .collect())
}

pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let deleted = sqlx::query!(
        r#"
        delete from usage
         where event_id in (
               select event_id
                 from usage
                where occurred_at < $1 and (burned_at is not null or charged = 0)
                  and not exists (select from usage_report where usage_report.event_id = usage.event_id and due_at is not null)
                order by occurred_at
                limit $2)
        "#,
        to_time(before_micros),
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(deleted.rows_affected())
}
