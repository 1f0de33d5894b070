//! Who may ask for tokens: looking clients up, and making sure of them (RFC 6749 §2.3, auth-gateway.md section 4.1).

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use openssl::sha::Sha256;
use quick_cache::sync::Cache;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

use super::{Code, Error, Limit, RateKey, Rates, Settings, secret};
use crate::{
    config::OAuthCompatibility,
    metrics::OAuth as Metrics,
    model::{
        client::{Client, ClientAuthentication},
        secret::Secret,
    },
    store::{Store, StoreError},
};

/// How long what was looked up counts: as long a client that another gateway changed is still the old one here.
const FRESH: Duration = Duration::from_secs(5);
const MAX_CLIENTS: usize = 10_000;
/// Secrets that are hashed at a time, and how long one may wait for its turn.
const HASHED_AT_ONCE: usize = 2;
const HASH_PATIENCE: Duration = Duration::from_secs(5);

/// What a request's body says about who is asking. To be flattened into the body of an endpoint.
#[derive(Clone, Default, Deserialize)]
pub struct Credentials {
    /// `client_id`
    pub client_id: Option<String>,
    /// `client_secret`
    pub client_secret: Option<String>,
}

/// Clients, as they were a moment ago.
pub struct Clients {
    store: Store,
    rates: Arc<Rates>,
    metrics: Arc<Metrics>,
    compatibility: OAuthCompatibility,
    tries: Limit,
    known: Cache<String, (Instant, Arc<Client>)>,
    /// Fingerprints of secrets that were right, so that each is hashed once and not at every request.
    right: Cache<[u8; 32], ()>,
    /// Makes those fingerprints worthless to others.
    salt: Uuid,
    origins: Mutex<Option<(Instant, Arc<HashSet<String>>)>>,
    hashing: Semaphore,
}

impl Clients {
    pub(super) fn new(store: Store, rates: Arc<Rates>, metrics: Arc<Metrics>, settings: &Settings) -> Self {
        Self {
            store,
            rates,
            metrics,
            compatibility: settings.compatibility,
            tries: Limit(settings.limits.secrets),
            known: Cache::new(MAX_CLIENTS),
            right: Cache::new(MAX_CLIENTS),
            salt: Uuid::new_v4(),
            origins: Mutex::default(),
            hashing: Semaphore::new(HASHED_AT_ONCE),
        }
    }

    /// A client that is active.
    ///
    /// # Errors
    /// When the store does not answer and nothing is remembered.
    pub async fn active(&self, id: &str) -> Result<Option<Arc<Client>>, StoreError> {
        if let Some((asked, client)) = self.known.get(id)
            && asked.elapsed() < FRESH
        {
            return Ok(Some(client));
        }
        let asked = Instant::now();
        let found = self.store.client(id).await?.filter(|client| client.active).map(Arc::new);
        match &found {
            Some(client) => self.known.insert(id.to_owned(), (asked, Arc::clone(client))),
            None => {
                self.known.remove(id);
            }
        }
        Ok(found)
    }

    /// To be called when a client has been changed.
    pub async fn forget(&self, id: &str) {
        self.known.remove(id);
        *self.origins.lock().await = None;
    }

