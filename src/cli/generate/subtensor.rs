//! A new key without Pylon: made here, kept here, and published by a transaction that the hotkey signs.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use url::Url;

use super::{
    agree, is_loopback, misused,
    pair::{self, Directory},
    say,
};
use crate::{
    chain::subtensor::{
        self, Node, Subtensor,
        serve::{self, Axon, NotServed},
    },
    config::Environment,
    model::{
        hotkey::Hotkey,
        neuron::{NetUid, PublishedKey},
    },
    tls::neuron::NeuronKey,
    wallet::keyfile::{HotkeyPair, exposed},
};

/// Which node, and whose wallet.
#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// A node of the chain, instead of Pylon: wss:// or ws://. One that you trust: it says what is signed.
    #[arg(long, value_name = "URL")]
    pub subtensor_url: Option<String>,
    /// The hotkey's file.
    #[arg(long, value_name = "FILE", conflicts_with = "wallet_name", requires = "subtensor_url")]
    wallet: Option<PathBuf>,
    /// The wallet's name, for the file `WALLETS/NAME/hotkeys/HOTKEY`.
    #[arg(long, value_name = "NAME", requires = "subtensor_url")]
    wallet_name: Option<String>,
    /// The hotkey's name in that wallet.
    #[arg(long, value_name = "HOTKEY", default_value = "default")]
    wallet_hotkey: String,
    /// Where the wallets are (default `~/.bittensor/wallets`).
    #[arg(long, value_name = "WALLETS")]
    wallet_path: Option<PathBuf>,
    /// Where the neuron is reached, if the chain is to have another address than it has.
    #[arg(long, value_name = "ADDRESS", requires = "subtensor_url")]
    ip: Option<IpAddr>,
    /// On which port, if another one than the chain has.
    #[arg(long, value_name = "PORT", requires = "subtensor_url", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

/// A hotkey's account, at a node.
pub struct Account {
    node: Node,
    netuid: NetUid,
    pair: Option<HotkeyPair>,
    ip: Option<IpAddr>,
    port: Option<u16>,
    patience: Duration,
}

/// Of one question to the node.
const QUESTION: Duration = Duration::from_secs(30);
/// Between two looks whether the key is there. Public nodes allow a question a second (subtensor.md section 9.3).
const PAUSE: Duration = Duration::from_secs(2);
/// What to do when the key is kept and not published for sure.
const KEPT: &str = "It is kept in client.key.next: run this again, and it goes on from here";

impl Options {
    /// Puts the flags together, and reads the wallet if something is to be signed.
    pub fn account(
        &self,
        signs: bool,
        netuid: NetUid,
        patience: Duration,
        environment: &Environment,
    ) -> anyhow::Result<Account> {
        let url = self.subtensor_url.as_deref().and_then(|text| Url::parse(text.trim()).ok());
        let url = url.filter(|url| matches!(url.scheme(), "ws" | "wss") && url.has_host());
        let Some(url) = url else {
            return Err(misused("--subtensor-url must be a URL that begins with wss:// or ws://"));
        };
        if signs && url.scheme() == "ws" && !is_loopback(&url) {
            say("the node is asked without TLS: whoever is on the way can change what the hotkey signs");
        }
        let node = Node::new(subtensor::Options { url, genesis_hash: None, timeout: QUESTION })?;
        let pair = if signs { Some(self.pair(environment)?) } else { None };
        Ok(Account { node, netuid, pair, ip: self.ip, port: self.port, patience })
    }

    fn pair(&self, environment: &Environment) -> anyhow::Result<HotkeyPair> {
        let file = match (&self.wallet, &self.wallet_name) {
            (Some(file), _) => file.clone(),
            (None, Some(name)) => {
                let wallets = match (&self.wallet_path, environment.value("HOME")) {
                    (Some(path), _) => path.clone(),
                    (None, Some(home)) => PathBuf::from(home).join(".bittensor/wallets"),
                    (None, None) => {
                        return Err(misused("HOME is not set: say where the wallets are with --wallet-path"));
                    }
                };
                wallets.join(name).join("hotkeys").join(&self.wallet_hotkey)
            }
            (None, None) => {
                return Err(misused("publishing a key takes the hotkey: --wallet FILE, or --wallet-name NAME"));
            }
        };
        if exposed(&file) {
            say(&format!("everybody on this machine can read the hotkey: chmod 600 {}", file.display()));
        }
        HotkeyPair::open(&file).context("the wallet")
    }
}

