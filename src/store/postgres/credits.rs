//! What accounts have and owe.

use super::Database;
use crate::{
    model::{
        address::EvmAddress,
        credits::{CreditSource, Credits},
        did::Did,
    },
    store::{Balance, Result, Snapshot, StoreError, row::source_columns},
};

pub async fn snapshot(database: &Database, source: &CreditSource, plan: &Did, holder: &EvmAddress) -> Result<Snapshot> {
    let (source, contract) = source_columns(source);
    let row = sqlx::query!(
        r#"
        select (select balance from credit_balance where plan = $1 and holder = $2 and $3 = 'local') as balance,
               (select least(coalesce(sum(charged), 0), 9223372036854775807)::bigint
                  from usage
                 where plan = $1 and holder = $2 and burned_at is null and charged > 0
                   and source = $3 and contract is not distinct from $4) as "unburned!"
        "#,
        plan.to_string(),
        holder.to_string(),
        source,
        contract,
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(Snapshot { balance: row.balance.map(Credits::from_i64), unburned: Credits::from_i64(row.unburned) })
}

pub async fn grant(database: &Database, holder: &EvmAddress, plan: &Did, amount: Credits) -> Result<i64> {
    let balance = sqlx::query_scalar!(
        r#"
        insert into credit_balance (plan, holder, balance) values ($1, $2, $3)
            on conflict (plan, holder) do update
           set balance = credit_balance.balance + excluded.balance, updated_at = now()
        returning balance
        "#,
        plan.to_string(),
        holder.to_string(),
        amount.to_i64(),
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(balance)
}

pub async fn balances(database: &Database, holder: Option<&EvmAddress>, plan: Option<&Did>) -> Result<Vec<Balance>> {
    let rows = sqlx::query!(
        r#"
        select plan, holder, balance, (extract(epoch from updated_at) * 1000000)::bigint as "updated_at!"
          from credit_balance
         where ($1::text is null or plan = $1) and ($2::text is null or holder = $2)
         order by plan, holder
        "#,
        plan.map(ToString::to_string),
        holder.map(ToString::to_string),
    )
    .fetch_all(&database.pool)
    .await?;
    let unreadable =
        |error: &dyn std::fmt::Display| StoreError::Unreadable { table: "credit_balance", error: error.to_string() };
    rows.into_iter()
        .map(|row| {
            Ok(Balance {
                holder: row.holder.parse().map_err(|error| unreadable(&error))?,
                plan: row.plan.parse().map_err(|error| unreadable(&error))?,
                balance: row.balance,
                updated_at_micros: row.updated_at,
            })
        })
        .collect()
}
