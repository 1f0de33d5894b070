//! `tollgate token`: access tokens made with the configured key, as a Nevermined Node makes them.

use std::{io::Write, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::credits::plan;
use crate::{
    authn::nevermined::{Authentication, Claims, issue},
    config::Config,
    model::{address::EvmAddress, clock::Timestamp, did::Did, endpoint::Endpoint, secret::Secret},
};

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Make an access token and print it.
    Issue(Issue),
}

/// What the token says.
#[derive(Args)]
pub struct Issue {
    /// The service's DID.
    #[arg(long)]
    service: Did,
    /// The plan's DID, or its 64 digits.
    #[arg(long, value_parser = plan)]
    plan: Did,
    /// Who holds the credits.
    #[arg(long)]
    holder: EvmAddress,
    /// Whom the service belongs to; told to the upstream. Default: nobody.
    #[arg(long, default_value = "0x0000000000000000000000000000000000000000")]
    owner: EvmAddress,
    /// What may be called: an absolute URL, whose path may hold patterns such as `/users/:id` and `/(.*)`. Repeatable.
    #[arg(long = "endpoint", required = true)]
    endpoints: Vec<String>,
    /// A file with the bearer token that the provider's service wants. Default: it wants none.
    #[arg(long)]
    upstream_bearer_file: Option<std::path::PathBuf>,
    /// For how many days it is valid.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
}

/// Does it.
///
/// # Errors
/// When there is no key, or an endpoint cannot be understood.
pub fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    let Command::Issue(issue) = command;
    let token = issue.token(config)?;
    writeln!(std::io::stdout().lock(), "{token}")?;
    Ok(())
}

impl Issue {
    fn token(&self, config: &Config) -> anyhow::Result<String> {
        let keys = config.nevermined.as_ref().map(|nevermined| &nevermined.keys);
        let key = keys.and_then(|keys| keys.first()).context("no key is configured: [nevermined] key_file")?;
        for endpoint in &self.endpoints {
            Endpoint::parse(endpoint).with_context(|| format!("endpoint {endpoint:?}"))?;
        }
        let authentication = match &self.upstream_bearer_file {
            None => Authentication::None,
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
                Authentication::Bearer(Secret::new(text.trim().to_owned()))
            }
        };
        let now = Timestamp::now();
        let lifetime = Duration::from_secs(u64::from(self.days).saturating_mul(86_400));
        let claims = Claims {
            service: self.service,
            plan: self.plan,
            user: self.holder,
            owner: self.owner,
            erc_type: 1155,
            endpoints: self.endpoints.clone(),
            authentication,
            issued_at: Some(now),
            not_before: None,
            expires_at: Some(now.plus(lifetime)),
        };
        issue(&claims, key).context("making the token")
    }
}
