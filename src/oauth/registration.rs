//! What may be registered as a client (auth-gateway.md sections 1.5 and 5.2): the rules behind the admin API and
//! `tollgate client`.

use serde::Deserialize;
use url::{Host, Url};
use uuid::Uuid;

use super::{Error, cors, scope, secret};
use crate::model::{
    client::{Client, ClientAuthentication, GrantType, SignMethod},
    clock,
    secret::Secret,
};

/// A client to be registered.
#[derive(Clone, Debug, Deserialize)]
pub struct Registration {
    /// What users are told.
    pub client_name: String,
    /// Whether it can keep a secret.
    pub client_type: ClientType,
    /// Where codes may be sent.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// What it may do at the token endpoint.
    #[serde(default = "code_alone")]
    pub grant_types: Vec<String>,
    /// Patterns of what it may ask for.
    #[serde(default)]
    pub allowed_scopes: Vec<String>,
    /// Origins of its pages.
    #[serde(default)]
    pub allowed_origins: Vec<String>,
    /// Exactly one.
    #[serde(default = "sr25519_alone")]
    pub allowed_sign_methods: Vec<String>,
    /// Token requests in a minute; 0 or less: any number.
    #[serde(default = "sixty")]
    pub rate_limit: i32,
}

/// RFC 6749 §2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientType {
    /// It can keep a secret.
    Confidential,
    /// It cannot.
    Public,
}

/// What is to be changed; lists replace the old ones.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Change {
    client_name: Option<String>,
    redirect_uris: Option<Vec<String>>,
    grant_types: Option<Vec<String>>,
    allowed_scopes: Option<Vec<String>>,
    allowed_origins: Option<Vec<String>>,
    rate_limit: Option<i32>,
}

fn code_alone() -> Vec<String> {
    vec![GrantType::AuthorizationCode.as_str().to_owned()]
}

fn sr25519_alone() -> Vec<String> {
    vec![SignMethod::Sr25519.as_str().to_owned()]
}

fn sixty() -> i32 {
    60
}

impl Registration {
    /// A client with a new id and, if it can keep one, a new secret, which is not kept anywhere else.
    ///
    /// # Errors
    /// When it breaks a rule; the text says which.
    pub async fn into_client(self, production: bool) -> Result<(Client, Option<Secret>), Error> {
        let grant_types = grants(&self.grant_types)?;
        let method = match self.allowed_sign_methods.as_slice() {
            [method] => method.parse::<SignMethod>().ok(),
            _ => None,
        };
        let sign_method = method
            .ok_or_else(|| Error::bad_request("allowed_sign_methods must contain exactly one of sr25519 and evm"))?;
        check_redirect_uris(&self.redirect_uris, production)?;
        check_scopes(&self.allowed_scopes)?;
        let (authentication, secret) = match self.client_type {
            ClientType::Public => (ClientAuthentication::None, None),
            ClientType::Confidential => {
                let (secret, hash) = new_secret().await?;
                (ClientAuthentication::Secret(hash), Some(secret))
            }
        };
        let now = clock::now_micros();
        let client = Client {
            id: Uuid::new_v4().to_string(),
            name: text(self.client_name)?,
            authentication,
            redirect_uris: self.redirect_uris,
            grant_types,
            allowed_scopes: self.allowed_scopes,
            allowed_origins: origins(&self.allowed_origins)?,
            sign_method,
            rate_limit: self.rate_limit,
            active: true,
            created_at_micros: now,
            updated_at_micros: now,
        };
        check_whole(&client)?;
        check_evm(&client)?;
        Ok((client, secret))
    }
}

