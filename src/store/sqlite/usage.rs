//! Usage: written in batches, read by people.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::json;
use sqlx::{Arguments, AssertSqlSafe, Row, SqlSafeStr, SqlStr, SqliteConnection, sqlite::SqliteArguments};
use uuid::Uuid;

use super::{Database, joined, json_list};
use crate::{
    model::{
        address::EvmAddress,
        clock,
        credits::{CreditSource, Credits},
        did::Did,
        usage::UsageEvent,
    },
    store::{
        Appended, GroupBy, Result, UsageFilter, UsageRow, UsageSum,
        row::{Columns, source_columns},
        without_nul,
    },
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
        && insert_new(&mut transaction, &database.inserts, events).await?
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

/// Statements that insert 1, 2, 4 … 128 rows: few, so that they stay prepared, and made once.
pub(super) fn inserts() -> Arc<[SqlStr]> {
    let row = format!("({})", ["?"; 23].join(", "));
    let statement = |rows: usize| {
        let statement = format!(
            "insert into usage (event_id, occurred_at, recorded_at, request_id, route, listener, service, plan, holder, user_id, owner,
                                endpoint, method, status, upstream_status, reported, charged, source, contract,
                                duration_micros, open, burned_at, burn)
             values {} on conflict (event_id) do nothing",
            vec![row.as_str(); rows].join(", ")
        );
        AssertSqlSafe(statement).into_sql_str()
    };
    (0..=7).map(|power| statement(1 << power)).collect()
}

/// Inserts events of which none is there yet. False: one is, and the transaction must be rolled back.
async fn insert_new(connection: &mut SqliteConnection, statements: &[SqlStr], events: &[UsageEvent]) -> Result<bool> {
    let recorded_at = clock::now_micros();
    let mut texts = Texts::default();
    let mut rest = events;
    while let Some(power) = rest.len().checked_ilog2() {
        let power = usize::try_from(power).unwrap_or(0).min(statements.len().saturating_sub(1));
        let Some(statement) = statements.get(power) else { break };
        let (now, later) = rest.split_at(1 << power);
        rest = later;
        let mut values = SqliteArguments::default();
        values.reserve(now.len().saturating_mul(23), 0);
        for event in now {
            bind(&mut values, &mut texts, event, recorded_at).map_err(sqlx::Error::Encode)?;
        }
        let inserted = sqlx::query_with(statement.clone(), values).execute(&mut *connection).await?.rows_affected();
        if usize::try_from(inserted) != Ok(now.len()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The values of one row. Texts are handed over, not copied.
fn bind(
    values: &mut SqliteArguments,
    texts: &mut Texts,
    event: &UsageEvent,
    recorded_at: i64,
) -> std::result::Result<(), sqlx::error::BoxDynError> {
    let contract = match &event.source {
        CreditSource::Local => None,
        CreditSource::Chain { contract } => Some(shared(&mut texts.contract, *contract)),
    };
    let burned = event.source == CreditSource::Local && event.charged > Credits::ZERO;
    let mut id = Uuid::encode_buffer();
    let id = &*event.event_id.as_hyphenated().encode_lower(&mut id);
    values.add(if *event.request_id == *id { Arc::clone(&event.request_id) } else { id.into() })?;
    values.add(event.at_micros)?;
    values.add(recorded_at)?;
    values.add(clean(&event.request_id))?;
    values.add(clean(&event.route))?;
    values.add(event.listener.as_ref().map(clean))?;
    values.add(shared(&mut texts.service, event.service))?;
    values.add(event.plan.map(|plan| shared(&mut texts.plan, plan)))?;
    values.add(event.holder.map(|holder| shared(&mut texts.holder, holder)))?;
    values.add(clean(&event.user_id))?;
    values.add(clean(&event.owner))?;
    values.add(clean(&event.endpoint))?;
    values.add(clean(&event.method))?;
    values.add(event.status)?;
    values.add(event.upstream_status)?;
    values.add(event.reported.map(Credits::to_i64))?;
    values.add(event.charged.to_i64())?;
    values.add(Arc::clone(if contract.is_some() { &texts.words.chain } else { &texts.words.local }))?;
    values.add(contract)?;
    values.add(i64::try_from(event.duration_micros).unwrap_or(i64::MAX))?;
    values.add(event.open)?;
    values.add(burned.then_some(recorded_at))?;
    values.add(burned.then(|| Arc::clone(&texts.words.local)))?;
    Ok(())
}

/// The texts of the row before, which are mostly those of the next one too.
#[derive(Default)]
struct Texts {
    words: Words,
    service: Option<(Did, Arc<str>)>,
    plan: Option<(Did, Arc<str>)>,
    holder: Option<(EvmAddress, Arc<str>)>,
    contract: Option<(EvmAddress, Arc<str>)>,
}

struct Words {
    local: Arc<str>,
    chain: Arc<str>,
}

impl Default for Words {
    fn default() -> Self {
        Self { local: "local".into(), chain: "chain".into() }
    }
}

fn shared<T: Copy + PartialEq + ToString>(before: &mut Option<(T, Arc<str>)>, value: T) -> Arc<str> {
    match before {
        Some((known, text)) if *known == value => Arc::clone(text),
        _ => Arc::clone(&before.insert((value, value.to_string().into())).1),
    }
}

fn clean(text: &Arc<str>) -> Arc<str> {
    match without_nul(text) {
        Cow::Borrowed(_) => Arc::clone(text),
        Cow::Owned(without) => without.into(),
    }
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
    // The two are the same for whatever a gateway wrote; the second has no index.
    let by_event: Vec<Columns> = match Uuid::try_parse(id) {
        Ok(id) => {
            sqlx::query_as(select_usage("where event_id = $1")).bind(id.to_string()).fetch_all(&database.read).await?
        }
        Err(_) => Vec::new(),
    };
    let rows = if by_event.is_empty() {
        sqlx::query_as(select_usage("where request_id = $1 order by occurred_at desc, event_id desc limit 100"))
            .bind(without_nul(id).into_owned())
            .fetch_all(&database.read)
            .await?
    } else {
        by_event
    };
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
