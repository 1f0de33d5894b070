//! `tollgate client`: applications that users may sign in to. The same rules as those of the admin API, without its key:
//! who may run this may read the database.

use std::io::Write;

use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::{moment, on_runtime, open, table};
use crate::{
    config::Config,
    model::{client::Client, clock, secret::Secret},
    oauth::{
        Error, admin,
        registration::{ClientType, Registration, new_secret},
    },
    store::Store,
};

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Register an application.
    Create(Create),
    /// Show all applications.
    List {
        /// As the admin API shows them.
        #[arg(long)]
        json: bool,
    },
    /// Give an application another secret; the old one is of no use from then on.
    RotateSecret {
        /// Its client id.
        client_id: String,
    },
    /// Let nobody use an application any more, and take back what it was given. This cannot be undone.
    Deactivate {
        /// Its client id.
        client_id: String,
    },
}

/// What is registered.
#[derive(Args)]
#[command(group(ArgGroup::new("kind").required(true).args(["confidential", "public"])))]
pub struct Create {
    /// What users are told.
    name: String,
    /// Its client id, if it is written into a program: letters, digits, `-`, `.` and `_`. Default: a random one.
    #[arg(long, value_parser = client_id)]
    id: Option<String>,
    /// It runs on a server and can keep a secret, which is printed once.
    #[arg(long)]
    confidential: bool,
    /// It runs with its users and can keep no secret.
    #[arg(long)]
    public: bool,
    /// Where users are sent back to. Repeatable.
    #[arg(long = "redirect-uri")]
    redirect_uris: Vec<String>,
    /// What it may do: `authorization_code`, `refresh_token`, `urn:ietf:params:oauth:grant-type:device_code`. Repeatable.
    #[arg(long = "grant", default_values = ["authorization_code", "refresh_token"])]
    grants: Vec<String>,
    /// A pattern of what it may ask for, as `subnet:*:miner`. Repeatable; none: anything.
    #[arg(long = "scope")]
    scopes: Vec<String>,
    /// An origin of its pages. Repeatable.
    #[arg(long = "origin")]
    origins: Vec<String>,
    /// The wallets of its users.
    #[arg(long, default_value = "sr25519")]
    wallet: Wallet,
    /// Token requests in a minute; 0: any number.
    #[arg(long, default_value_t = 60)]
    rate_limit: i32,
}

/// A kind of wallet.
#[derive(Clone, Copy, ValueEnum)]
enum Wallet {
    /// Bittensor's.
    Sr25519,
    /// Ethereum's.
    Evm,
}

/// Does it.
///
/// # Errors
/// When the database does not, there is no such client, or a rule is broken.
pub fn run(command: Command, config: &Config) -> anyhow::Result<()> {
    let production = config.oauth.as_ref().is_none_or(|oauth| oauth.production);
    on_runtime(async {
        let store = open(config)?;
        if config.database.migrate_at_start {
            store.migrate().await?;
        }
        let text = match command {
            Command::Create(create) => create.register(&store, production).await?,
            Command::List { json } => list(&store, json).await?,
            Command::RotateSecret { client_id } => rotate(&store, &client_id).await?,
            Command::Deactivate { client_id } => {
                if !store.deactivate_client(&client_id).await? {
                    bail!("there is no client {client_id}");
                }
                store.revoke_client(&client_id, clock::now_micros()).await?;
                format!("{client_id} is deactivated, and nobody is signed in to it any more.\n")
            }
        };
        store.close().await;
        write!(std::io::stdout().lock(), "{text}")?;
        Ok(())
    })
}

/// A part of what RFC 6749 appendix A.1 allows: what can stand in an address and on a command line as it is.
fn client_id(text: &str) -> Result<String, String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if (1..=100).contains(&text.len()) && text.bytes().all(fine) {
        return Ok(text.to_owned());
    }
    Err("it must be of letters, digits, '-', '.' and '_', and not longer than 100".to_owned())
}

impl Create {
    async fn register(self, store: &Store, production: bool) -> anyhow::Result<String> {
        let method = match self.wallet {
            Wallet::Sr25519 => "sr25519",
            Wallet::Evm => "evm",
        };
        let registration = Registration {
            client_name: self.name,
            client_type: if self.confidential { ClientType::Confidential } else { ClientType::Public },
            redirect_uris: self.redirect_uris,
            grant_types: self.grants,
            allowed_scopes: self.scopes,
            allowed_origins: self.origins,
            allowed_sign_methods: vec![method.to_owned()],
            rate_limit: self.rate_limit,
        };
        let (mut client, secret) = registration.into_client(production).await.map_err(explained)?;
        if let Some(id) = self.id {
            // A deactivated client keeps its id.
            if store.client(&id).await?.is_some() {
                bail!("there is a client {id} already");
            }
            client.id = id;
        }
        store.insert_client(&client).await.context("registering the client")?;
        Ok(shown(&client.id, secret.as_ref()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn explained(error: Error) -> anyhow::Error {
    anyhow!("{}", error.description())
}

fn shown(id: &str, secret: Option<&Secret>) -> String {
    let secret = secret.map(|secret| {
        format!("client_secret  {}\nThe secret is not kept and cannot be shown again.\n", secret.expose())
    });
    format!("client_id      {id}\n{}", secret.unwrap_or_default())
}

async fn list(store: &Store, json: bool) -> anyhow::Result<String> {
    let clients = store.clients().await?;
    if json {
        let documents: Vec<_> = clients.iter().map(admin::shown).collect();
        return Ok(format!("{}\n", serde_json::Value::from(documents)));
    }
    let row = |client: &Client| {
        vec![
            client.id.clone(),
            client.name.clone(),
            client.kind().to_owned(),
            client.sign_method.as_str().to_owned(),
            if client.active { "active" } else { "deactivated" }.to_owned(),
            moment(client.created_at_micros),
        ]
    };
    let rows: Vec<_> = clients.iter().map(row).collect();
    Ok(table(&["CLIENT ID", "NAME", "TYPE", "WALLET", "STATE", "REGISTERED"], &rows))
}

async fn rotate(store: &Store, id: &str) -> anyhow::Result<String> {
    let (secret, hash) = new_secret().await.map_err(explained)?;
    if !store.set_client_secret(id, &hash).await? {
        bail!("there is no active client {id} that has a secret");
    }
    Ok(shown(id, Some(&secret)))
}
