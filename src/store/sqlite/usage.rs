//! Usage: written in batches, read by people.

mod batch;
pub(super) mod conversion;

use std::collections::{BTreeMap, HashSet};

use futures_util::TryStreamExt;
use serde_json::json;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use self::batch::{Batch, began, ids, owed, row, unpack};
use super::Database;
use crate::{
    model::{
        address::{EvmAddress, hex_into},
        clock,
        credits::{CreditSource, Credits},
        did::Did,
        usage::UsageEvent,
    },
    store::{Appended, GroupBy, Result, StoreError, UsageFilter, UsageRow, UsageSum, to_time},
};

/// Those that are there already are found by their ids, in the few rows that may have them.
pub async fn append(database: &Database, events: &[UsageEvent]) -> Result<Appended> {
    for event in events {
        validate(event)?;
    }
    let mut sorted: Vec<&UsageEvent> = events.iter().collect();
    sorted.sort_by_key(|event| event.event_id);
    sorted.dedup_by_key(|event| event.event_id);

    let mut transaction = database.write.begin_with("begin immediate").await?;
    let mut new = Vec::with_capacity(sorted.len());
    for together in by_beginning(&sorted) {
        let known = known(&mut transaction, together).await?;
        new.extend(together.iter().copied().filter(|event| !known.contains(&event.event_id)));
    }
    let recorded_at = clock::now_micros();
    insert(&mut transaction, &new, recorded_at).await?;
    let sums = Sums::of(&new)?;
    burn(&mut transaction, &sums.local, recorded_at).await?;
    owe(&mut transaction, &sums.chain).await?;
    if database.reports {
        queue_reports(&mut transaction, &new).await?;
    }
    transaction.commit().await?;
    Ok(Appended::of(events.len(), new.len()))
}

/// Splits events, in the order of their ids, into those that began together.
fn by_beginning<'a, 'b>(events: &'a [&'b UsageEvent]) -> impl Iterator<Item = &'a [&'b UsageEvent]> {
    events.chunk_by(|one, other| began(one.event_id) == began(other.event_id))
}

/// What constraints say of the rows in Postgres.
fn validate(event: &UsageEvent) -> Result<()> {
    let wrong = |what: &str| Err(StoreError::InvalidEvent(format!("usage event {}: {what}", event.event_id)));
    if event.status > 999 || event.upstream_status.is_some_and(|status| status > 999) {
        return wrong("a status has three digits");
    }
    if event.charged > Credits::ZERO && (event.terms.plan.is_none() || event.terms.holder.is_none()) {
        return wrong("there is a charge and no account to pay it");
    }
    Ok(())
}

/// The ids that are there already, from the first of these events on, which began together and are in the order of theirs.
async fn known(connection: &mut SqliteConnection, events: &[&UsageEvent]) -> Result<HashSet<Uuid>> {
    let Some(first) = events.first().map(|event| event.event_id) else { return Ok(HashSet::new()) };
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("select event_ids from usage_batch where began = $1 and last_event >= $2")
            .bind(began(first))
            .bind(first.as_bytes().as_slice())
            .fetch_all(connection)
            .await?;
    Ok(rows.iter().flat_map(|row| ids(row).rev().take_while(|id| *id >= first)).collect())
}

/// Makes rows of events that are in the order of their ids.
async fn insert(connection: &mut SqliteConnection, events: &[&UsageEvent], recorded_at: i64) -> Result<()> {
    for together in by_beginning(events) {
        let (owed, settled): (Vec<_>, Vec<_>) = together.iter().partition(|event| owed(event));
        for events in [owed, settled] {
            let Some(batch) = Batch::pack(&events)? else { continue };
            sqlx::query(
                "
                insert into usage_batch (began, last_event, first_at, last_at, recorded_at, owed, events, event_ids, records)
                values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                ",
            )
            .bind(batch.began)
            .bind(batch.last_event)
            .bind(batch.first_at)
            .bind(batch.last_at)
            .bind(recorded_at)
            .bind(batch.owed)
            .bind(batch.events)
            .bind(batch.event_ids)
            .bind(batch.records)
            .execute(&mut *connection)
            .await?;
        }
    }
    Ok(())
}

