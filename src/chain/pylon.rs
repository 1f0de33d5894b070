//! Pylon, the service that reads the chain of neurons for others (nexus.md section 4).
//!
//! A Pylon identity belongs to one subnet, so each subnet is asked for as an identity of its own. Asked for another,
//! versions from 2.0 on answer 308 to the right one; followed, that would admit the neurons of a subnet that nobody
//! configured. So no redirect is followed, and what the identity belongs to is asked before the first table, and again
//! after every failure.

pub mod generate;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use reqwest::{Client, StatusCode, Url, header::HeaderValue};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::runtime::Handle;

use super::{
    cache::{self, Cache, Clock},
    fault::{Failed, Fault},
    http,
    http::Object,
    neurons::LookUps,
};
use crate::model::{
    address::hex_decode,
    decision::Dependency,
    hotkey::Hotkey,
    neuron::{NetUid, Neuron, PublishedKey, Subnet},
    secret::Secret,
};

/// Where Pylon is and who we are to it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its base address, to which `/api/v1/…` is added.
    pub url: Url,
    /// The identity that is asked as.
    pub identity: String,
    /// The identity's token. None: none is sent, as before Pylon 2.0.
    pub token: Option<Secret>,
    /// How to reach it.
    pub http: http::Options,
}

/// Pylon, asked as one identity. Clones share everything.
#[derive(Clone)]
pub struct Pylon(Arc<Shared>);

struct Shared {
    client: Client,
    base: Url,
    identity: String,
    bearer: Option<HeaderValue>,
    timeout: String,
    /// Whether the identity is known to belong to the subnet that is asked for.
    verified: AtomicBool,
}

/// Who is asked for which subnet. Clones share it.
#[derive(Clone, Default)]
pub struct Identities(Arc<ArcSwap<HashMap<NetUid, Pylon>>>);

impl Identities {
    /// From now on these are asked, and no others.
    pub fn replace(&self, identities: HashMap<NetUid, Pylon>) {
        self.0.store(Arc::new(identities));
    }

    /// Single hotkeys, remembered. The next table has whoever came, so "there is none" counts for long, and a key
    /// only until that table is there.
    #[must_use]
    pub fn look_ups(&self, refresh: Duration, timeout: Duration, clock: Clock, handle: Handle) -> LookUps {
        let options = cache::Options {
            capacity: 50_000,
            fresh_for: refresh,
            stale_for: refresh,
            negative_for: Duration::from_mins(10),
            retry_after: Duration::from_secs(5),
            fetch_timeout: timeout,
            wait: timeout.saturating_add(Duration::from_secs(1)),
            ..cache::Options::default()
        };
        let identities = self.clone();
        Cache::new(Dependency::Neurons, options, clock, handle, move |(netuid, hotkey)| {
            let pylon = identities.0.load().get(&netuid).cloned();
            Box::pin(async move {
                let nobody = || mismatch(format!("no identity belongs to subnet {netuid}"));
                pylon.ok_or_else(nobody)?.key(netuid, hotkey).await
            })
        })
    }
}

/// The token cannot stand in a header, or the client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PylonError {
    /// The token has characters that no header may have.
    #[error("the token cannot be sent in a header")]
    Token,
    /// The client cannot be built.
    #[error(transparent)]
    Client(#[from] http::ClientError),
}

/// A subnet of thousands of neurons fits. Usual ones take 40 kB of certificates and 200 kB of neurons.
const ANSWER_LIMIT: usize = 8 << 20;

