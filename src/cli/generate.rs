//! `tollgate generate`: the key and the certificate by which a neuron is known.
//!
//! Flags, files and exit codes are those of the replaced system (nexus.md sections 1.1 and 2), and so is asking Pylon for
//! the key. Other than there, no key is published before it is on disk or room for it is, none is thrown away because
//! its certificate is missing, and what is published is read back before this says that all is well.

mod pair;
mod pylon;
mod subtensor;

use std::{io::Write as _, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{ArgAction, Args, CommandFactory as _, builder::BoolishValueParser};

use self::pair::{Directory, Present};
use crate::{
    config::Environment,
    model::{
        clock::Timestamp,
        hotkey::Hotkey,
        neuron::{NetUid, PublishedKey},
    },
    tls::neuron::NeuronKey,
};

/// How, and for whom. Each may also be written as the replaced system had it, with one dash.
#[derive(Args)]
pub struct Options {
    /// The hotkey that the certificate is for. With a wallet: by default its own.
    #[arg(long, value_name = "ADDRESS")]
    ss58_address: Option<String>,
    /// The subnet. Environment: `NEXUS_PYLON_NETUID`.
    #[arg(long, alias = "net-uid", allow_negative_numbers = true, value_name = "NUMBER")]
    netuid: Option<u16>,
    /// Where the two files are.
    #[arg(long, default_value = "./certs", value_name = "DIRECTORY")]
    output_dir: PathBuf,
    /// For how many days the certificate is valid.
    #[arg(long, default_value_t = 3650, allow_negative_numbers = true, value_name = "DAYS",
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    not_after_days: u32,
    /// The kind of key: 1, Ed25519, is the only one in use.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true, value_name = "NUMBER",
          value_parser = clap::value_parser!(u8).range(1..=1))]
    algorithm: u8,
    /// Make and publish a new key although there is one.
    #[arg(long, action = ArgAction::Set, value_parser = BoolishValueParser::new(), num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, value_name = "BOOLEAN")]
    force_recreate: bool,
    /// Keep the key in the output directory and make its certificate anew.
    #[arg(long, conflicts_with = "from_key")]
    reissue: bool,
    /// Make the certificate for the Ed25519 key in this PEM file (PKCS#8), which is published already.
    #[arg(long, value_name = "FILE")]
    from_key: Option<PathBuf>,
    /// With --reissue or --from-key: publish that key if the chain has another one.
    #[arg(long)]
    publish: bool,
    /// How long to wait for the key to be published and seen, in seconds.
    #[arg(long, default_value_t = 180, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(10..=3600))]
    timeout: u32,
    #[command(flatten)]
    pylon: pylon::Options,
    #[command(flatten)]
    subtensor: subtensor::Options,
}

/// The command line is wrong: exit code 2, with the usage.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misused(String);

/// What is wanted, from flags and environment.
struct Wanted<'a> {
    options: &'a Options,
    hotkey: Hotkey,
    source: Option<Source>,
}

/// Who publishes keys, and says which are published.
enum Source {
    Pylon(pylon::Identity),
    Subtensor(Box<subtensor::Account>),
}

/// Does it.
///
/// # Errors
/// [`Misused`] when a flag is missing or two do not fit. Otherwise when the key cannot be made, published or confirmed:
/// the text says what to do then.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = Wanted::read(options, &Environment::from_process())?;
    work(&wanted).context("Failed to generate a certificate")
}

