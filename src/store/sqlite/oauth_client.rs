//! Clients of the authorization server.

use sqlx::{Row, sqlite::SqliteRow};

use super::{Database, json_list};
use crate::{
    model::{client::Client, clock},
    store::{Result, StoreError, clients::ClientRow},
};

const COLUMNS: &str = "client_id, secret_hash, name, redirect_uris, grant_types, allowed_scopes, allowed_origins, \
                       sign_method, rate_limit, active, created_at, updated_at";

pub async fn insert(database: &Database, client: &Client) -> Result<()> {
    let row = ClientRow::of(client);
    sqlx::query(
        "
        insert into oauth_client (client_id, secret_hash, name, redirect_uris, grant_types, allowed_scopes,
                                  allowed_origins, sign_method, rate_limit, active, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
        ",
    )
    .bind(row.client_id)
    .bind(row.secret_hash)
    .bind(row.name)
    .bind(json_list(&row.redirect_uris))
    .bind(json_list(&row.grant_types))
    .bind(json_list(&row.allowed_scopes))
    .bind(json_list(&row.allowed_origins))
    .bind(row.sign_method)
    .bind(row.rate_limit)
    .bind(row.active)
    .bind(row.created_at)
    .execute(&database.write)
    .await?;
    Ok(())
}

pub async fn find(database: &Database, id: &str) -> Result<Option<Client>> {
    let statement = sqlx::AssertSqlSafe(format!("select {COLUMNS} from oauth_client where client_id = $1"));
    let row = sqlx::query(statement).bind(id).fetch_optional(&database.read).await?;
    row.as_ref().map(client).transpose()
}

pub async fn list(database: &Database) -> Result<Vec<Client>> {
    let statement =
        sqlx::AssertSqlSafe(format!("select {COLUMNS} from oauth_client order by created_at desc, client_id"));
    let rows = sqlx::query(statement).fetch_all(&database.read).await?;
    rows.iter().map(client).collect()
}

pub async fn replace(database: &Database, client: &Client, seen_micros: i64) -> Result<bool> {
    let row = ClientRow::of(client);
    let replaced = sqlx::query(
        "
        update oauth_client
           set name = $3, redirect_uris = $4, grant_types = $5, allowed_scopes = $6, allowed_origins = $7,
               rate_limit = $8, updated_at = max($9, updated_at + 1)
         where client_id = $1 and active and updated_at = $2
        ",
    )
    .bind(row.client_id)
    .bind(seen_micros)
    .bind(row.name)
    .bind(json_list(&row.redirect_uris))
    .bind(json_list(&row.grant_types))
    .bind(json_list(&row.allowed_scopes))
    .bind(json_list(&row.allowed_origins))
    .bind(row.rate_limit)
    .bind(clock::now_micros())
    .execute(&database.write)
    .await?;
    Ok(replaced.rows_affected() == 1)
}

pub async fn set_secret(database: &Database, id: &str, secret_hash: &str) -> Result<bool> {
    let changed = sqlx::query(
        "
        update oauth_client
           set secret_hash = $2, updated_at = max($3, updated_at + 1)
         where client_id = $1 and active and secret_hash is not null
        ",
    )
    .bind(id)
    .bind(secret_hash)
    .bind(clock::now_micros())
    .execute(&database.write)
    .await?;
    Ok(changed.rows_affected() == 1)
}

pub async fn deactivate(database: &Database, id: &str) -> Result<bool> {
    let changed =
        sqlx::query("update oauth_client set active = 0, updated_at = max($2, updated_at + 1) where client_id = $1")
            .bind(id)
            .bind(clock::now_micros())
            .execute(&database.write)
            .await?;
    Ok(changed.rows_affected() == 1)
}

pub async fn origins(database: &Database) -> Result<Vec<String>> {
    let origins = sqlx::query_scalar(
        "
        select distinct origin.value
          from oauth_client, json_each(oauth_client.allowed_origins) as origin
         where active
         order by 1
        ",
    )
    .fetch_all(&database.read)
    .await?;
    Ok(origins)
}

fn client(row: &SqliteRow) -> Result<Client> {
    let list = |column: &str| -> Result<Vec<String>> {
        serde_json::from_str(row.try_get::<&str, _>(column)?)
            .map_err(|error| StoreError::Unreadable { table: "oauth_client", error: error.to_string() })
    };
    ClientRow {
        client_id: row.try_get("client_id")?,
        secret_hash: row.try_get("secret_hash")?,
        name: row.try_get("name")?,
        redirect_uris: list("redirect_uris")?,
        grant_types: list("grant_types")?,
        allowed_scopes: list("allowed_scopes")?,
        allowed_origins: list("allowed_origins")?,
        sign_method: row.try_get("sign_method")?,
        rate_limit: row.try_get("rate_limit")?,
        active: row.try_get("active")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    }
    .into_client()
}