impl Account {
    /// The hotkey that signs, if one does.
    pub fn signer(&self) -> Option<Hotkey> {
        self.pair.as_ref().map(HotkeyPair::hotkey)
    }

    /// Makes a key, or takes the one that an earlier run has made, publishes it, and makes sure that the chain has it.
    pub async fn renew(&self, directory: &Directory, hotkey: &Hotkey) -> anyhow::Result<NeuronKey> {
        // Before a key is made: what the node and the chain have against it.
        let chain = self.node.connect().await?;
        let axon = self.axon(&chain, hotkey).await?;
        let next = directory.file(pair::NEXT_KEY);
        let key = if next.exists() {
            say("an earlier run has left a key: going on with it");
            pair::read_key(&next)?
        } else {
            let key = NeuronKey::generate()?;
            directory.keep_next(&key)?;
            key
        };
        if chain.key(self.netuid, hotkey).await? != Some(PublishedKey::Ed25519(*key.public())) {
            self.publish(chain, hotkey, &key, axon).await.map_err(|why| anyhow::anyhow!("{why:#}. {KEPT}"))?;
        }
        Ok(key)
    }

    /// Makes sure that the chain has this key, and publishes it if that is wanted and it has not.
    pub async fn confirm(&self, hotkey: &Hotkey, key: &NeuronKey, publish: bool) -> anyhow::Result<()> {
        let chain = self.node.connect().await?;
        match agree(chain.key(self.netuid, hotkey).await?, key, "--publish and a wallet make it this one") {
            Err(_) if publish => {
                let axon = self.axon(&chain, hotkey).await?;
                self.publish(chain, hotkey, key, axon).await
            }
            agreed => agreed,
        }
    }

    /// Where the neuron is to be reached, according to the chain and our flags.
    async fn axon(&self, chain: &Subtensor, hotkey: &Hotkey) -> anyhow::Result<Axon> {
        let axon = match (chain.axon(self.netuid, hotkey).await?, self.ip, self.port) {
            (Some(axon), ip, port) => axon.moved(ip, port),
            (None, Some(ip), Some(port)) => Axon::new(ip, port),
            (None, ..) => bail!(
                "the chain does not know yet where {hotkey} is reached on subnet {}: say it with --ip and --port",
                self.netuid
            ),
        };
        if axon.port() == 0 {
            bail!("the chain has port 0 of {hotkey}, which it does not take again: name the real one with --port");
        }
        Ok(axon)
    }

    /// Publishes, waits until that is final, and reads back: what the chain dislikes about a key it passes over in
    /// silence.
    async fn publish(&self, mut chain: Subtensor, hotkey: &Hotkey, key: &NeuronKey, axon: Axon) -> anyhow::Result<()> {
        let pair = self.pair.as_ref().context("there is no wallet to sign with")?;
        let sign = |message: &[u8]| pair.sign(message);
        let account = serve::Account { hotkey: *hotkey, sign: &sign };
        let until = Instant::now() + self.patience;
        let publishing = chain.publish(self.netuid, key.public(), axon, &account);
        let result = tokio::time::timeout(self.patience, publishing).await;
        let doubt = match result {
            Ok(Err(NotServed::Refused(why))) => bail!("{why}"),
            Ok(Err(NotServed::Unknown(why))) => Some(why),
            Err(_) => Some(format!("after {} s the transaction is not final yet", self.patience.as_secs())),
            Ok(Ok(())) => None,
        };
        loop {
            let looked = match chain.key(self.netuid, hotkey).await {
                Ok(published) => agree(published, key, "the transaction has not changed that"),
                Err(failed) => {
                    // The connection may be broken.
                    chain = self.node.connect().await.unwrap_or(chain);
                    Err(failed.into())
                }
            };
            match (looked, &doubt) {
                (Ok(()), _) => return Ok(()),
                (Err(_), None) if Instant::now() < until => tokio::time::sleep(PAUSE).await,
                (Err(error), None) => {
                    return Err(error).context("the transaction went through, and the key cannot be confirmed");
                }
                (Err(_), Some(why)) => bail!("{why}. It may still be published"),
            }
        }
    }
}