impl Pylon {
    /// A Pylon. Nothing is asked yet.
    ///
    /// # Errors
    /// When the token cannot be sent or the client cannot be built.
    pub fn new(options: &Options) -> Result<Self, PylonError> {
        let bearer = match &options.token {
            None => None,
            Some(token) => {
                let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
                let mut value = value.map_err(|_| PylonError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self(Arc::new(Shared {
            client: http::client(&options.url, &options.http)?,
            base: options.url.clone(),
            identity: options.identity.clone(),
            bearer,
            timeout: options.http.timeout.as_secs_f64().to_string(),
            verified: AtomicBool::new(false),
        })))
    }

    /// The keys of a whole subnet and, if wanted, who is registered there.
    ///
    /// # Errors
    /// When Pylon could not be asked, is another subnet's, or answered what cannot be read.
    pub async fn subnet(&self, netuid: NetUid, registered: bool) -> Result<Subnet, Failed> {
        let subnet = self.table(netuid, registered).await;
        self.0.verified.store(subnet.is_ok(), Relaxed);
        subnet
    }

    async fn table(&self, netuid: NetUid, registered: bool) -> Result<Subnet, Failed> {
        if !self.0.verified.load(Relaxed) {
            self.verify(netuid).await?;
        }
        // Before the table, so that the table is not older than this block.
        let block = self.latest_block().await?;
        let keys = self.identity_path(netuid, &["block", "latest", "certificates"])?;
        let Object(keys) = read::<Object<HashMap<String, Value>>>(&self.found(keys).await?)?;
        let neurons = if registered { self.neurons(netuid).await? } else { None };
        Ok(Subnet { block, keys: keys.iter().filter_map(|(name, entry)| published(name, entry)).collect(), neurons })
    }

    /// The key of one hotkey, or, without one, of Pylon's own wallet. None: it has published none.
    ///
    /// # Errors
    /// When Pylon could not be asked, or answered what cannot be read.
    pub async fn key(&self, netuid: NetUid, hotkey: Option<Hotkey>) -> Result<Option<PublishedKey>, Failed> {
        let name = hotkey.map_or_else(|| "self".to_owned(), |hotkey| hotkey.to_string());
        let path = self.identity_path(netuid, &["block", "latest", "certificates", &name])?;
        match self.get(path).await? {
            (StatusCode::OK, body) => Ok(Some(published_key(&read::<Value>(&body)?))),
            // There is also a 404 for an identity that Pylon does not know, and that is not an answer.
            (StatusCode::NOT_FOUND, body) if is_about_key(&body) => Ok(None),
            (status, _) => Err(refused(status)),
        }
    }

    /// Whether the identity belongs to the subnet.
    async fn verify(&self, netuid: NetUid) -> Result<(), Failed> {
        let (status, body) = self.get(self.path(&["identities"])?).await?;
        if status == StatusCode::NOT_FOUND {
            tracing::warn!("this Pylon does not say which subnets its identities belong to; the path alone names ours");
            return Ok(());
        }
        if status != StatusCode::OK {
            return Err(refused(status));
        }
        let Object(Listed { identities }) = read(&body)?;
        let identity = &self.0.identity;
        match identities.get(identity) {
            Some(found) if *found == u64::from(netuid.0) => Ok(()),
            Some(found) => Err(mismatch(format!("Pylon's identity {identity:?} belongs to subnet {found}"))),
            None => Err(mismatch(format!("Pylon has no identity {identity:?}"))),
        }
    }

    /// The number of the chain's best block; 0: this Pylon does not say (before 1.2).
    async fn latest_block(&self) -> Result<u64, Failed> {
        match self.get(self.path(&["block", "latest"])?).await? {
            (StatusCode::OK, body) => Ok(read::<Object<Block>>(&body)?.0.number),
            (StatusCode::NOT_FOUND, _) => Ok(0),
            (status, _) => Err(refused(status)),
        }
    }

    /// Who is registered, out of Pylon's own memory if it has it. None: it says so in a way that we cannot read.
    async fn neurons(&self, netuid: NetUid) -> Result<Option<HashMap<Hotkey, Neuron>>, Failed> {
        let recent = self.get(self.identity_path(netuid, &["block", "recent", "neurons"])?).await?;
        let body = match recent {
            (StatusCode::OK, body) => body,
            (StatusCode::SERVICE_UNAVAILABLE | StatusCode::NOT_FOUND, _) => {
                self.found(self.identity_path(netuid, &["block", "latest", "neurons"])?).await?
            }
            (status, _) => return Err(refused(status)),
        };
        let Object(Metagraph { neurons }) = read(&body)?;
        let readable: HashMap<_, _> = neurons.iter().filter_map(|(name, entry)| registered(name, entry)).collect();
        if readable.len() < neurons.len() {
            tracing::warn!(%netuid, of = neurons.len(), readable = readable.len(), "Pylon describes neurons in an unknown way");
        }
        Ok(if readable.is_empty() && !neurons.is_empty() { None } else { Some(readable) })
    }

    fn path(&self, segments: &[&str]) -> Result<Url, Failed> {
        let mut url = self.0.base.clone();
        url.path_segments_mut()
            .map_err(|()| Failed::new(Fault::Transport, "Pylon's address cannot be extended"))?
            .pop_if_empty()
            .extend(["api", "v1"].iter().chain(segments));
        Ok(url)
    }

    fn identity_path(&self, netuid: NetUid, segments: &[&str]) -> Result<Url, Failed> {
        let netuid = netuid.to_string();
        let identity = ["identity", &self.0.identity, "subnet", &netuid];
        self.path(&identity.iter().chain(segments).copied().collect::<Vec<_>>())
    }

    async fn found(&self, url: Url) -> Result<Vec<u8>, Failed> {
        match self.get(url).await? {
            (StatusCode::OK, body) => Ok(body),
            (status, _) => Err(refused(status)),
        }
    }

    async fn get(&self, url: Url) -> Result<(StatusCode, Vec<u8>), Failed> {
        let Shared { client, bearer, timeout, .. } = &*self.0;
        let request = client.get(url).header("accept", "application/json").header("x-pylon-timeout", timeout);
        let request = bearer.iter().fold(request, |request, bearer| request.header("authorization", bearer));
        let response = request.send().await.map_err(http::failed)?;
        let status = response.status();
        Ok((status, http::read(response, ANSWER_LIMIT).await?))
    }
}

impl fmt::Debug for Pylon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pylon").field("identity", &self.0.identity).finish_non_exhaustive()
    }
}

