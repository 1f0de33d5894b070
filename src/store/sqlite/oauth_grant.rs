//! Grants, codes and refresh tokens.

use sqlx::{AssertSqlSafe, FromRow, Row, SqliteConnection};
use uuid::Uuid;

use super::Database;
use crate::store::{
    Result,
    grant::{Code, Digest, Grant, NewRefreshToken, RefreshToken},
    row::{GrantColumns, count, grant_id},
};

pub async fn insert(connection: &mut SqliteConnection, grant: &Grant) -> Result<()> {
    sqlx::query(
        "
        insert into oauth_grant
               (id, client_id, account, signer, hotkey, coldkey, scope, resource, nonce, auth_time, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ",
    )
    .bind(grant.id.to_string())
    .bind(&grant.client_id)
    .bind(&grant.signer.account)
    .bind(grant.signer.kind.as_str())
    .bind(&grant.signer.hotkey)
    .bind(&grant.signer.coldkey)
    .bind(&grant.scope)
    .bind(&grant.resource)
    .bind(&grant.nonce)
    .bind(grant.auth_time.saturating_mul(1_000_000))
    .bind(grant.expires_at_micros)
    .execute(connection)
    .await?;
    Ok(())
}

/// The columns of [`GrantColumns`].
const GRANT: &str = "id, client_id, account, signer, hotkey, coldkey, scope, resource, nonce, \
                     auth_time / 1000000 as auth_time, oauth_grant.expires_at, revoked_at is not null as revoked";

/// A grant, and whether it was taken back.
pub async fn find(database: &Database, id: &str) -> Result<Option<(Grant, bool)>> {
    let statement = AssertSqlSafe(format!("select {GRANT} from oauth_grant where id = $1"));
    let row: Option<GrantColumns> = sqlx::query_as(statement).bind(id).fetch_optional(&database.read).await?;
    row.map(TryInto::try_into).transpose()
}

pub async fn code(database: &Database, digest: &Digest) -> Result<Option<Code>> {
    let statement = AssertSqlSafe(format!(
        "
        select {GRANT}, redirect_uri, code_challenge, redeemed_at is not null as redeemed,
               oauth_code.expires_at as code_expires_at
          from oauth_code
          join oauth_grant on id = grant_id
         where digest = $1
        "
    ));
    let row = sqlx::query(statement).bind(digest.as_slice()).fetch_optional(&database.read).await?;
    let Some(row) = row else { return Ok(None) };
    let (grant, _) = GrantColumns::from_row(&row)?.try_into()?;
    Ok(Some(Code {
        grant,
        redirect_uri: row.try_get("redirect_uri")?,
        code_challenge: row.try_get("code_challenge")?,
        expires_at_micros: row.try_get("code_expires_at")?,
        redeemed: row.try_get("redeemed")?,
    }))
}

pub async fn redeem_code(
    database: &Database,
    digest: &Digest,
    token: &NewRefreshToken,
    now_micros: i64,
) -> Result<bool> {
    let mut transaction = database.write.begin().await?;
    let grant_id: Option<String> = sqlx::query_scalar(
        "
        update oauth_code
           set redeemed_at = $2
         where digest = $1 and redeemed_at is null and expires_at > $2
           and exists (select 1 from oauth_grant where id = grant_id and revoked_at is null and expires_at > $2)
        returning grant_id
        ",
    )
    .bind(digest.as_slice())
    .bind(now_micros)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(grant_id) = grant_id else { return Ok(false) };
    insert_token(&mut transaction, &grant_id, None, token).await?;
    transaction.commit().await?;
    Ok(true)
}

pub async fn insert_token(
    connection: &mut SqliteConnection,
    grant_id: &str,
    parent: Option<&Digest>,
    token: &NewRefreshToken,
) -> Result<()> {
    sqlx::query("insert into oauth_refresh_token (digest, grant_id, parent, expires_at) values ($1, $2, $3, $4)")
        .bind(token.digest.as_slice())
        .bind(grant_id)
        .bind(parent.map(Digest::as_slice))
        .bind(token.expires_at_micros)
        .execute(connection)
        .await?;
    Ok(())
}

pub async fn refresh_token(database: &Database, digest: &Digest) -> Result<Option<RefreshToken>> {
    let statement = AssertSqlSafe(format!(
        "
        select {GRANT}, used_at, oauth_refresh_token.expires_at as token_expires_at
          from oauth_refresh_token
          join oauth_grant on id = grant_id
         where digest = $1
        "
    ));
    let row = sqlx::query(statement).bind(digest.as_slice()).fetch_optional(&database.read).await?;
    let Some(row) = row else { return Ok(None) };
    let (grant, revoked) = GrantColumns::from_row(&row)?.try_into()?;
    Ok(Some(RefreshToken {
        grant,
        expires_at_micros: row.try_get("token_expires_at")?,
        used_at_micros: row.try_get("used_at")?,
        revoked,
    }))
}

/// One statement, so that the thread that has the connection is woken once and not four times. `SQLite` cannot change one
/// row and insert another in one; but it can insert both, and change the one that turns out to be there.
pub async fn rotate(database: &Database, old: &Digest, new: &NewRefreshToken, now_micros: i64) -> Result<bool> {
    let done = sqlx::query(
        "
        with good as materialized (
            select digest, grant_id, parent, expires_at
              from oauth_refresh_token
             where digest = $1 and used_at is null and expires_at > $2
               and exists (select 1 from oauth_grant where id = grant_id and revoked_at is null and expires_at > $2)
        )
        insert into oauth_refresh_token (digest, grant_id, parent, expires_at, used_at)
        select digest, grant_id, parent, expires_at, $2 from good
         union all
        select $3, grant_id, digest, $4, null from good
         where true
            on conflict (digest) do update set used_at = excluded.used_at
        ",
    )
    .bind(old.as_slice())
    .bind(now_micros)
    .bind(new.digest.as_slice())
    .bind(new.expires_at_micros)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected() == 2)
}

