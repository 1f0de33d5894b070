//! Clients of the authorization server.

use super::Database;
use crate::{
    model::client::Client,
    store::{Result, clients::ClientRow, to_time},
};

pub async fn insert(database: &Database, client: &Client) -> Result<()> {
    let row = ClientRow::of(client);
    sqlx::query!(
        r#"
        insert into oauth_client (client_id, secret_hash, name, redirect_uris, grant_types, allowed_scopes,
                                  allowed_origins, sign_method, rate_limit, active, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
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
    )
    .execute(&database.pool)
    .await?;
    Ok(())
}

pub async fn find(database: &Database, id: &str) -> Result<Option<Client>> {
    let row = sqlx::query_as!(
        ClientRow,
        r#"
        select client_id, secret_hash, name, redirect_uris, grant_types, allowed_scopes, allowed_origins, sign_method,
               rate_limit, active, (extract(epoch from created_at) * 1000000)::bigint as "created_at!",
               (extract(epoch from updated_at) * 1000000)::bigint as "updated_at!"
          from oauth_client
         where client_id = $1
        "#,
        id,
    )
    .fetch_optional(&database.pool)
    .await?;
    row.map(ClientRow::into_client).transpose()
}

pub async fn list(database: &Database) -> Result<Vec<Client>> {
    let rows = sqlx::query_as!(
        ClientRow,
        r#"
        select client_id, secret_hash, name, redirect_uris, grant_types, allowed_scopes, allowed_origins, sign_method,
               rate_limit, active, (extract(epoch from created_at) * 1000000)::bigint as "created_at!",
               (extract(epoch from updated_at) * 1000000)::bigint as "updated_at!"
          from oauth_client
         order by created_at desc, client_id
        "#,
    )
    .fetch_all(&database.pool)
    .await?;
    rows.into_iter().map(ClientRow::into_client).collect()
}

pub async fn replace(database: &Database, client: &Client, seen_micros: i64) -> Result<bool> {
    let row = ClientRow::of(client);
    let replaced = sqlx::query!(
        r#"
        update oauth_client
           set name = $3, redirect_uris = $4, grant_types = $5, allowed_scopes = $6, allowed_origins = $7,
               rate_limit = $8, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where client_id = $1 and active and updated_at = $2
        "#,
        row.client_id,
        to_time(seen_micros),
        row.name,
        &row.redirect_uris,
        &row.grant_types,
        &row.allowed_scopes,
        &row.allowed_origins,
        row.rate_limit,
    )
    .execute(&database.pool)
    .await?;
    Ok(replaced.rows_affected() == 1)
}

pub async fn set_secret(database: &Database, id: &str, secret_hash: &str) -> Result<bool> {
    let changed = sqlx::query!(
        r#"
        update oauth_client
           set secret_hash = $2, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where client_id = $1 and active and secret_hash is not null
        "#,
        id,
        secret_hash,
    )
    .execute(&database.pool)
    .await?;
    Ok(changed.rows_affected() == 1)
}

pub async fn deactivate(database: &Database, id: &str) -> Result<bool> {
    let changed = sqlx::query!(
        r#"
        update oauth_client
           set active = false, updated_at = greatest(now(), updated_at + interval '1 microsecond')
         where client_id = $1
        "#,
        id,
    )
    .execute(&database.pool)
    .await?;
    Ok(changed.rows_affected() == 1)
}

pub async fn origins(database: &Database) -> Result<Vec<String>> {
    let origins = sqlx::query_scalar!(
        r#"select distinct unnest(allowed_origins) as "origin!" from oauth_client where active order by 1"#
    )
    .fetch_all(&database.pool)
    .await?;
    Ok(origins)
}
