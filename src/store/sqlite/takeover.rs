//! What an import from an auth gateway's database does here.

use uuid::Uuid;

use super::{Database, json_list};
use crate::{
    model::client::Client,
    store::{Result, StoreError, clients::ClientRow, grant::Signer, takeover::TakenOver},
};

pub async fn is_possible(database: &Database) -> Result<bool> {
    let possible = sqlx::query_scalar(
        "select exists (select 1 from pragma_table_info('oauth_client') where name = 'taken_over_at')",
    );
    Ok(possible.fetch_one(&database.read).await?)
}

pub async fn is_client_untouched(database: &Database, id: &str) -> Result<bool> {
    let untouched = sqlx::query_scalar(
        "select exists (select 1 from oauth_client where client_id = $1 and taken_over_at = updated_at)",
    );
    Ok(untouched.bind(id).fetch_one(&database.read).await?)
}

pub async fn client(database: &Database, client: &Client) -> Result<bool> {
    let row = ClientRow::of(client);
    let done = sqlx::query(
        "
        insert into oauth_client as here
               (client_id, secret_hash, name, redirect_uris, grant_types, allowed_scopes, allowed_origins, sign_method,
                rate_limit, active, created_at, updated_at, taken_over_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)
            on conflict (client_id) do update
           set secret_hash = excluded.secret_hash, name = excluded.name, redirect_uris = excluded.redirect_uris,
               grant_types = excluded.grant_types, allowed_scopes = excluded.allowed_scopes,
               allowed_origins = excluded.allowed_origins, sign_method = excluded.sign_method,
               rate_limit = excluded.rate_limit, active = excluded.active,
               updated_at = max(excluded.updated_at, here.updated_at + 1),
               taken_over_at = max(excluded.updated_at, here.updated_at + 1)
         where here.taken_over_at = here.updated_at
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
    .bind(row.updated_at)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub async fn known_grants(database: &Database, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    known(database, "select id from oauth_grant where id in (select value from json_each($1))", ids).await
}

pub async fn refresh_tokens(database: &Database, tokens: &[TakenOver]) -> Result<u64> {
    let mut transaction = database.write.begin().await?;
    let mut taken = 0_u64;
    for TakenOver { grant, digest, expires_at_micros } in tokens {
        let id = grant.id.to_string();
        let done = sqlx::query(
            "
            insert into oauth_grant (id, client_id, account, signer, scope, resource, auth_time, expires_at)
            select $1, client_id, $3, $4, $5, $6, $7, $8 from oauth_client where client_id = $2 and active
                on conflict (id) do nothing
            ",
        )
        .bind(&id)
        .bind(&grant.client_id)
        .bind(&grant.signer.account)
        .bind(grant.signer.kind.as_str())
        .bind(&grant.scope)
        .bind(&grant.resource)
        .bind(grant.auth_time.saturating_mul(1_000_000))
        .bind(grant.expires_at_micros)
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            continue;
        }
        sqlx::query(
            "insert into oauth_refresh_token (digest, grant_id, expires_at, taken_over) values ($1, $2, $3, 1)",
        )
        .bind(digest.as_slice())
        .bind(&id)
        .bind(expires_at_micros)
        .execute(&mut *transaction)
        .await?;
        taken = taken.saturating_add(1);
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
    let ids: Vec<String> = sqlx::query_scalar(
        "
        select grant_id
          from oauth_refresh_token token
          join oauth_grant on oauth_grant.id = grant_id and revoked_at is null
         where taken_over and used_at is null and token.expires_at > $1 and ($2 is null or grant_id > $2)
         order by grant_id
         limit $3
        ",
    )
    .bind(now_micros)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(&database.read)
    .await?;
    uuids("oauth_refresh_token", &ids)
}

pub async fn revoke_untouched(database: &Database, ids: &[Uuid], now_micros: i64) -> Result<u64> {
    let done = sqlx::query(
        "
        update oauth_grant
           set revoked_at = $2
         where id in (select value from json_each($1)) and revoked_at is null
           and exists (select 1 from oauth_refresh_token
                        where grant_id = oauth_grant.id and taken_over and used_at is null)
        ",
    )
    .bind(texts(ids))
    .bind(now_micros)
    .execute(&database.write)
    .await?;
    Ok(done.rows_affected())
}

pub async fn complete(database: &Database, id: Uuid, signer: &Signer, auth_time: i64) -> Result<()> {
    sqlx::query("update oauth_grant set signer = $2, hotkey = $3, coldkey = $4, auth_time = $5 where id = $1")
        .bind(id.to_string())
        .bind(signer.kind.as_str())
        .bind(&signer.hotkey)
        .bind(&signer.coldkey)
        .bind(auth_time.saturating_mul(1_000_000))
        .execute(&database.write)
        .await?;
    Ok(())
}

pub async fn known_events(database: &Database, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    known(database, "select id from oauth_event where id in (select value from json_each($1))", ids).await
}

async fn known(database: &Database, statement: &'static str, ids: &[Uuid]) -> Result<Vec<Uuid>> {
    let found: Vec<String> = sqlx::query_scalar(statement).bind(texts(ids)).fetch_all(&database.read).await?;
    uuids("oauth_grant or oauth_event", &found)
}

fn texts(ids: &[Uuid]) -> String {
    json_list(&ids.iter().map(Uuid::to_string).collect::<Vec<_>>())
}

fn uuids(table: &'static str, texts: &[String]) -> Result<Vec<Uuid>> {
    let unreadable = |error: uuid::Error| StoreError::Unreadable { table, error: error.to_string() };
    texts.iter().map(|text| Uuid::try_parse(text).map_err(unreadable)).collect()
}