pub async fn forgive(
    database: &Database,
    old: &Digest,
    new: &NewRefreshToken,
    used_since_micros: i64,
    now_micros: i64,
) -> Result<bool> {
    let mut transaction = database.write.begin().await?;
    let forgiven: Option<String> = sqlx::query_scalar(
        "
        update oauth_refresh_token
           set forgiven_at = $2
         where digest = $1 and used_at >= $3 and forgiven_at is null and expires_at > $2
           and exists (select 1 from oauth_grant where id = grant_id and revoked_at is null and expires_at > $2)
        returning grant_id
        ",
    )
    .bind(old.as_slice())
    .bind(now_micros)
    .bind(used_since_micros)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(grant_id) = forgiven else { return Ok(false) };
    let replaced = sqlx::query("delete from oauth_refresh_token where parent = $1 and used_at is null")
        .bind(old.as_slice())
        .execute(&mut *transaction)
        .await?;
    // What it was exchanged for is in use, so its answer was not lost. Dropping the transaction undoes the first half.
    if replaced.rows_affected() != 1 {
        return Ok(false);
    }
    insert_token(&mut transaction, &grant_id, Some(old), new).await?;
    transaction.commit().await?;
    Ok(true)
}

pub async fn stands(database: &Database, id: Uuid, now_micros: i64) -> Result<bool> {
    let stands = sqlx::query_scalar(
        "
        select exists (
            select 1 from oauth_grant
              join oauth_client on oauth_client.client_id = oauth_grant.client_id and oauth_client.active
             where id = $1 and revoked_at is null and expires_at > $2
        )
        ",
    )
    .bind(id.to_string())
    .bind(now_micros)
    .fetch_one(&database.read)
    .await?;
    Ok(stands)
}

pub async fn revoke(database: &Database, id: Uuid, now_micros: i64) -> Result<bool> {
    let done = sqlx::query("update oauth_grant set revoked_at = $2 where id = $1 and revoked_at is null")
        .bind(id.to_string())
        .bind(now_micros)
        .execute(&database.write)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn revoke_client(database: &Database, client_id: &str, now_micros: i64) -> Result<u64> {
    let done = sqlx::query("update oauth_grant set revoked_at = $2 where client_id = $1 and revoked_at is null")
        .bind(client_id)
        .bind(now_micros)
        .execute(&database.write)
        .await?;
    Ok(done.rows_affected())
}

pub async fn revoked(database: &Database, since_micros: i64) -> Result<Vec<Uuid>> {
    let ids: Vec<String> = sqlx::query_scalar(
        "
        select id from oauth_grant where revoked_at >= $1
         union all
        select oauth_grant.id from oauth_client
          join oauth_grant on oauth_grant.client_id = oauth_client.client_id and oauth_grant.revoked_at is null
         where not oauth_client.active
        ",
    )
    .bind(since_micros)
    .fetch_all(&database.read)
    .await?;
    ids.iter().map(|id| grant_id(id)).collect()
}

/// Removes codes and refresh tokens that have expired, and grants that have ended or that nobody holds anything of; at
/// most `limit` rows of each. An expired row is kept for a day: it tells that a use is the second one.
pub async fn usable_refresh_tokens(database: &Database, now_micros: i64) -> Result<u64> {
    let number: i64 = sqlx::query_scalar(
        "
        select count(*)
          from oauth_refresh_token token
          join oauth_grant on oauth_grant.id = grant_id
         where used_at is null and token.expires_at > $1 and oauth_grant.expires_at > $1 and revoked_at is null
        ",
    )
    .bind(now_micros)
    .fetch_one(&database.read)
    .await?;
    Ok(count(number))
}

pub async fn sweep(database: &Database, now_micros: i64, limit: u32) -> Result<u64> {
    let then = now_micros.saturating_sub(86_400_000_000);
    let mut removed = 0_u64;
    for statement in [
        "delete from oauth_code
          where digest in (select digest from oauth_code where expires_at <= $1 limit $2)",
        "delete from oauth_refresh_token
          where digest in (select digest from oauth_refresh_token where expires_at <= $1 limit $2)",
        "delete from oauth_grant
          where id in (
                select id
                  from oauth_grant
                 where expires_at <= $1
                    or (auth_time <= $1
                        and not exists (select 1 from oauth_code where grant_id = oauth_grant.id)
                        and not exists (select 1 from oauth_refresh_token where grant_id = oauth_grant.id)
                        and not exists (select 1 from oauth_device where grant_id = oauth_grant.id))
                 limit $2)",
    ] {
        let done = sqlx::query(statement).bind(then).bind(limit).execute(&database.write).await?;
        removed = removed.saturating_add(done.rows_affected());
    }
    Ok(removed)
}