fn work(wanted: &Wanted<'_>) -> anyhow::Result<()> {
    let options = wanted.options;
    let unfinished = pair::unfinished(&options.output_dir);
    let present = pair::present(&options.output_dir)?;
    let (key, certificate) = (options.output_dir.join(pair::KEY), options.output_dir.join(pair::CERTIFICATE));
    let keeps = options.reissue || options.from_key.is_some();
    if keeps && unfinished {
        bail!(
            "{} is there: a key that an earlier run has made and may have published. Run `tollgate generate` without \
             --reissue and --from-key to finish what it began, or remove the file",
            options.output_dir.join(pair::NEXT_KEY).display()
        );
    }
    if present == Present::Both && !options.force_recreate && !options.reissue && !unfinished {
        let tightened =
            if pair::tighten(&key)? { "; the key's file was readable for all, and is not any more" } else { "" };
        say(&format!(
            "nothing done: {} and {} are there (-force-recreate makes a new key, --reissue a new certificate){tightened}",
            key.display(),
            certificate.display()
        ));
        return Ok(());
    }
    if keeps {
        return keep(wanted, present);
    }
    if !options.force_recreate && !unfinished {
        match present {
            Present::KeyAlone => bail!(
                "{} is there and {} is not. --reissue makes the certificate for that key, which the chain may have; \
                 -force-recreate makes and publishes a new key",
                key.display(),
                certificate.display()
            ),
            Present::CertificateAlone => bail!(
                "{} is there without its key. Put the key beside it, or name it with --from-key; -force-recreate makes and \
                 publishes a new key",
                certificate.display()
            ),
            Present::Nothing | Present::Both => {}
        }
    }
    let directory = Directory::open(&options.output_dir)?;
    // The certificate's place is tried before anything is published.
    drop(directory.room(pair::CERTIFICATE)?);
    drop(directory.room(pair::KEY)?);
    let key = super::on_runtime(async {
        match &wanted.source {
            Some(Source::Pylon(identity)) => identity.renew(&directory, &wanted.hotkey).await,
            Some(Source::Subtensor(account)) => account.renew(&directory, &wanted.hotkey).await,
            None => bail!("nobody is named who could publish the key"),
        }
    })?;
    directory.replace_both(&wanted.certificate(&key)?)?;
    wanted.done(&directory, "a new key");
    Ok(())
}

/// Makes a certificate for a key that there is.
fn keep(wanted: &Wanted<'_>, present: Present) -> anyhow::Result<()> {
    let options = wanted.options;
    let in_place = options.output_dir.join(pair::KEY);
    let from = options.from_key.clone().unwrap_or_else(|| in_place.clone());
    let key = pair::read_key(&from)?;
    let replaces = matches!(present, Present::CertificateAlone | Present::Both) && !options.reissue;
    let other = matches!(present, Present::KeyAlone | Present::Both)
        && pair::read_key(&in_place).ok().is_none_or(|there| there.public() != key.public());
    if (replaces || other) && !options.force_recreate {
        bail!(
            "the files in {} are of another key or certificate: -force-recreate replaces them",
            options.output_dir.display()
        );
    }
    let directory = Directory::open(&options.output_dir)?;
    drop(directory.room(pair::CERTIFICATE)?);
    drop(directory.room(pair::KEY)?);
    super::on_runtime(wanted.confirm(&key))?;
    let certificate = wanted.certificate(&key)?;
    if options.reissue || present == Present::KeyAlone && !other {
        pair::tighten(&in_place)?;
    } else {
        directory.replace_key(&key)?;
    }
    directory.replace_certificate(&certificate)?;
    wanted.done(&directory, "the same key");
    if wanted.source.is_none() {
        say("it was not compared with the chain: with --subtensor-url or -identity-name it would have been");
    }
    Ok(())
}

