//! `tollgate key`: the authorization server's signing keys. A running server takes up what changes within seconds.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::{Subcommand, ValueEnum};

use super::{moment, table};
use crate::{
    config::Config,
    jose::{Algorithm, SigningKey},
    model::clock,
    oauth::{
        keys::{Role, read_private},
        metadata::REMEMBERED,
    },
};

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Make the first key, and the one after it.
    Generate {
        /// What tokens are signed with.
        #[arg(long, default_value = "RS256")]
        algorithm: Kind,
    },
    /// Sign with the next key from now on, and make another next one. The one before stays published until the next
    /// rotation, so leave a token's lifetime in between.
    Rotate {
        /// What the new next key signs with. Default: the same as the one before.
        #[arg(long)]
        algorithm: Option<Kind>,
        /// Do not wait until everybody knows the next key: after a theft.
        #[arg(long)]
        now: bool,
    },
    /// Show the keys.
    List,
}

/// A kind of key.
#[derive(Clone, Copy, ValueEnum)]
pub enum Kind {
    /// RSA, 2048 bits: what every client understands.
    #[value(name = "RS256")]
    Rs256,
    /// P-256.
    #[value(name = "ES256")]
    Es256,
    /// Ed25519.
    #[value(name = "EdDSA")]
    EdDsa,
}

impl From<Kind> for Algorithm {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Rs256 => Self::Rs256,
            Kind::Es256 => Self::Es256,
            Kind::EdDsa => Self::EdDsa,
        }
    }
}

/// Does it.
///
/// # Errors
/// When keys are not kept in a folder, or the folder cannot be used.
pub fn run(command: &Command, config: &Config) -> anyhow::Result<()> {
    let source = config.oauth.as_ref().map(|oauth| &oauth.keys).context("there is no [oauth] section")?;
    let directory =
        source.directory().context("the signing key is in the RSA_… variables: set TOLLGATE_SIGNING_KEYS")?;
    match command {
        Command::Generate { algorithm } => generate(directory, (*algorithm).into())?,
        Command::Rotate { algorithm, now } => rotate(directory, algorithm.map(Algorithm::from), *now)?,
        Command::List => {}
    }
    write!(std::io::stdout().lock(), "{}", list(directory)?)?;
    Ok(())
}

fn generate(directory: &Path, algorithm: Algorithm) -> anyhow::Result<()> {
    let current = Role::Current.path(directory);
    ensure!(!current.exists(), "{} is there already: `tollgate key rotate` exchanges it", current.display());
    fs::create_dir_all(directory).with_context(|| format!("making the folder {}", directory.display()))?;
    let _lock = lock(directory)?;
    make(directory, Role::Current, algorithm)?;
    make(directory, Role::Next, algorithm)
}

/// At every moment in between there is a current key, and no key signs that was not published before.
fn rotate(directory: &Path, algorithm: Option<Algorithm>, now: bool) -> anyhow::Result<()> {
    let _lock = lock(directory)?;
    let [current, next, previous] = Role::ALL.map(|role| role.path(directory));
    let Some(pem) = read_private(&next)? else {
        let algorithm = algorithm.map_or_else(|| kind_of(&current), Ok)?;
        make(directory, Role::Next, algorithm)?;
        if now {
            return rotate_to(directory, [&current, &next, &previous], algorithm);
        }
        bail!("there was no next key; now there is one. Rotate when everybody knows it, in an hour");
    };
    let published = fs::metadata(&next).and_then(|about| about.modified()).context("reading the next key's age")?;
    let age = published.elapsed().unwrap_or(Duration::ZERO);
    if age < REMEMBERED && !now {
        bail!(
            "the next key was made {} minutes ago, and clients may remember the key set for {}: wait, or say --now",
            age.as_secs() / 60,
            REMEMBERED.as_secs() / 60,
        );
    }
    let algorithm = match algorithm {
        Some(algorithm) => algorithm,
        None => SigningKey::from_pem(&pem).context("the next key")?.algorithm(),
    };
    rotate_to(directory, [&current, &next, &previous], algorithm)
}

fn rotate_to(directory: &Path, [current, next, previous]: [&PathBuf; 3], algorithm: Algorithm) -> anyhow::Result<()> {
    let old = read_private(current)?.context("there is no current key: `tollgate key generate`")?;
    write_key(directory, previous, &old)?;
    fs::rename(next, current).context("making the next key the current one")?;
    make(directory, Role::Next, algorithm)
}

fn kind_of(path: &Path) -> anyhow::Result<Algorithm> {
    let pem = read_private(path)?.context("there is no current key: `tollgate key generate`")?;
    Ok(SigningKey::from_pem(&pem).with_context(|| path.display().to_string())?.algorithm())
}

/// One at a time.
fn lock(directory: &Path) -> anyhow::Result<File> {
    let lock = File::create(directory.join(".lock")).with_context(|| format!("locking {}", directory.display()))?;
    lock.lock().context("waiting for another `tollgate key`")?;
    Ok(lock)
}

fn make(directory: &Path, role: Role, algorithm: Algorithm) -> anyhow::Result<()> {
    write_key(directory, &role.path(directory), &algorithm.generate()?)
}

/// Whole or not at all.
fn write_key(directory: &Path, path: &Path, pem: &[u8]) -> anyhow::Result<()> {
    let unfinished = directory.join(".new.pem");
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(pem)?;
    file.sync_all()?;
    fs::rename(&unfinished, path).with_context(|| format!("writing {}", path.display()))
}

fn list(directory: &Path) -> anyhow::Result<String> {
    let mut rows = Vec::new();
    for role in Role::ALL {
        let path = role.path(directory);
        let Some(pem) = read_private(&path)? else { continue };
        let key = SigningKey::from_pem(&pem).with_context(|| path.display().to_string())?;
        let age = fs::metadata(&path).and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
        let age = age.and_then(|age| i64::try_from(age.as_micros()).ok()).unwrap_or_default();
        let made = moment(clock::now_micros().saturating_sub(age));
        rows.push(vec![role.as_str().to_owned(), key.algorithm().as_str().to_owned(), key.kid().to_owned(), made]);
    }
    Ok(table(&["ROLE", "SIGNS WITH", "KEY ID", "WRITTEN"], &rows))
}