    /// Whether an active client has pages of this origin.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn knows_origin(&self, origin: &str) -> Result<bool, StoreError> {
        let mut known = self.origins.lock().await;
        if let Some((asked, origins)) = known.as_ref()
            && asked.elapsed() < FRESH
        {
            return Ok(origins.contains(origin));
        }
        let asked = Instant::now();
        let origins: HashSet<String> = self.store.client_origins().await?.into_iter().collect();
        let found = origins.contains(origin);
        *known = Some((asked, Arc::new(origins)));
        Ok(found)
    }

    /// Finds out which client is asking, by `client_secret_basic`, `client_secret_post` or `none`.
    ///
    /// # Errors
    /// `invalid_client`; 429 if this address has tried too many secrets; 503 if it cannot be found out.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        unverified: Credentials,
        address: IpAddr,
    ) -> Result<Arc<Client>, Error> {
        let (id, secret) = self.presented(headers, unverified)?;
        let client = self.active(&id).await?.ok_or_else(|| Error::invalid_client("Unknown or inactive client"))?;
        match (&client.authentication, secret) {
            (ClientAuthentication::None, _) => Ok(client),
            (ClientAuthentication::Secret(_), None) => Err(Error::invalid_client("client_secret is required")),
            (ClientAuthentication::Secret(hash), Some(secret)) => {
                self.check(&client.id, hash.clone(), secret, address).await?;
                Ok(client)
            }
        }
    }

    /// The id and secret that were presented, in the one form or the other.
    fn presented(&self, headers: &HeaderMap, body: Credentials) -> Result<(String, Option<Secret>), Error> {
        let header = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let basic = header.filter(|value| value.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic ")));
        let standard = self.compatibility == OAuthCompatibility::Standard;
        match basic.map(|value| decode_basic(value.get(6..).unwrap_or_default())) {
            Some(Some((id, secret))) => {
                // RFC 6749 §2.3: not more than one method in a request.
                let other = body.client_secret.is_some() || body.client_id.is_some_and(|other| other != id);
                if standard && other {
                    return Err(Error::oauth(Code::InvalidRequest, "The client authenticates in two ways at once"));
                }
                Ok((id, Some(secret)))
            }
            Some(None) if standard => Err(Error::invalid_client("The Authorization header cannot be read")),
            Some(None) | None => {
                let id = body.client_id.filter(|id| !id.is_empty());
                let id = id.ok_or_else(|| Error::invalid_client("client_id is required"))?;
                Ok((id, body.client_secret.filter(|secret| !secret.is_empty()).map(Secret::new)))
            }
        }
    }

    /// A hash takes a good part of a tenth of a second, so tries are limited before one is made.
    async fn check(&self, id: &str, hash: String, secret: Secret, address: IpAddr) -> Result<(), Error> {
        let fingerprint = self.fingerprint(id, &hash, &secret);
        if self.right.get(&fingerprint).is_some() {
            return Ok(());
        }
        self.rates.take(RateKey::address("secrets", "", address), self.tries).await?;
        let turn = tokio::time::timeout(HASH_PATIENCE, self.hashing.acquire()).await;
        let Ok(Ok(_permit)) = turn else {
            return Err(Error::unavailable("Too many clients authenticate at the same time; try again"));
        };
        let timer = self.metrics.secret_seconds.start_timer();
        let hashed = tokio::task::spawn_blocking(move || secret::matches(&secret, &hash)).await;
        timer.observe_duration();
        if !hashed.map_err(|error| Error::internal(&error))? {
            return Err(Error::invalid_client("Invalid client credentials"));
        }
        self.right.insert(fingerprint, ());
        Ok(())
    }

    fn fingerprint(&self, id: &str, hash: &str, secret: &Secret) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [self.salt.as_bytes(), id.as_bytes(), hash.as_bytes(), secret.expose().as_bytes()] {
            digest.update(&part.len().to_be_bytes());
            digest.update(part);
        }
        digest.finish()
    }
}

/// `id:secret`, both percent-encoded (RFC 6749 §2.3.1).
fn decode_basic(encoded: &str) -> Option<(String, Secret)> {
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let id = percent_decoded(id)?;
    (!id.is_empty()).then_some((id, Secret::new(percent_decoded(secret)?)))
}

/// None: there is a percent sign that begins no byte, or the bytes are no text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(if byte == b'%' { (digit(rest.next())? << 4) | digit(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_percent_encoded() {
        for (text, expected) in [
            ("id:secret", Some(("id", "secret"))),
            ("a%3Ab:s%25t", Some(("a:b", "s%t"))),
            ("id:a+b", Some(("id", "a+b"))),
            ("id:", Some(("id", ""))),
            ("id:a:b", Some(("id", "a:b"))),
            (":secret", None),
            ("id", None),
            ("id:%zz", None),
            ("id:%4", None),
            ("id:%ff", None),
        ] {
            let found = decode_basic(&STANDARD.encode(text));
            let found = found.as_ref().map(|(id, secret)| (id.as_str(), secret.expose()));
            assert_eq!(found, expected, "{text}");
        }
        assert!(decode_basic("not base64").is_none());
    }
}