/// An entry of the table. None: its name is no hotkey, so nobody can call by it. A key that cannot be read stays an
/// entry: it has been published.
fn published(name: &str, entry: &Value) -> Option<(Hotkey, PublishedKey)> {
    Some((name.parse().ok()?, published_key(entry)))
}

fn published_key(entry: &Value) -> PublishedKey {
    let algorithm = entry.get("algorithm").and_then(Value::as_u64);
    let digits = entry.get("public_key").and_then(Value::as_str);
    let key = digits.and_then(|digits| {
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let mut key = vec![0; digits.len() / 2];
        hex_decode(digits, &mut key).map(|()| key)
    });
    match (algorithm, key) {
        (Some(algorithm), Some(key)) => PublishedKey::new(algorithm, &key),
        _ => PublishedKey::Unusable("published_key_unreadable"),
    }
}

fn registered(name: &str, entry: &Value) -> Option<(Hotkey, Neuron)> {
    let neuron = PylonNeuron::deserialize(entry).ok()?;
    let stake = neuron.stakes.total;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates, and NaN is 0"
    )]
    let stake = (stake * 1e9) as u64;
    Some((name.parse().ok()?, Neuron { uid: neuron.uid, validator_permit: neuron.validator_permit, stake }))
}

#[derive(Deserialize)]
struct Listed {
    identities: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Block {
    number: u64,
}

#[derive(Deserialize)]
struct Metagraph {
    neurons: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct PylonNeuron {
    uid: u16,
    validator_permit: bool,
    stakes: Stakes,
}

#[derive(Deserialize)]
struct Stakes {
    /// Alpha and weighted TAO, as the chain's `total_stake`, but as a decimal number. `stake` beside it is not weighted.
    total: f64,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// Whether a 404 says that there is no certificate, and not that there is no such identity.
fn is_about_key(body: &[u8]) -> bool {
    read::<Object<Problem>>(body).is_ok_and(|Object(problem)| problem.detail.starts_with("Certificate"))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(body).map_err(|error| Failed::new(Fault::Malformed, format!("Pylon's answer: {error}")))
}

/// A status that is no answer.
fn refused(status: StatusCode) -> Failed {
    let number = status.as_u16();
    match number {
        300..=399 => mismatch(format!("Pylon answered {number}: the identity belongs to another subnet")),
        401 => Failed::new(Fault::Status, "Pylon answered 401: it wants a token"),
        403 => Failed::new(Fault::Status, "Pylon answered 403: the token is not the identity's"),
        _ => Failed::new(Fault::Status, format!("Pylon answered {number}")),
    }
}

fn mismatch(detail: String) -> Failed {
    Failed::new(Fault::Mismatch, detail)
}
