//! What the store does with clients of the authorization server.

use super::{Result, Store, StoreError, postgres, sqlite};
use crate::model::client::{Client, ClientAuthentication, GrantType};

impl Store {
    /// Registers a client.
    ///
    /// # Errors
    /// When the database is away, or there is a client of this id.
    pub async fn insert_client(&self, client: &Client) -> Result<()> {
        match self {
            Self::Postgres(database) => database.limited(postgres::oauth_client::insert(database, client)).await,
            Self::Sqlite(database) => database.limited(sqlite::oauth_client::insert(database, client)).await,
        }
    }

    /// A client, active or not.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn client(&self, id: &str) -> Result<Option<Client>> {
        if id.contains('\0') {
            // Postgres keeps no NUL in a text, and a stranger may ask for one.
            return Ok(None);
        }
        match self {
            Self::Postgres(database) => database.limited(postgres::oauth_client::find(database, id)).await,
            Self::Sqlite(database) => database.limited(sqlite::oauth_client::find(database, id)).await,
        }
    }

    /// All clients, active or not, the newest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn clients(&self) -> Result<Vec<Client>> {
        match self {
            Self::Postgres(database) => database.limited(postgres::oauth_client::list(database)).await,
            Self::Sqlite(database) => database.limited(sqlite::oauth_client::list(database)).await,
        }
    }

    /// Changes an active client's name, redirect URIs, grants, scopes, origins and rate limit, if nobody has changed it
    /// since it was read: `seen_micros` is the `updated_at_micros` that was read. Says whether it did.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn replace_client(&self, client: &Client, seen_micros: i64) -> Result<bool> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::oauth_client::replace(database, client, seen_micros)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::oauth_client::replace(database, client, seen_micros)).await
            }
        }
    }

    /// Gives an active client that has a secret another one. Says whether there is such a client.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn set_client_secret(&self, id: &str, secret_hash: &str) -> Result<bool> {
        match self {
            Self::Postgres(database) => {
                database.limited(postgres::oauth_client::set_secret(database, id, secret_hash)).await
            }
            Self::Sqlite(database) => {
                database.limited(sqlite::oauth_client::set_secret(database, id, secret_hash)).await
            }
        }
    }

    /// Deactivates a client, for good; may be repeated. Says whether there is such a client.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn deactivate_client(&self, id: &str) -> Result<bool> {
        match self {
            Self::Postgres(database) => database.limited(postgres::oauth_client::deactivate(database, id)).await,
            Self::Sqlite(database) => database.limited(sqlite::oauth_client::deactivate(database, id)).await,
        }
    }

    /// The origins of all active clients' pages.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn client_origins(&self) -> Result<Vec<String>> {
        match self {
            Self::Postgres(database) => database.limited(postgres::oauth_client::origins(database)).await,
            Self::Sqlite(database) => database.limited(sqlite::oauth_client::origins(database)).await,
        }
    }
}

/// A row of `oauth_client`, times in microseconds.
pub(super) struct ClientRow {
    pub client_id: String,
    pub secret_hash: Option<String>,
    pub name: String,
    pub redirect_uris: Vec<String>,
    pub grant_types: Vec<String>,
    pub allowed_scopes: Vec<String>,
    pub allowed_origins: Vec<String>,
    pub sign_method: String,
    pub rate_limit: i32,
    pub active: bool,
    pub created_at: i64,
    pub updated_at: i64,
}

impl ClientRow {
    pub(super) fn of(client: &Client) -> Self {
        Self {
            client_id: client.id.clone(),
            secret_hash: match &client.authentication {
                ClientAuthentication::None => None,
                ClientAuthentication::Secret(hash) => Some(hash.clone()),
            },
            name: client.name.clone(),
            redirect_uris: client.redirect_uris.clone(),
            grant_types: client.grant_types.iter().map(|grant| grant.as_str().to_owned()).collect(),
            allowed_scopes: client.allowed_scopes.clone(),
            allowed_origins: client.allowed_origins.clone(),
            sign_method: client.sign_method.as_str().to_owned(),
            rate_limit: client.rate_limit,
            active: client.active,
            created_at: client.created_at_micros,
            updated_at: client.updated_at_micros,
        }
    }

    pub(super) fn into_client(self) -> Result<Client> {
        let unreadable = |error: &str| StoreError::Unreadable { table: "oauth_client", error: error.to_owned() };
        let grant_types = self.grant_types.iter().map(|word| word.parse::<GrantType>());
        Ok(Client {
            id: self.client_id,
            name: self.name,
            authentication: self.secret_hash.map_or(ClientAuthentication::None, ClientAuthentication::Secret),
            redirect_uris: self.redirect_uris,
            grant_types: grant_types.collect::<Result<_, _>>().map_err(|_| unreadable("grant_types"))?,
            allowed_scopes: self.allowed_scopes,
            allowed_origins: self.allowed_origins,
            sign_method: self.sign_method.parse().map_err(|_| unreadable("sign_method"))?,
            rate_limit: self.rate_limit,
            active: self.active,
            created_at_micros: self.created_at,
            updated_at_micros: self.updated_at,
        })
    }
}
