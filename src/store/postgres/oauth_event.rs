//! What happened at the authorization server.

use uuid::Uuid;

use super::Database;
use crate::store::{
    Result,
    event::{ClientStats, Counts, Event},
    row::{count, digest},
    to_time,
};

pub async fn append(database: &Database, events: &[Event]) -> Result<()> {
    let ids: Vec<_> = events.iter().map(|event| event.id).collect();
    let times: Vec<_> = events.iter().map(|event| to_time(event.at_micros)).collect();
    let client_ids: Vec<_> = events.iter().map(|event| event.client_id.as_str()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let outcomes: Vec<_> = events.iter().map(|event| event.outcome.as_str()).collect();
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_deref()).collect();
    let wallets: Vec<_> = events.iter().map(|event| event.wallet.as_deref()).collect();
    let subjects: Vec<_> = events.iter().map(|event| event.subject.as_ref().map(<[u8; 32]>::as_slice)).collect();
    let scopes: Vec<_> = events.iter().map(|event| event.scope.as_str()).collect();
    let details: Vec<_> = events.iter().map(|event| event.detail.as_str()).collect();
    sqlx::query!(
        r#"
        insert into oauth_event (id, occurred_at, client_id, kind, outcome, reason, wallet, subject, scope, detail)
        select * from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                             $8::bytea[], $9::text[], $10::text[])
            on conflict (id) do nothing
        "#,
        &ids,
        &times,
        &client_ids as _,
        &kinds as _,
        &outcomes as _,
        &reasons as _,
        &wallets as _,
        &subjects as _,
        &scopes as _,
        &details as _,
    )
    .execute(&database.pool)
    .await?;
    Ok(())
}

pub async fn list(database: &Database, client_id: &str, before: Option<(i64, Uuid)>, limit: u32) -> Result<Vec<Event>> {
    let (at, id) = before.map_or((None, None), |(at, id)| (Some(to_time(at)), Some(id)));
    let rows = sqlx::query!(
        r#"
        select id, (extract(epoch from occurred_at) * 1000000)::bigint as "at!", client_id, kind, outcome, reason, wallet,
               subject, scope, detail
          from oauth_event
         where client_id = $1 and ($2::timestamptz is null or (occurred_at, id) < ($2, $3))
         order by occurred_at desc, id desc
         limit $4
        "#,
        client_id,
        at,
        id,
        i64::from(limit),
    )
    .fetch_all(&database.pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Event {
                id: row.id,
                at_micros: row.at,
                client_id: row.client_id,
                kind: row.kind,
                outcome: row.outcome,
                reason: row.reason,
                wallet: row.wallet,
                subject: row.subject.as_deref().map(|bytes| digest("oauth_event", bytes)).transpose()?,
                scope: row.scope,
                detail: row.detail,
            })
        })
        .collect()
}

pub async fn stats(database: &Database, client_id: &str, since_micros: i64, bucket: i64) -> Result<ClientStats> {
    let since = to_time(since_micros);
    let totals = sqlx::query!(
        r#"
        select count(*) filter (where outcome = 'success') as "successes!",
               count(*) filter (where outcome <> 'success') as "failures!", count(distinct subject) as "users!"
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind in ('token_exchange', 'token_refresh')
        "#,
        client_id,
        since,
    )
    .fetch_one(&database.pool)
    .await?;
    let reasons = sqlx::query!(
        r#"
        select reason as "reason!", count(*) as "number!"
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind in ('token_exchange', 'token_refresh')
           and outcome <> 'success' and reason is not null
         group by reason
         order by count(*) desc, reason
        "#,
        client_id,
        since,
    )
    .fetch_all(&database.pool)
    .await?;
    let scopes = sqlx::query!(
        r#"
        select scope, count(*) as "number!"
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind = 'token_exchange' and outcome = 'success'
         group by scope
        "#,
        client_id,
        since,
    )
    .fetch_all(&database.pool)
    .await?;
    let buckets = sqlx::query!(
        r#"
        select extract(epoch from occurred_at)::bigint / $3 * $3 as "begins!",
               count(*) filter (where outcome = 'success') as "successes!",
               count(*) filter (where outcome <> 'success') as "failures!", count(distinct subject) as "users!"
          from oauth_event
         where client_id = $1 and occurred_at >= $2 and kind in ('token_exchange', 'token_refresh')
         group by 1
         order by 1
        "#,
        client_id,
        since,
        bucket,
    )
    .fetch_all(&database.pool)
    .await?;
    Ok(ClientStats {
        totals: Counts::of(totals.successes, totals.failures, totals.users),
        reasons: reasons.into_iter().map(|row| (row.reason, count(row.number))).collect(),
        scopes: scopes.into_iter().map(|row| (row.scope, count(row.number))).collect(),
        buckets: buckets
            .into_iter()
            .map(|row| (row.begins, Counts::of(row.successes, row.failures, row.users)))
            .collect(),
    })
}

pub async fn overview(database: &Database, since_micros: i64) -> Result<(Counts, Vec<(String, Counts)>)> {
    let since = to_time(since_micros);
    let total = sqlx::query!(
        r#"
        select count(*) filter (where outcome = 'success') as "successes!",
               count(*) filter (where outcome <> 'success') as "failures!", count(distinct subject) as "users!"
          from oauth_event
         where occurred_at >= $1 and kind in ('token_exchange', 'token_refresh')
        "#,
        since,
    )
    .fetch_one(&database.pool)
    .await?;
    let clients = sqlx::query!(
        r#"
        select client_id, count(*) filter (where outcome = 'success') as "successes!",
               count(*) filter (where outcome <> 'success') as "failures!", count(distinct subject) as "users!"
          from oauth_event
         where occurred_at >= $1 and kind in ('token_exchange', 'token_refresh')
         group by client_id
        "#,
        since,
    )
    .fetch_all(&database.pool)
    .await?;
    let clients =
        clients.into_iter().map(|row| (row.client_id, Counts::of(row.successes, row.failures, row.users))).collect();
    Ok((Counts::of(total.successes, total.failures, total.users), clients))
}

pub async fn delete_before(database: &Database, before_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        delete from oauth_event
         where id in (select id from oauth_event where occurred_at < $1 limit $2 for update skip locked)
        "#,
        to_time(before_micros),
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected())
}
