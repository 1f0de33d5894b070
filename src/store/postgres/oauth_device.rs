//! Devices that wait for somebody to sign for them.

use super::{Database, oauth_grant};
use crate::store::{
    Result,
    device::{Device, LONGEST_INTERVAL_SECONDS, Pace, Poll, REMEMBERED_MICROS},
    grant::{Digest, Grant, NewRefreshToken},
    to_time,
};

pub async fn insert(database: &Database, digest: &Digest, device: &Device) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        insert into oauth_device (digest, user_code, client_id, scope, resource, interval_seconds, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7)
            on conflict (user_code) do nothing
        "#,
        digest.as_slice(),
        device.user_code,
        device.client_id,
        device.scope,
        device.resource,
        i32::try_from(device.interval_seconds).unwrap_or(LONGEST_INTERVAL_SECONDS),
        to_time(device.expires_at_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn waiting(database: &Database, user_code: &str, now_micros: i64) -> Result<Option<Device>> {
    let row = sqlx::query!(
        r#"
        select user_code, client_id, scope, resource, interval_seconds,
               (extract(epoch from expires_at) * 1000000)::bigint as "expires_at!"
          from oauth_device
         where user_code = $1 and grant_id is null and denied_at is null and expires_at > $2
        "#,
        user_code,
        to_time(now_micros),
    )
    .fetch_optional(&database.pool)
    .await?;
    Ok(row.map(|row| Device {
        user_code: row.user_code,
        client_id: row.client_id,
        scope: row.scope,
        resource: row.resource,
        interval_seconds: u32::try_from(row.interval_seconds).unwrap_or(0),
        expires_at_micros: row.expires_at,
    }))
}

pub async fn approve(database: &Database, user_code: &str, grant: &Grant, now_micros: i64) -> Result<bool> {
    let mut transaction = database.pool.begin().await?;
    oauth_grant::insert(&mut transaction, grant).await?;
    let done = sqlx::query!(
        r#"
        update oauth_device
           set grant_id = $2
         where user_code = $1 and client_id = $4 and grant_id is null and denied_at is null and expires_at > $3
        "#,
        user_code,
        grant.id,
        to_time(now_micros),
        grant.client_id,
    )
    .execute(&mut *transaction)
    .await?;
    // Dropped, the transaction undoes the grant.
    if done.rows_affected() != 1 {
        return Ok(false);
    }
    transaction.commit().await?;
    Ok(true)
}

pub async fn deny(database: &Database, user_code: &str, now_micros: i64) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        update oauth_device
           set denied_at = $2
         where user_code = $1 and grant_id is null and denied_at is null and expires_at > $2
        "#,
        user_code,
        to_time(now_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn poll(database: &Database, digest: &Digest, client_id: &str, pace: Pace, now_micros: i64) -> Result<Poll> {
    let lengthen = pace == Pace::Lengthen;
    let row = sqlx::query!(
        r#"
        with before as (
            select digest, grant_id, denied_at, expires_at,
                   coalesce(polled_at > $3::timestamptz - make_interval(secs => interval_seconds), false) as too_soon
              from oauth_device
             where digest = $1 and client_id = $2
               for update
        )
        update oauth_device
           set polled_at = case when before.too_soon and not $4 then polled_at else $3 end,
               interval_seconds = case when before.too_soon and $4 then least(interval_seconds + 5, $5)
                                       else interval_seconds end
          from before
         where oauth_device.digest = before.digest
        returning before.grant_id, before.denied_at is not null as "denied!",
                  before.expires_at <= $3 as "expired!", before.too_soon as "too_soon!"
        "#,
        digest.as_slice(),
        client_id,
        to_time(now_micros),
        lengthen,
        LONGEST_INTERVAL_SECONDS,
    )
    .fetch_optional(&database.pool)
    .await?;
    let Some(row) = row else {
        let there = sqlx::query_scalar!(
            r#"select exists (select from oauth_device where digest = $1) as "there!""#,
            digest.as_slice()
        );
        return Ok(if there.fetch_one(&database.pool).await? { Poll::AnotherClients } else { Poll::Unknown });
    };
    Ok(match row.grant_id {
        _ if row.denied => Poll::Denied,
        _ if row.expired => Poll::Expired,
        None if row.too_soon => Poll::TooSoon,
        None => Poll::Pending,
        Some(id) => match oauth_grant::find(database, id).await? {
            Some((grant, _)) => Poll::Approved(Box::new(grant)),
            None => Poll::Unknown,
        },
    })
}

pub async fn redeem(database: &Database, digest: &Digest, token: &NewRefreshToken, now_micros: i64) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        with redeemed as (
            delete from oauth_device
             where digest = $1 and expires_at > $2
               and exists (select from oauth_grant where id = grant_id and revoked_at is null and expires_at > $2)
            returning grant_id
        )
        insert into oauth_refresh_token (digest, grant_id, expires_at)
        select $3, grant_id, $4 from redeemed
        "#,
        digest.as_slice(),
        to_time(now_micros),
        token.digest.as_slice(),
        to_time(token.expires_at_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes what was over an hour ago; at most `limit` rows.
pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        delete from oauth_device
         where digest in (select digest from oauth_device where expires_at <= $1 limit $2 for update skip locked)
        "#,
        to_time(now_micros.saturating_sub(REMEMBERED_MICROS)),
        i64::from(limit),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected())
}