/// What is charged, by the account that pays.
#[derive(Default)]
struct Sums {
    local: BTreeMap<(Did, EvmAddress), Credits>,
    /// By contract, plan and holder.
    chain: BTreeMap<(EvmAddress, Did, EvmAddress), Credits>,
}

impl Sums {
    /// What accounts owe on chain is at most [`Credits::MAX`]; what is taken from a balance is taken whole.
    fn of(events: &[&UsageEvent]) -> Result<Self> {
        let mut sums = Self::default();
        for event in events.iter().filter(|event| event.charged > Credits::ZERO) {
            // A charge has an account: `validate`.
            let (Some(plan), Some(holder)) = (event.terms.plan, event.terms.holder) else { continue };
            let sum = match event.terms.source {
                CreditSource::Local => sums.local.entry((plan, holder)).or_default(),
                CreditSource::Chain { contract } => sums.chain.entry((contract, plan, holder)).or_default(),
            };
            let fits = sum.get().saturating_add(event.charged.get()) <= Credits::MAX.get();
            if !fits && event.terms.source == CreditSource::Local {
                return Err(StoreError::InvalidEvent(format!("the sum of what {holder} is charged does not fit")));
            }
            *sum = sum.plus(event.charged);
        }
        Ok(sums)
    }
}

/// Takes the sums from the local balances. An account that was never granted anything gets a debt, for what was served
/// is charged.
async fn burn(connection: &mut SqliteConnection, burns: &BTreeMap<(Did, EvmAddress), Credits>, at: i64) -> Result<()> {
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
    .bind(at)
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds the sums to what accounts owe on chain. One that does not fit is the largest that does.
async fn owe(
    connection: &mut SqliteConnection,
    unburned: &BTreeMap<(EvmAddress, Did, EvmAddress), Credits>,
) -> Result<()> {
    if unburned.is_empty() {
        return Ok(());
    }
    let unburned: Vec<_> = unburned
        .iter()
        .map(|((contract, plan, holder), sum)| json!([contract.to_string(), plan.to_string(), holder.to_string(), sum]))
        .collect();
    sqlx::query(
        "
        insert into unburned_credit (contract, plan, holder, credits)
        select value ->> 0, value ->> 1, value ->> 2, value ->> 3
          from json_each($1)
         where true
            on conflict (contract, plan, holder) do update
           set credits = case when unburned_credit.credits > 9223372036854775807 - excluded.credits then 9223372036854775807
                              else unburned_credit.credits + excluded.credits end
        ",
    )
    .bind(serde_json::Value::from(unburned).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

async fn queue_reports(connection: &mut SqliteConnection, events: &[&UsageEvent]) -> Result<()> {
    let is_told = |event: &&&UsageEvent| {
        let delivered = (200..300).contains(&event.status);
        delivered && event.terms.holder.is_some() && !event.open && event.terms.source != CreditSource::Local
    };
    let reports: Vec<_> = events
        .iter()
        .filter(is_told)
        .map(|event| {
            let (mut record, mut hex) = (Vec::new(), Vec::new());
            event.encode(&mut record);
            hex_into(&mut hex, &record);
            json!([event.event_id.to_string(), String::from_utf8_lossy(&hex), event.at_micros])
        })
        .collect();
    if reports.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "
        insert into usage_report_queue (event_id, record, due_at)
        select value ->> 0, unhex(value ->> 1), value ->> 2
          from json_each($1)
         where true
            on conflict (event_id) do nothing
        ",
    )
    .bind(serde_json::Value::from(reports).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// What is read of a row.
struct Stored {
    recorded_at: i64,
    owed: bool,
    events: Vec<UsageEvent>,
}

impl Stored {
    fn of(row: &SqliteRow) -> Result<Self> {
        Ok(Self {
            recorded_at: row.try_get("recorded_at")?,
            owed: row.try_get("owed")?,
            events: unpack(row.try_get("event_ids")?, row.try_get("records")?)?,
        })
    }

    fn rows(self) -> impl Iterator<Item = UsageRow> {
        self.events.into_iter().map(move |event| row(event, self.recorded_at))
    }
}

/// Rows that may have events of this time, the latest first.
const BETWEEN: &str = "
    select recorded_at, owed, last_at, event_ids, records
      from usage_batch
     where ($1 is null or last_at >= $1) and ($2 is null or first_at < $2)
     order by last_at desc
    ";

fn wanted(filter: &UsageFilter, event: &UsageEvent) -> bool {
    filter.since_micros.is_none_or(|since| event.at_micros >= since)
        && filter.until_micros.is_none_or(|until| event.at_micros < until)
        && (filter.holder.is_none() || filter.holder == event.terms.holder)
        && (filter.plan.is_none() || filter.plan == event.terms.plan)
        && filter.service.is_none_or(|service| service == event.terms.service)
        && filter.route.as_deref().is_none_or(|route| route == &*event.terms.route)
}

pub async fn list(database: &Database, filter: &UsageFilter, limit: u32) -> Result<Vec<UsageRow>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut latest = Latest { rows: Vec::new(), limit };
    let mut batches = sqlx::query(BETWEEN).bind(filter.since_micros).bind(filter.until_micros).fetch(&database.read);
    while let Some(batch) = batches.try_next().await? {
        if latest.begin().is_some_and(|begin| batch.get::<i64, _>("last_at") < begin) {
            break;
        }
        latest.add(Stored::of(&batch)?.rows().filter(|row| wanted(filter, &row.event)));
    }
    Ok(latest.rows)
}

/// The latest rows of many.
struct Latest {
    rows: Vec<UsageRow>,
    limit: usize,
}

impl Latest {
    fn add(&mut self, rows: impl Iterator<Item = UsageRow>) {
        self.rows.extend(rows);
        self.rows.sort_by_key(|row| std::cmp::Reverse((row.event.at_micros, row.event.event_id)));
        self.rows.truncate(self.limit);
    }

    /// Where the last row is that still has a place. None: there are places left.
    fn begin(&self) -> Option<i64> {
        (self.rows.len() >= self.limit).then(|| self.rows.last().map_or(i64::MAX, |row| row.event.at_micros))
    }
}

pub async fn show(database: &Database, id: &str) -> Result<Vec<UsageRow>> {
    if let Ok(id) = Uuid::try_parse(id) {
        let mut batches = sqlx::query(
            "select recorded_at, owed, event_ids, records from usage_batch where began = $1 and last_event >= $2",
        )
        .bind(began(id))
        .bind(id.as_bytes().as_slice())
        .fetch(&database.read);
        while let Some(batch) = batches.try_next().await? {
            if ids(batch.try_get("event_ids")?).any(|known| known == id) {
                return Ok(Stored::of(&batch)?.rows().filter(|row| row.event.event_id == id).collect());
            }
        }
    }
    // The two are the same for whatever a gateway wrote; for the request's there is no index.
    let mut latest = Latest { rows: Vec::new(), limit: 100 };
    let mut batches = sqlx::query(BETWEEN).bind(None::<i64>).bind(None::<i64>).fetch(&database.read);
    while let Some(batch) = batches.try_next().await? {
        latest.add(Stored::of(&batch)?.rows().filter(|row| *row.event.request_id() == *id));
    }
    Ok(latest.rows)
}

/// By what a sum is made.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Account(Option<EvmAddress>),
    Did(Option<Did>),
    Route(std::sync::Arc<str>),
    /// Days since the epoch.
    Day(i64),
}

const DAY: i64 = 86_400_000_000;

impl Key {
    fn of(event: &UsageEvent, by: GroupBy) -> Self {
        match by {
            GroupBy::Holder => Self::Account(event.terms.holder),
            GroupBy::Plan => Self::Did(event.terms.plan),
            GroupBy::Service => Self::Did(Some(event.terms.service)),
            GroupBy::Route => Self::Route(event.terms.route.clone()),
            GroupBy::Day => Self::Day(event.at_micros.div_euclid(DAY)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Account(account) => account.map(|account| account.to_string()).unwrap_or_default(),
            Self::Did(did) => did.map(|did| did.to_string()).unwrap_or_default(),
            Self::Route(route) => route.to_string(),
            Self::Day(day) => to_time(day.saturating_mul(DAY)).date().to_string(),
        }
    }
}

pub async fn sum_by(database: &Database, by: GroupBy, filter: &UsageFilter) -> Result<Vec<UsageSum>> {
    let mut sums: BTreeMap<Key, UsageSum> = BTreeMap::new();
    let mut batches = sqlx::query(BETWEEN).bind(filter.since_micros).bind(filter.until_micros).fetch(&database.read);
    while let Some(batch) = batches.try_next().await? {
        let batch = Stored::of(&batch)?;
        for event in batch.events.iter().filter(|event| wanted(filter, event)) {
            let key = Key::of(event, by);
            let name = key.text();
            let sum = sums.entry(key).or_insert_with(|| UsageSum {
                key: name,
                events: 0,
                charged: Credits::ZERO,
                unburned: Credits::ZERO,
            });
            sum.events = sum.events.saturating_add(1);
            sum.charged = sum.charged.plus(event.charged);
            if batch.owed {
                sum.unburned = sum.unburned.plus(event.charged);
            }
        }
    }
    Ok(sums.into_values().collect())
}

/// Removes old events from rows, and rows that have no others.
pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let mut left = limit;
    let mut deleted = 0_usize;
    let mut transaction = database.write.begin_with("begin immediate").await?;
    let candidates: Vec<i64> =
        sqlx::query_scalar("select id from usage_batch where first_at < $1 and owed = 0 order by last_at")
            .bind(before_micros)
            .fetch_all(&mut *transaction)
            .await?;
    for id in candidates {
        if left == 0 {
            break;
        }
        let gone = shorten(&mut transaction, id, before_micros).await?;
        deleted = deleted.saturating_add(gone);
        left = left.saturating_sub(u32::from(gone > 0));
    }
    transaction.commit().await?;
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}

/// Removes the old events of a row; says how many.
async fn shorten(connection: &mut SqliteConnection, id: i64, before_micros: i64) -> Result<usize> {
    let row = sqlx::query("select recorded_at, owed, last_at, event_ids, records from usage_batch where id = $1")
        .bind(id)
        .fetch_one(&mut *connection)
        .await?;
    let mut ids = ids(row.try_get("event_ids")?);
    let events = ids.len();
    let Some(first) = ids.next() else { return Ok(0) };
    let between = (first.to_string(), ids.next_back().unwrap_or(first).to_string());
    let unreported = unreported(connection, &between).await?;
    let kept = if unreported.is_empty() && row.try_get::<i64, _>("last_at")? < before_micros {
        Vec::new()
    } else {
        let mut kept = Stored::of(&row)?.events;
        kept.retain(|event| event.at_micros >= before_micros || unreported.contains(&event.event_id));
        kept
    };
    let gone = events.saturating_sub(kept.len());
    if gone > 0 {
        sqlx::query("delete from usage_batch where id = $1").bind(id).execute(&mut *connection).await?;
        insert(connection, &kept.iter().collect::<Vec<_>>(), row.try_get("recorded_at")?).await?;
    }
    if kept.is_empty() {
        // What was given up goes with its events.
        sqlx::query("delete from usage_report_queue where event_id between $1 and $2 and due_at is null")
            .bind(between.0)
            .bind(between.1)
            .execute(connection)
            .await?;
    }
    Ok(gone)
}

/// Which of the events from one id to another are still to be told to the backend.
async fn unreported(connection: &mut SqliteConnection, between: &(String, String)) -> Result<HashSet<Uuid>> {
    let due: Vec<String> = sqlx::query_scalar(
        "select event_id from usage_report_queue where event_id between $1 and $2 and due_at is not null",
    )
    .bind(&between.0)
    .bind(&between.1)
    .fetch_all(connection)
    .await?;
    Ok(due.iter().filter_map(|id| Uuid::try_parse(id).ok()).collect())
}
