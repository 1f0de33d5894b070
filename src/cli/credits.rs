//! `tollgate credits`: credits that are kept in our own database.

use std::io::Write;

use clap::Subcommand;

use super::{moment, on_runtime, open, table};
use crate::{
    config::Config,
    model::{address::EvmAddress, credits::Credits, did::Did},
};

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Give a holder credits of a plan.
    Grant {
        /// The holder's Ethereum address.
        holder: EvmAddress,
        /// The plan's DID, or its 64 digits.
        #[arg(value_parser = plan)]
        plan: Did,
        /// How many.
        amount: u64,
    },
    /// Show who has how many.
    List {
        /// Only this holder's.
        #[arg(long)]
        holder: Option<EvmAddress>,
        /// Only of this plan.
        #[arg(long, value_parser = plan)]
        plan: Option<Did>,
    },
}

/// A plan's DID with or without its prefix.
pub fn plan(text: &str) -> Result<Did, String> {
    text.parse().or_else(|_| Did::from_digits(text)).map_err(|error| error.to_string())
}

/// Does it.
///
/// # Errors
/// When the database does not.
pub fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    on_runtime(async {
        let store = open(config)?;
        if config.database.migrate_at_start {
            store.migrate().await?;
        }
        let mut out = std::io::stdout().lock();
        match command {
            Command::Grant { holder, plan, amount } => {
                let balance = store.grant(holder, plan, Credits::new(*amount)).await?;
                writeln!(out, "{holder} has {balance} credits of {plan}.")?;
            }
            Command::List { holder, plan } => {
                let balances = store.balances(holder.as_ref(), plan.as_ref()).await?;
                let row = |balance: &crate::store::Balance| {
                    vec![
                        balance.holder.to_string(),
                        balance.plan.to_string(),
                        balance.balance.to_string(),
                        moment(balance.updated_at_micros),
                    ]
                };
                let rows: Vec<_> = balances.iter().map(row).collect();
                write!(out, "{}", table(&["HOLDER", "PLAN", "CREDITS", "CHANGED"], &rows))?;
            }
        }
        store.close().await;
        Ok(())
    })
}