impl Change {
    /// The client after the change.
    ///
    /// # Errors
    /// When nothing is to be changed, or a rule is broken.
    pub fn apply(self, client: Client, production: bool) -> Result<Client, Error> {
        let touches_whole = self.grant_types.is_some() || self.redirect_uris.is_some() || self.allowed_scopes.is_some();
        let touches =
            touches_whole || self.client_name.is_some() || self.allowed_origins.is_some() || self.rate_limit.is_some();
        if !touches {
            return Err(Error::bad_request("At least one field must be given"));
        }
        if let Some(uris) = &self.redirect_uris {
            check_redirect_uris(uris, production)?;
        }
        if let Some(scopes) = &self.allowed_scopes {
            check_scopes(scopes)?;
        }
        let scopes_given = self.allowed_scopes.is_some();
        let changed = Client {
            name: self.client_name.map_or_else(|| Ok(client.name), text)?,
            redirect_uris: self.redirect_uris.unwrap_or(client.redirect_uris),
            grant_types: self.grant_types.map_or(Ok(client.grant_types), |words| grants(&words))?,
            allowed_scopes: self.allowed_scopes.unwrap_or(client.allowed_scopes),
            allowed_origins: self.allowed_origins.map_or(Ok(client.allowed_origins), |list| origins(&list))?,
            rate_limit: self.rate_limit.unwrap_or(client.rate_limit),
            ..client
        };
        if touches_whole {
            check_whole(&changed)?;
        }
        if scopes_given {
            check_evm(&changed)?;
        }
        Ok(changed)
    }
}

/// A secret and its hash, made where it keeps nobody waiting.
///
/// # Errors
/// When the cryptographic library fails.
pub async fn new_secret() -> Result<(Secret, String), Error> {
    let made = tokio::task::spawn_blocking(|| {
        let secret = secret::generate()?;
        let hash = secret::hash(&secret)?;
        Ok((secret, hash))
    });
    let made: Result<_, secret::LibraryError> = made.await.map_err(|error| Error::internal(&error))?;
    made.map_err(|error| Error::internal(&error))
}

/// Postgres keeps no NUL in a text.
fn text(text: String) -> Result<String, Error> {
    if text.contains('\0') { Err(Error::bad_request("a text must not hold NUL")) } else { Ok(text) }
}

fn grants(words: &[String]) -> Result<Vec<GrantType>, Error> {
    let grant = |word: &String| {
        GrantType::ALL
            .into_iter()
            .find(|grant| grant.as_str() == word)
            .ok_or_else(|| Error::bad_request(format!("Unsupported grant type: {word}")))
    };
    words.iter().map(grant).collect()
}

fn check_scopes(scopes: &[String]) -> Result<(), Error> {
    match scopes.iter().find(|entry| !scope::is_pattern(entry)) {
        None => Ok(()),
        Some(entry) => Err(Error::bad_request(format!("Invalid scope format: {entry}"))),
    }
}

fn origins(list: &[String]) -> Result<Vec<String>, Error> {
    let origin =
        |text: &String| cors::normal(text).ok_or_else(|| Error::bad_request(format!("Invalid allowed origin: {text}")));
    list.iter().map(origin).collect()
}

fn check_redirect_uris(uris: &[String], production: bool) -> Result<(), Error> {
    let fault = uris.iter().find_map(|uri| Some((uri, redirect_uri_fault(uri, production)?)));
    match fault {
        None => Ok(()),
        Some((uri, why)) => Err(Error::bad_request(format!("Invalid redirect_uri {uri}: {why}"))),
    }
}

/// Why codes may not be sent there. None: they may.
#[must_use]
pub fn redirect_uri_fault(uri: &str, production: bool) -> Option<&'static str> {
    let Ok(url) = Url::parse(uri) else { return Some("it is no absolute URL") };
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if local || !production => {}
        "http" => return Some("it must begin with https:// unless its host is this machine"),
        _ => return Some("it must begin with https:// or http://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("it must not hold a user name or password");
    }
    // RFC 6749 §3.1.2.
    if uri.contains('#') {
        return Some("it must not have a fragment");
    }
    let printable = uri.bytes().all(|byte| !byte.is_ascii_control() && byte != b' ');
    (!printable).then_some("it must not hold spaces or control characters")
}

fn check_whole(client: &Client) -> Result<(), Error> {
    if client.grant_types.contains(&GrantType::AuthorizationCode) && client.redirect_uris.is_empty() {
        return Err(Error::bad_request("redirect_uris must not be empty for the authorization_code grant"));
    }
    Ok(())
}

fn check_evm(client: &Client) -> Result<(), Error> {
    let openid_alone = !client.allowed_scopes.is_empty() && client.allowed_scopes.iter().all(|entry| entry == "openid");
    if client.sign_method == SignMethod::Evm && !openid_alone {
        return Err(Error::bad_request("Clients for EVM wallets must have allowed_scopes of openid alone"));
    }
    Ok(())
}
