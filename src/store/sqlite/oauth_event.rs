//! What happened at the authorization server.

use sqlx::{QueryBuilder, Row, sqlite::SqliteRow};
use uuid::Uuid;

use super::Database;
use crate::store::{
    Result, StoreError,
    event::{ClientStats, Counts, Event},
    row::{count, digest},
};

pub async fn append(database: &Database, events: &[Event]) -> Result<()> {
    let mut insert = QueryBuilder::new(
        "insert into oauth_event (id, occurred_at, client_id, kind, outcome, reason, wallet, subject, scope, detail) ",
    );
    insert.push_values(events, |mut row, event| {
        row.push_bind(event.id.to_string())
            .push_bind(event.at_micros)
            .push_bind(&event.client_id)
            .push_bind(&event.kind)
            .push_bind(&event.outcome)
            .push_bind(&event.reason)
            .push_bind(&event.wallet)
            .push_bind(event.subject.as_ref().map(<[u8; 32]>::as_slice))
            .push_bind(&event.scope)
            .push_bind(&event.detail);
    });
    insert.push(" on conflict (id) do nothing");
    // Each number of events is another statement: not one to be kept.
    insert.build().persistent(false).execute(&database.write).await?;
    Ok(())
}

pub async fn list(database: &Database, client_id: &str, before: Option<(i64, Uuid)>, limit: u32) -> Result<Vec<Event>> {
    let rows = sqlx::query(
        "
        select id, occurred_at, client_id, kind, outcome, reason, wallet, subject, scope, detail
          from oauth_event
         where client_id = $1 and ($2 is null or (occurred_at, id) < ($2, $3))
         order by occurred_at desc, id desc
         limit $4
        ",
    )
    .bind(client_id)
    .bind(before.map(|(at, _)| at))
    .bind(before.map(|(_, id)| id.to_string()))
    .bind(limit)
    .fetch_all(&database.read)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Event {
                id: Uuid::try_parse(row.try_get("id")?)
                    .map_err(|error| StoreError::Unreadable { table: "oauth_event", error: error.to_string() })?,
                at_micros: row.try_get("occurred_at")?,
                client_id: row.try_get("client_id")?,
                kind: row.try_get("kind")?,
                outcome: row.try_get("outcome")?,
                reason: row.try_get("reason")?,
                wallet: row.try_get("wallet")?,
                subject: row
                    .try_get::<Option<&[u8]>, _>("subject")?
                    .map(|bytes| digest("oauth_event", bytes))
                    .transpose()?,
                scope: row.try_get("scope")?,
                detail: row.try_get("detail")?,
            })
        })
        .collect()
}

pub async fn stats(database: &Database, client_id: &str, since_micros: i64, bucket: i64) -> Result<ClientStats> {
    let totals = sqlx::query(
        "
        select count(*) filter (where outcome = 'success') as successes,
               count(*) filter (where outcome <> 'success') as failures, count(distinct subject) as users
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind in ('token_exchange', 'token_refresh')
        ",
    )
    .bind(client_id)
    .bind(since_micros)
    .fetch_one(&database.read)
    .await?;
    let reasons: Vec<(String, i64)> = sqlx::query_as(
        "
        select reason, count(*)
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind in ('token_exchange', 'token_refresh')
           and outcome <> 'success' and reason is not null
         group by reason
         order by count(*) desc, reason
        ",
    )
    .bind(client_id)
    .bind(since_micros)
    .fetch_all(&database.read)
    .await?;
    let scopes: Vec<(String, i64)> = sqlx::query_as(
        "
        select scope, count(*)
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind = 'token_exchange' and outcome = 'success'
         group by scope
        ",
    )
    .bind(client_id)
    .bind(since_micros)
    .fetch_all(&database.read)
    .await?;
    let buckets = sqlx::query(
        "
        select occurred_at / 1000000 / $3 * $3 as begins, count(*) filter (where outcome = 'success') as successes,
               count(*) filter (where outcome <> 'success') as failures, count(distinct subject) as users
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind in ('token_exchange', 'token_refresh')
         group by 1
         order by 1
        ",
    )
    .bind(client_id)
    .bind(since_micros)
    .bind(bucket)
    .fetch_all(&database.read)
    .await?;
    let counted = |rows: Vec<(String, i64)>| rows.into_iter().map(|(word, number)| (word, count(number))).collect();
    Ok(ClientStats {
        totals: counts(&totals)?,
        reasons: counted(reasons),
        scopes: counted(scopes),
        buckets: buckets.iter().map(|row| Ok((row.try_get("begins")?, counts(row)?))).collect::<Result<_>>()?,
    })
}

pub async fn overview(database: &Database, since_micros: i64) -> Result<(Counts, Vec<(String, Counts)>)> {
    let total = sqlx::query(
        "
        select count(*) filter (where outcome = 'success') as successes,
               count(*) filter (where outcome <> 'success') as failures, count(distinct subject) as users
          from oauth_event
         where occurred_at >= $1 and kind in ('token_exchange', 'token_refresh')
        ",
    )
    .bind(since_micros)
    .fetch_one(&database.read)
    .await?;
    let clients = sqlx::query(
        "
        select client_id, count(*) filter (where outcome = 'success') as successes,
               count(*) filter (where outcome <> 'success') as failures, count(distinct subject) as users
          from oauth_event
         where occurred_at >= $1 and kind in ('token_exchange', 'token_refresh')
         group by client_id
        ",
    )
    .bind(since_micros)
    .fetch_all(&database.read)
    .await?;
    let clients =
        clients.iter().map(|row| Ok((row.try_get("client_id")?, counts(row)?))).collect::<Result<Vec<_>>>()?;
    Ok((counts(&total)?, clients))
}

pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query(
        "
        delete from oauth_event
         where id in (select id from oauth_event where occurred_at < $1 limit $2)
        ",
    )
    .bind(before_micros)
    .bind(limit)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected())
}

fn counts(row: &SqliteRow) -> Result<Counts> {
    Ok(Counts::of(row.try_get("successes")?, row.try_get("failures")?, row.try_get("users")?))
}
