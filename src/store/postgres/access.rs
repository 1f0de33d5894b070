//! The tables of the replaced system (nevermined.md section 9), for a burner that reads them.
//!
//! Their types are the other side's: `"atxId"` is a uuid or a text, `"accessResult"` a text or a number, `status` a text
//! or an enum. Rows are therefore made out of JSON by the table's own row type, which parses every value as the column
//! wants it; no statement here names a type.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Database;
use crate::store::{Result, StoreError};

/// One row in each table per delivered, protected request (section 16.9); an open endpoint is not queued, nor is what
/// was paid out of our own ledger: the burner would burn it a second time, on chain.
///
/// `"nvmCredits"` is what we *charged*, not what the service reported. The burner applies its own rule to the number
/// (section 10.4), and that rule takes the whole balance for a report beyond it, gives the answer away for a report of
/// nought, and takes the ordinary price for none. Given the charge, which lies within the plan's bounds, it burns
/// just that, or less; nought it takes for a free answer, which is what nought means here.
///
/// A number too large for its column, or a text too long, is cut: neither must keep an event from being written,
/// because a client chooses the path and a service what it reports. What fails all the same is the tables' fault.
pub async fn insert(connection: &mut PgConnection, events: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        with room as (
            select max(digits) filter (where attname = 'nvmCredits') as credits,
                   max(letters) filter (where attname = 'did') as did,
                   max(letters) filter (where attname = 'owner') as owner,
                   max(letters) filter (where attname = 'consumer') as consumer,
                   max(letters) filter (where attname = 'endpoint') as endpoint
              from (select attname, nullif(atttypmod, -1) - 4 as letters,
                           case when atttypid = 'smallint'::regtype then 32767
                                when atttypid = 'integer'::regtype then 2147483647
                                when atttypid = 'numeric'::regtype and atttypmod > 0
                                then 10::numeric ^ (((atttypmod - 4) >> 16) - ((atttypmod - 4) & 2047)) - 1 end as digits
                      from pg_attribute
                     where attrelid = '"accessTransactions"'::regclass and attnum > 0 and not attisdropped) as atx_column
        ), access as (
            select jsonb_agg(jsonb_build_object(
                       'atxId', event_id,
                       'did', left(service, coalesce(room.did, 2147483647)),
                       'owner', left(usage.owner, coalesce(room.owner, 2147483647)),
                       'consumer', left(user_id, coalesce(room.consumer, 2147483647)),
                       'assetType', 'Service',
                       'endpoint', left(usage.endpoint, coalesce(room.endpoint, 2147483647)),
                       'accessResult', coalesce(upstream_status, status)::text,
                       'nvmCredits', trunc(least(charged, room.credits)),
                       'createdAt', occurred_at, 'updatedAt', occurred_at)) as lines
              from usage, room
             where event_id = any($1) and status between 200 and 299 and holder is not null and not open
        )
        insert into "accessTransactions" ("atxId", did, owner, consumer, "assetType", endpoint, "accessResult",
                                          "nvmCredits", "createdAt", "updatedAt")
        select line."atxId", line.did, line.owner, line.consumer, line."assetType", line.endpoint, line."accessResult",
               line."nvmCredits", line."createdAt", line."updatedAt"
          from access, jsonb_populate_recordset(null::"accessTransactions", access.lines) as line
            on conflict do nothing
        "#,
        events,
    )
    .execute(&mut *connection)
    .await
    .map_err(StoreError::AccessTables)?;
    sqlx::query!(
        r#"
        with access as (
            select jsonb_agg(jsonb_build_object(
                       'atxId', event_id, 'status', 'Pending', 'retried', 0, 'errorMessage', '',
                       'createdAt', occurred_at, 'updatedAt', occurred_at)) as lines
              from usage
             where event_id = any($1) and status between 200 and 299 and holder is not null and not open
               and source = 'chain'
        )
        insert into "accessProcessorQueue" ("atxId", status, retried, "errorMessage", "createdAt", "updatedAt")
        select line."atxId", line.status, line.retried, line."errorMessage", line."createdAt", line."updatedAt"
          from access, jsonb_populate_recordset(null::"accessProcessorQueue", access.lines) as line
            on conflict do nothing
        "#,
        events,
    )
    .execute(connection)
    .await
    .map_err(StoreError::AccessTables)?;
    Ok(())
}

/// Learns from the queue what the burner has done. Without this a charge would weigh on its holder for ever.
pub async fn adopt_burns(database: &Database, limit: u32) -> Result<u64> {
    if !database.access_tables {
        return Ok(0);
    }
    let adopted = sqlx::query!(
        r#"
        with owed as (
            select event_id,
                   (jsonb_populate_record(null::"accessProcessorQueue", jsonb_build_object('atxId', event_id)))."atxId" as atx_id
              from usage
             where burned_at is null and charged > 0 and source = 'chain'
        ), settled as (
            select owed.event_id, case queue.status::text when 'Done' then 'queue' else 'queue-error' end as burn
              from owed
              join "accessProcessorQueue" queue on queue."atxId" = owed.atx_id
             where queue.status::text in ('Done', 'Error')
             limit $1
        )
        update usage
           set burned_at = now(), burn = settled.burn
          from settled
         where usage.event_id = settled.event_id and usage.burned_at is null
        "#,
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(adopted.rows_affected())
}
