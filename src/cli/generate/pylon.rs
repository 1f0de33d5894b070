//! A new key from Pylon, which makes and publishes it itself.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use url::Url;

use super::{
    agree, is_loopback, misused,
    pair::{self, Directory},
    say,
};
use crate::{
    chain::{
        http,
        pylon::{
            self, Pylon,
            generate::{LONGEST, NotMade},
        },
    },
    config::Environment,
    model::{
        hotkey::Hotkey,
        neuron::{NetUid, PublishedKey},
    },
    tls::neuron::NeuronKey,
};

/// Which Pylon, and who we are to it. The token is read from `NEXUS_PYLON_IDENTITY_TOKEN` or the file that
/// `NEXUS_PYLON_IDENTITY_TOKEN_FILE` names: other people can read command lines.
#[derive(Args)]
#[group(skip)]
pub struct Options {
    /// The name under which Pylon knows the wallet. Environment: `NEXUS_PYLON_IDENTITY_NAME`.
    #[arg(long, value_name = "NAME")]
    pub identity_name: Option<String>,
    /// Where Pylon is (default `http://pylon:8000`). Environment: `NEXUS_PYLON_ENDPOINT`.
    #[arg(long, value_name = "URL")]
    pylon_endpoint: Option<String>,
    /// Let the private key travel from another machine without TLS.
    #[arg(long)]
    allow_plaintext: bool,
}

/// An identity of a Pylon.
pub struct Identity {
    pylon: Pylon,
    name: String,
    netuid: NetUid,
    patience: Duration,
    /// Why the answer with the private key may not be asked for.
    forbidden: Option<String>,
}

/// What the replaced system asked.
const DEFAULT: &str = "http://pylon:8000";
/// Pylon itself asks the chain for each of our questions.
const QUESTION: Duration = Duration::from_secs(30);
/// Between two looks whether the key is there.
const PAUSE: Duration = Duration::from_millis(500);

impl Options {
    /// Puts flags and environment together.
    pub fn identity(
        &self,
        name: &str,
        netuid: NetUid,
        patience: Duration,
        environment: &Environment,
    ) -> anyhow::Result<Identity> {
        let endpoint = self.pylon_endpoint.clone().filter(|endpoint| !endpoint.trim().is_empty());
        let endpoint =
            endpoint.or_else(|| environment.value("NEXUS_PYLON_ENDPOINT")).unwrap_or_else(|| DEFAULT.to_owned());
        let url = Url::parse(endpoint.trim().trim_end_matches('/')).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(url) = url else {
            return Err(misused(format!("-pylon-endpoint {endpoint:?} is not an http or https URL")));
        };
        let plaintext = url.scheme() == "http" && !is_loopback(&url) && !self.allow_plaintext;
        let forbidden = plaintext.then(|| {
            format!(
                "Pylon sends the private key, and {} is another machine without TLS: use https, or a tunnel to this \
                 machine, or say --allow-plaintext if nobody else is on the way",
                url.host_str().unwrap_or_default()
            )
        });
        if matches!(name, "." | "..") {
            return Err(misused("-identity-name is no name"));
        }
        let token = environment.secret("NEXUS_PYLON_IDENTITY_TOKEN").map_err(misused)?;
        if token.is_none() {
            say("NEXUS_PYLON_IDENTITY_TOKEN is not set: only a Pylon before version 2.0 answers without");
        }
        let http = http::Options { timeout: QUESTION, extra_ca_pem: None };
        let pylon = Pylon::new(&pylon::Options { url, identity: name.to_owned(), token, http }).context("Pylon")?;
        Ok(Identity { pylon, name: name.to_owned(), netuid, patience, forbidden })
    }
}

impl Identity {
    /// The key that the chain has of a hotkey.
    pub async fn published(&self, hotkey: &Hotkey) -> anyhow::Result<Option<PublishedKey>> {
        self.pylon.belongs_to(self.netuid).await?;
        Ok(self.pylon.key(self.netuid, Some(*hotkey)).await?)
    }

    /// Has a new key made, keeps it as the next one, and makes sure that it is the one the chain has.
    pub async fn renew(&self, directory: &Directory, hotkey: &Hotkey) -> anyhow::Result<NeuronKey> {
        if let Some(why) = &self.forbidden {
            bail!("{why}");
        }
        self.pylon.belongs_to(self.netuid).await?;
        let (own, stated) = self.keys(hotkey).await?;
        ensure!(own == stated, "{}", self.another_wallet(hotkey));
        let next = directory.file(pair::NEXT_KEY);
        if next.exists() {
            let key = pair::read_key(&next)?;
            if own == Some(PublishedKey::Ed25519(*key.public())) {
                say("an earlier run has had this key published: finishing what it began");
                return Ok(key);
            }
        }
        let room = directory.room(pair::NEXT_KEY)?;
        let made = self.pylon.make_key(self.netuid, self.patience.min(LONGEST)).await.map_err(|not| match not {
            NotMade::Refused(why) => anyhow::anyhow!("{why}. No key has been published"),
            NotMade::Unknown(why) => anyhow::anyhow!("{why}. {LOST}"),
        })?;
        let key = NeuronKey::from_seed(&made.seed)?;
        ensure!(
            made.unverified_public == PublishedKey::Ed25519(*key.public()),
            "the private key in Pylon's answer does not belong to the public key beside it. {LOST}"
        );
        room.keep(&key)?;
        self.seen(hotkey, &key).await?;
        Ok(key)
    }

    /// Waits until the chain, as Pylon sees it, has the key.
    async fn seen(&self, hotkey: &Hotkey, key: &NeuronKey) -> anyhow::Result<()> {
        let until = Instant::now() + self.patience;
        let expected = Some(PublishedKey::Ed25519(*key.public()));
        loop {
            let looked = self.keys(hotkey).await;
            match &looked {
                Ok((own, stated)) if *own == expected && *stated == expected => return Ok(()),
                Ok((own, stated)) if *own == expected && own != stated && Instant::now() >= until => {
                    bail!("{}; the new key is kept in {}", self.another_wallet(hotkey), pair::NEXT_KEY)
                }
                _ if Instant::now() < until => tokio::time::sleep(PAUSE).await,
                _ => {
                    let why = match looked {
                        Ok((own, _)) => agree(own, key, KEPT),
                        Err(error) => Err(error),
                    };
                    return why.with_context(|| format!("Pylon has made the key, and it cannot be confirmed. {KEPT}"));
                }
            }
        }
    }

    /// The key of the identity's wallet, and that of the hotkey.
    async fn keys(&self, hotkey: &Hotkey) -> anyhow::Result<(Option<PublishedKey>, Option<PublishedKey>)> {
        let own = self.pylon.key(self.netuid, None).await?;
        Ok((own, self.pylon.key(self.netuid, Some(*hotkey)).await?))
    }

    fn another_wallet(&self, hotkey: &Hotkey) -> String {
        format!(
            "{hotkey} is not the hotkey of Pylon's identity {:?}: the chain has different keys of the two",
            self.name
        )
    }
}

/// What to do when a key may have been published that nobody has.
const LOST: &str = "A key may have been published that nobody has, and the one before would count no more. The files are \
                    as they were. Look whether the old certificate still works, or run this again with -force-recreate: \
                    another new key replaces whatever there is. The chain allows one change in a while (50 blocks, ten \
                    minutes, by default)";

/// What to do when the key is kept and not yet seen.
const KEPT: &str = "It is kept in client.key.next: run this again, and it goes on from here";
