//! Grants, codes and refresh tokens.

use sqlx::PgConnection;
use uuid::Uuid;

use super::Database;
use crate::store::{
    Result,
    grant::{Code, Digest, Grant, NewRefreshToken, RefreshToken},
    row::{GrantColumns, count},
    to_time,
};

pub async fn insert(connection: &mut PgConnection, grant: &Grant) -> Result<()> {
    sqlx::query!(
        r#"
        insert into oauth_grant
               (id, client_id, account, signer, hotkey, coldkey, scope, resource, nonce, auth_time, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        "#,
        grant.id,
        grant.client_id,
        grant.signer.account,
        grant.signer.kind.as_str(),
        grant.signer.hotkey,
        grant.signer.coldkey,
        grant.scope,
        grant.resource,
        grant.nonce,
        to_time(grant.auth_time.saturating_mul(1_000_000)),
        to_time(grant.expires_at_micros),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A grant, and whether it was taken back.
pub async fn find(database: &Database, id: Uuid) -> Result<Option<(Grant, bool)>> {
    let row = sqlx::query_as!(
        GrantColumns,
        r#"
        select id::text as "id!", client_id, account, signer, hotkey, coldkey, scope, resource, nonce,
               extract(epoch from auth_time)::bigint as "auth_time!",
               (extract(epoch from expires_at) * 1000000)::bigint as "expires_at!",
               revoked_at is not null as "revoked!"
          from oauth_grant
         where id = $1
        "#,
        id,
    )
    .fetch_optional(&database.pool)
    .await?;
    row.map(TryInto::try_into).transpose()
}

pub async fn code(database: &Database, digest: &Digest) -> Result<Option<Code>> {
    let row = sqlx::query!(
        r#"
        select grant_id, redirect_uri, code_challenge, redeemed_at is not null as "redeemed!",
               (extract(epoch from expires_at) * 1000000)::bigint as "expires_at!"
          from oauth_code
         where digest = $1
        "#,
        digest.as_slice(),
    )
    .fetch_optional(&database.pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(find(database, row.grant_id).await?.map(|(grant, _)| Code {
        grant,
        redirect_uri: row.redirect_uri,
        code_challenge: row.code_challenge,
        expires_at_micros: row.expires_at,
        redeemed: row.redeemed,
    }))
}

pub async fn redeem_code(
    database: &Database,
    digest: &Digest,
    token: &NewRefreshToken,
    now_micros: i64,
) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        with redeemed as (
            update oauth_code
               set redeemed_at = $2
             where digest = $1 and redeemed_at is null and expires_at > $2
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

pub async fn refresh_token(database: &Database, digest: &Digest) -> Result<Option<RefreshToken>> {
    let row = sqlx::query!(
        r#"
        select id::text as "id!", client_id, account, signer, hotkey, coldkey, scope, resource, nonce,
               extract(epoch from auth_time)::bigint as "auth_time!",
               (extract(epoch from oauth_grant.expires_at) * 1000000)::bigint as "expires_at!",
               revoked_at is not null as "revoked!",
               (extract(epoch from oauth_refresh_token.expires_at) * 1000000)::bigint as "token_expires_at!",
               (extract(epoch from used_at) * 1000000)::bigint as used_at
          from oauth_refresh_token
          join oauth_grant on id = grant_id
         where digest = $1
        "#,
        digest.as_slice(),
    )
    .fetch_optional(&database.pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let columns = GrantColumns {
        id: row.id,
        client_id: row.client_id,
        account: row.account,
        signer: row.signer,
        hotkey: row.hotkey,
        coldkey: row.coldkey,
        scope: row.scope,
        resource: row.resource,
        nonce: row.nonce,
        auth_time: row.auth_time,
        expires_at: row.expires_at,
        revoked: row.revoked,
    };
    let (grant, revoked) = columns.try_into()?;
    Ok(Some(RefreshToken { grant, expires_at_micros: row.token_expires_at, used_at_micros: row.used_at, revoked }))
}

pub async fn rotate(database: &Database, old: &Digest, new: &NewRefreshToken, now_micros: i64) -> Result<bool> {
    let done = sqlx::query!(
        r#"
        with used as (
            update oauth_refresh_token
               set used_at = $2
             where digest = $1 and used_at is null and expires_at > $2
               and exists (select from oauth_grant where id = grant_id and revoked_at is null and expires_at > $2)
            returning digest, grant_id
        )
        insert into oauth_refresh_token (digest, grant_id, parent, expires_at)
        select $3, grant_id, digest, $4 from used
        "#,
        old.as_slice(),
        to_time(now_micros),
        new.digest.as_slice(),
        to_time(new.expires_at_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn forgive(
    database: &Database,
    old: &Digest,
    new: &NewRefreshToken,
    used_since_micros: i64,
    now_micros: i64,
) -> Result<bool> {
    let mut transaction = database.pool.begin().await?;
    let forgiven = sqlx::query_scalar!(
        r#"
        update oauth_refresh_token
           set forgiven_at = $2
         where digest = $1 and used_at >= $3 and forgiven_at is null and expires_at > $2
           and exists (select from oauth_grant where id = grant_id and revoked_at is null and expires_at > $2)
        returning grant_id
        "#,
        old.as_slice(),
        to_time(now_micros),
        to_time(used_since_micros),
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(grant_id) = forgiven else { return Ok(false) };
    let replaced =
        sqlx::query!("delete from oauth_refresh_token where parent = $1 and used_at is null", old.as_slice())
            .execute(&mut *transaction)
            .await?;
    // What it was exchanged for is in use, so its answer was not lost. Dropping the transaction undoes the first half.
    if replaced.rows_affected() != 1 {
        return Ok(false);
    }
    sqlx::query!(
        "insert into oauth_refresh_token (digest, grant_id, parent, expires_at) values ($1, $2, $3, $4)",
        new.digest.as_slice(),
        grant_id,
        old.as_slice(),
        to_time(new.expires_at_micros),
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

pub async fn stands(database: &Database, id: Uuid, now_micros: i64) -> Result<bool> {
    let row = sqlx::query_scalar!(
        r#"
        select exists (
            select from oauth_grant
              join oauth_client on oauth_client.client_id = oauth_grant.client_id and oauth_client.active
             where id = $1 and revoked_at is null and expires_at > $2
        ) as "stands!"
        "#,
        id,
        to_time(now_micros),
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(row)
}

pub async fn revoke(database: &Database, id: Uuid, now_micros: i64) -> Result<bool> {
    let done = sqlx::query!(
        "update oauth_grant set revoked_at = $2 where id = $1 and revoked_at is null",
        id,
        to_time(now_micros)
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn revoke_client(database: &Database, client_id: &str, now_micros: i64) -> Result<u64> {
    let done = sqlx::query!(
        "update oauth_grant set revoked_at = $2 where client_id = $1 and revoked_at is null",
        client_id,
        to_time(now_micros)
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected())
}

pub async fn revoked(database: &Database, since_micros: i64) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        r#"
        select id as "id!" from oauth_grant where revoked_at >= $1
         union all
        select oauth_grant.id from oauth_client
          join oauth_grant on oauth_grant.client_id = oauth_client.client_id and oauth_grant.revoked_at is null
         where not oauth_client.active
        "#,
        to_time(since_micros),
    )
    .fetch_all(&database.pool)
    .await?;
    Ok(ids)
}

/// Removes codes and refresh tokens that have expired, and grants that have ended or that nobody holds anything of; at
/// most `limit` rows of each. An expired row is kept for a day: it tells that a use is the second one.
pub async fn usable_refresh_tokens(database: &Database, now_micros: i64) -> Result<u64> {
    let number = sqlx::query_scalar!(
        r#"
        select count(*) as "number!"
          from oauth_refresh_token token
          join oauth_grant on oauth_grant.id = grant_id
         where used_at is null and token.expires_at > $1 and oauth_grant.expires_at > $1 and revoked_at is null
        "#,
        to_time(now_micros),
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(count(number))
}

pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let (then, limit) = (to_time(now_micros.saturating_sub(86_400_000_000)), i64::from(limit));
    let codes = sqlx::query!(
        r#"
        delete from oauth_code
         where digest in (select digest from oauth_code where expires_at <= $1 limit $2 for update skip locked)
        "#,
        then,
        limit,
    )
    .execute(&database.pool)
    .await?;
    let tokens = sqlx::query!(
        r#"
        delete from oauth_refresh_token
         where digest in (select digest from oauth_refresh_token where expires_at <= $1 limit $2 for update skip locked)
        "#,
        then,
        limit,
    )
    .execute(&database.pool)
    .await?;
    let grants = sqlx::query!(
        r#"
        delete from oauth_grant
         where id in (
               select id
                 from oauth_grant
                where expires_at <= $1
                   or (auth_time <= $1
                       and not exists (select from oauth_code where grant_id = oauth_grant.id)
                       and not exists (select from oauth_refresh_token where grant_id = oauth_grant.id)
                       and not exists (select from oauth_device where grant_id = oauth_grant.id))
                limit $2
                  for update skip locked)
        "#,
        then,
        limit,
    )
    .execute(&database.pool)
    .await?;
    Ok(codes.rows_affected().saturating_add(tokens.rows_affected()).saturating_add(grants.rows_affected()))
}
