//! What an import from an auth gateway's database does here.

use uuid::Uuid;

use super::Database;
use crate::{
    model::client::Client,
    store::{Result, clients::ClientRow, grant::Signer, takeover::TakenOver, to_time},
};

pub async fn is_possible(database: &Database) -> Result<bool> {
    let possible = sqlx::query_scalar!(
        r#"
        select exists (
            select from pg_attribute where attrelid = to_regclass('oauth_client') and attname = 'taken_over_at'
        ) as "possible!"
        "#
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(possible)
}

pub async fn is_client_untouched(database: &Database, id: &str) -> Result<bool> {
    let untouched = sqlx::query_scalar!(
        r#"select exists (select from oauth_client where client_id = $1 and taken_over_at = updated_at) as "untouched!""#,
        id,
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(untouched)
}

pub async fn client(database: &Database, client: &Client) -> Result<bool> {
    let row = ClientRow::of(client);
    let done = sqlx::query!(
        r#"
        insert into oauth_client as here
               (client_id, secret_hash, name, redirect_uris, grant_types, allowed_scopes, allowed_origins, sign_method,
                rate_limit, active, created_at, updated_at, taken_over_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
            on conflict (client_id) do update
           set secret_hash = excluded.secret_hash, name = excluded.name, redirect_uris = excluded.redirect_uris,
               grant_types = excluded.grant_types, allowed_scopes = excluded.allowed_scopes,
               allowed_origins = excluded.allowed_origins, sign_method = excluded.sign_method,
               rate_limit = excluded.rate_limit, active = excluded.active,
               updated_at = greatest(excluded.updated_at, here.updated_at + interval '1 microsecond'),
               taken_over_at = greatest(excluded.updated_at, here.updated_at + interval '1 microsecond')
         where here.taken_over_at = here.updated_at
        "#,
        row.client_id,
        row.secret_hash,
        row.name,
        &row.redirect_uris,
        &row.grant_types,
        &row.allowed_scopes,
        &row.allowed_origins,
        row.sign_method,
        row.rate_limit,
        row.active,
        to_time(row.created_at),
        to_time(row.updated_at),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn known_grants(database: &Database, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let known = sqlx::query_scalar!("select id from oauth_grant where id = any($1)", ids);
    Ok(known.fetch_all(&database.pool).await?)
}

pub async fn refresh_tokens(database: &Database, tokens: &[TakenOver]) -> Result<u64> {
    let mut transaction = database.pool.begin().await?;
    let mut taken = 0_u64;
    for TakenOver { grant, digest, expires_at_micros } in tokens {
        let done = sqlx::query!(
            r#"
            with taken as (
                insert into oauth_grant (id, client_id, account, signer, scope, resource, auth_time, expires_at)
                select $1, client_id, $3, $4, $5, $6, $7, $8 from oauth_client where client_id = $2 and active
                    on conflict (id) do nothing
                returning id
            )
            insert into oauth_refresh_token (digest, grant_id, expires_at, taken_over)
            select $9, id, $10, true from taken
            "#,
            grant.id,
            grant.client_id,
            grant.signer.account,
            grant.signer.kind.as_str(),
            grant.scope,
            grant.resource,
            to_time(grant.auth_time.saturating_mul(1_000_000)),
            to_time(grant.expires_at_micros),
            digest.as_slice(),
            to_time(*expires_at_micros),
        )
        .execute(&mut *transaction)
        .await?;
        taken = taken.saturating_add(done.rows_affected());
    }
    transaction.commit().await?;
    Ok(taken)
}

pub async fn untouched_grants(
    database: &Database,
    after: Option<Uuid>,
    now_micros: i64,
    limit: u32,
) -> Result<Vec<Uuid>> {
    let ids = sqlx::query_scalar!(
        r#"
        select grant_id
          from oauth_refresh_token token
          join oauth_grant on oauth_grant.id = grant_id and revoked_at is null
         where taken_over and used_at is null and token.expires_at > $1 and ($2::uuid is null or grant_id > $2)
         order by grant_id
         limit $3
        "#,
        to_time(now_micros),
        after,
        i64::from(limit),
    )
    .fetch_all(&database.pool)
    .await?;
    Ok(ids)
}

pub async fn revoke_untouched(database: &Database, ids: &[Uuid], now_micros: i64) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        update oauth_grant
           set revoked_at = $2
         where id = any($1) and revoked_at is null
           and exists (select from oauth_refresh_token where grant_id = oauth_grant.id and taken_over and used_at is null)
        "#,
        ids,
        to_time(now_micros),
    )
    .execute(&database.pool)
    .await?;
    Ok(done.rows_affected())
}

pub async fn complete(database: &Database, id: Uuid, signer: &Signer, auth_time: i64) -> Result<()> {
    sqlx::query!(
        "update oauth_grant set signer = $2, hotkey = $3, coldkey = $4, auth_time = $5 where id = $1",
        id,
        signer.kind.as_str(),
        signer.hotkey,
        signer.coldkey,
        to_time(auth_time.saturating_mul(1_000_000)),
    )
    .execute(&database.pool)
    .await?;
    Ok(())
}

pub async fn known_events(database: &Database, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let known = sqlx::query_scalar!("select id from oauth_event where id = any($1)", ids);
    Ok(known.fetch_all(&database.pool).await?)
}
