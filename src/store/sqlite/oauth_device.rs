//! Devices that wait for somebody to sign for them.

use sqlx::Row;

use super::{Database, oauth_grant};
use crate::store::{
    Result,
    device::{Device, LONGEST_INTERVAL_SECONDS, Pace, Poll, REMEMBERED_MICROS},
    grant::{Digest, Grant, NewRefreshToken},
};

pub async fn insert(database: &Database, digest: &Digest, device: &Device) -> Result<bool> {
    let done = sqlx::query(
        "
        insert into oauth_device (digest, user_code, client_id, scope, resource, interval_seconds, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7)
            on conflict (user_code) do nothing
        ",
    )
    .bind(digest.as_slice())
    .bind(&device.user_code)
    .bind(&device.client_id)
    .bind(&device.scope)
    .bind(&device.resource)
    .bind(device.interval_seconds)
    .bind(device.expires_at_micros)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn waiting(database: &Database, user_code: &str, now_micros: i64) -> Result<Option<Device>> {
    let row = sqlx::query(
        "
        select user_code, client_id, scope, resource, interval_seconds, expires_at
          from oauth_device
         where user_code = $1 and grant_id is null and denied_at is null and expires_at > $2
        ",
    )
    .bind(user_code)
    .bind(now_micros)
    .fetch_optional(&database.read)
    .await?;
    row.map(|row| {
        Ok(Device {
            user_code: row.try_get("user_code")?,
            client_id: row.try_get("client_id")?,
            scope: row.try_get("scope")?,
            resource: row.try_get("resource")?,
            interval_seconds: row.try_get("interval_seconds")?,
            expires_at_micros: row.try_get("expires_at")?,
        })
    })
    .transpose()
}

pub async fn approve(database: &Database, user_code: &str, grant: &Grant, now_micros: i64) -> Result<bool> {
    let mut transaction = database.write.begin().await?;
    oauth_grant::insert(&mut transaction, grant).await?;
    let done = sqlx::query(
        "
        update oauth_device
           set grant_id = $2
         where user_code = $1 and client_id = $4 and grant_id is null and denied_at is null and expires_at > $3
        ",
    )
    .bind(user_code)
    .bind(grant.id.to_string())
    .bind(now_micros)
    .bind(&grant.client_id)
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
    let done = sqlx::query(
        "
        update oauth_device
           set denied_at = $2
         where user_code = $1 and grant_id is null and denied_at is null and expires_at > $2
        ",
    )
    .bind(user_code)
    .bind(now_micros)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn poll(database: &Database, digest: &Digest, client_id: &str, pace: Pace, now_micros: i64) -> Result<Poll> {
    // `returning` tells the new values only, so what was before is asked first; `immediate` keeps others out meanwhile.
    let mut transaction = database.write.begin_with("begin immediate").await?;
    let row = sqlx::query(
        "
        select grant_id, denied_at is not null as denied, expires_at <= $3 as expired,
               coalesce(polled_at > $3 - interval_seconds * 1000000, false) as too_soon
          from oauth_device
         where digest = $1 and client_id = $2
        ",
    )
    .bind(digest.as_slice())
    .bind(client_id)
    .bind(now_micros)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else {
        let there = sqlx::query_scalar("select exists (select 1 from oauth_device where digest = $1)");
        let there: bool = there.bind(digest.as_slice()).fetch_one(&mut *transaction).await?;
        return Ok(if there { Poll::AnotherClients } else { Poll::Unknown });
    };
    let too_soon: bool = row.try_get("too_soon")?;
    sqlx::query(
        "
        update oauth_device
           set polled_at = case when $2 and not $3 then polled_at else $4 end,
               interval_seconds = case when $2 and $3 then min(interval_seconds + 5, $5) else interval_seconds end
         where digest = $1
        ",
    )
    .bind(digest.as_slice())
    .bind(too_soon)
    .bind(pace == Pace::Lengthen)
    .bind(now_micros)
    .bind(LONGEST_INTERVAL_SECONDS)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(match row.try_get::<Option<&str>, _>("grant_id")? {
        _ if row.try_get("denied")? => Poll::Denied,
        _ if row.try_get("expired")? => Poll::Expired,
        None if too_soon => Poll::TooSoon,
        None => Poll::Pending,
        Some(id) => match oauth_grant::find(database, id).await? {
            Some((grant, _)) => Poll::Approved(Box::new(grant)),
            None => Poll::Unknown,
        },
    })
}

pub async fn redeem(database: &Database, digest: &Digest, token: &NewRefreshToken, now_micros: i64) -> Result<bool> {
    let mut transaction = database.write.begin().await?;
    let grant_id: Option<String> = sqlx::query_scalar(
        "
        delete from oauth_device
         where digest = $1 and expires_at > $2
           and exists (select 1 from oauth_grant where id = grant_id and revoked_at is null and expires_at > $2)
        returning grant_id
        ",
    )
    .bind(digest.as_slice())
    .bind(now_micros)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(grant_id) = grant_id else { return Ok(false) };
    oauth_grant::insert_token(&mut transaction, &grant_id, None, token).await?;
    transaction.commit().await?;
    Ok(true)
}

/// Removes what was over an hour ago; at most `limit` rows.
pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let done = sqlx::query(
        "
        delete from oauth_device
         where digest in (select digest from oauth_device where expires_at <= $1 limit $2)
        ",
    )
    .bind(now_micros.saturating_sub(REMEMBERED_MICROS))
    .bind(limit)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected())
}
