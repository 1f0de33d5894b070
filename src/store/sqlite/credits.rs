//! What accounts have and owe.

use sqlx::Row;

use super::Database;
use crate::{
    model::{
        address::EvmAddress,
        clock,
        credits::{CreditSource, Credits},
        did::Did,
    },
    store::{Balance, Result, Snapshot, StoreError, row::source_columns},
};

pub async fn snapshot(database: &Database, source: &CreditSource, plan: &Did, holder: &EvmAddress) -> Result<Snapshot> {
    let (source, contract) = source_columns(source);
    let row = sqlx::query(
        "
        select (select balance from credit_balance where plan = $1 and holder = $2 and $3 = 'local') as balance,
               (select credits from unburned_credit where plan = $1 and holder = $2 and contract = $4) as unburned
        ",
    )
    .bind(plan.to_string())
    .bind(holder.to_string())
    .bind(source)
    .bind(contract)
    .fetch_one(&database.read)
    .await?;
    let credits = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(column)?.map(Credits::from_i64));
    Ok(Snapshot { balance: credits("balance")?, unburned: credits("unburned")?.unwrap_or(Credits::ZERO) })
}

pub async fn grant(database: &Database, holder: &EvmAddress, plan: &Did, amount: Credits) -> Result<i64> {
    let balance = sqlx::query_scalar(
        "
        insert into credit_balance (plan, holder, balance, updated_at) values ($1, $2, $3, $4)
            on conflict (plan, holder) do update
           set balance = credit_balance.balance + excluded.balance, updated_at = excluded.updated_at
        returning balance
        ",
    )
    .bind(plan.to_string())
    .bind(holder.to_string())
    .bind(amount.to_i64())
    .bind(clock::now_micros())
    .fetch_one(&database.write)
    .await?;
    Ok(balance)
}

pub async fn balances(database: &Database, holder: Option<&EvmAddress>, plan: Option<&Did>) -> Result<Vec<Balance>> {
    let rows = sqlx::query(
        "
        select plan, holder, balance, updated_at
          from credit_balance
         where ($1 is null or plan = $1) and ($2 is null or holder = $2)
         order by plan, holder
        ",
    )
    .bind(plan.map(ToString::to_string))
    .bind(holder.map(ToString::to_string))
    .fetch_all(&database.read)
    .await?;
    let unreadable =
        |error: &dyn std::fmt::Display| StoreError::Unreadable { table: "credit_balance", error: error.to_string() };
    rows.into_iter()
        .map(|row| {
            Ok(Balance {
                holder: row.try_get::<&str, _>("holder")?.parse().map_err(|error| unreadable(&error))?,
                plan: row.try_get::<&str, _>("plan")?.parse().map_err(|error| unreadable(&error))?,
                balance: row.try_get("balance")?,
                updated_at_micros: row.try_get("updated_at")?,
            })
        })
        .collect()
}