impl<'a> Wanted<'a> {
    fn read(options: &'a Options, environment: &Environment) -> anyhow::Result<Self> {
        let named = |flag: &Option<String>, variable: &str| {
            flag.clone().filter(|text| !text.trim().is_empty()).or_else(|| environment.value(variable))
        };
        let address = options.ss58_address.as_deref().map(str::trim).filter(|address| !address.is_empty());
        let stated = match address {
            Some(address) => {
                let parsed = address.parse::<Hotkey>();
                Some(parsed.map_err(|why| misused(format!("-ss58-address {address:?}: {why}")))?)
            }
            None => None,
        };
        let keeps = options.reissue || options.from_key.is_some();
        if options.reissue && options.force_recreate {
            return Err(misused("--reissue keeps the key, and -force-recreate makes a new one: say one of the two"));
        }
        if options.publish && !keeps {
            return Err(misused(
                "--publish goes with --reissue or --from-key: without them a new key is always published",
            ));
        }
        let identity = named(&options.pylon.identity_name, "NEXUS_PYLON_IDENTITY_NAME");
        let patience = Duration::from_secs(options.timeout.into());
        if options.subtensor.subtensor_url.is_some() {
            let signs = !keeps || options.publish;
            let account = options.subtensor.account(signs, netuid(options, environment)?, patience, environment)?;
            let hotkey = match (stated, account.signer()) {
                (Some(stated), Some(own)) if stated != own => {
                    return Err(misused(format!("-ss58-address {stated} is not the wallet's hotkey, which is {own}")));
                }
                (Some(hotkey), _) | (None, Some(hotkey)) => hotkey,
                (None, None) => return Err(misused("-ss58-address is required")),
            };
            return Ok(Self { options, hotkey, source: Some(Source::Subtensor(Box::new(account))) });
        }
        let Some(hotkey) = stated else { return Err(misused("-ss58-address is required")) };
        if keeps && options.publish {
            return Err(misused(
                "--publish needs --subtensor-url and a wallet: Pylon publishes keys of its own making alone",
            ));
        }
        let source = match identity {
            None if keeps => None,
            None => return Err(misused("-identity-name is required (or set NEXUS_PYLON_IDENTITY_NAME)")),
            Some(name) => {
                let netuid = netuid(options, environment)?;
                Some(Source::Pylon(options.pylon.identity(name.trim(), netuid, patience, environment)?))
            }
        };
        Ok(Self { options, hotkey, source })
    }

    /// Makes sure that the chain has this key, if anybody is named who knows.
    async fn confirm(&self, key: &NeuronKey) -> anyhow::Result<()> {
        match &self.source {
            None => Ok(()),
            Some(Source::Pylon(identity)) => agree(
                identity.published(&self.hotkey).await?,
                key,
                "publish it with --subtensor-url, a wallet and --publish",
            ),
            Some(Source::Subtensor(account)) => account.confirm(&self.hotkey, key, self.options.publish).await,
        }
    }

    fn certificate(&self, key: &NeuronKey) -> anyhow::Result<String> {
        key.certificate(&self.hotkey, Timestamp::now(), self.options.not_after_days).context("making the certificate")
    }

    fn done(&self, directory: &Directory, which: &str) {
        say(&format!(
            "{} and {} are there: {which}, certified for {} for {} days",
            directory.file(pair::KEY).display(),
            directory.file(pair::CERTIFICATE).display(),
            self.hotkey,
            self.options.not_after_days
        ));
    }
}

/// Whether what is published is this key.
fn agree(published: Option<PublishedKey>, key: &NeuronKey, advice: &str) -> anyhow::Result<()> {
    match published {
        Some(PublishedKey::Ed25519(published)) if published == *key.public() => Ok(()),
        Some(PublishedKey::Ed25519(_)) => {
            bail!("the chain has another key of this hotkey than the one in the file: {advice}")
        }
        Some(PublishedKey::Unusable(why)) => {
            bail!("the chain has something else than an Ed25519 key of this hotkey ({why}): {advice}")
        }
        None => bail!("the chain has no key of this hotkey: {advice}"),
    }
}

fn netuid(options: &Options, environment: &Environment) -> anyhow::Result<NetUid> {
    if let Some(netuid) = options.netuid {
        return Ok(NetUid(netuid));
    }
    let Some(text) = environment.value("NEXUS_PYLON_NETUID") else {
        return Err(misused("NEXUS_PYLON_NETUID is required (set env var or use -net-uid flag)"));
    };
    let number = text
        .trim()
        .parse()
        .map_err(|_| misused(format!("NEXUS_PYLON_NETUID {text:?} is not the number of a subnet")))?;
    Ok(NetUid(number))
}

fn misused(what: impl Into<String>) -> anyhow::Error {
    Misused(format!("{}\n\n{}", what.into(), usage())).into()
}

fn usage() -> String {
    let mut cli = super::Cli::command();
    cli.build();
    cli.find_subcommand_mut("generate").map(|command| command.render_help().to_string()).unwrap_or_default()
}

/// One line for the log. Standard error may be closed; there is nobody to tell then.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "tollgate generate: {line}");
}

/// Whether a URL's host is this machine.
fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::from(address).to_canonical().is_loopback(),
        None => false,
    }
}
