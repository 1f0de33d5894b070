//! Where the authorization server's signing keys are.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    config::{
        context::{Context, Found},
        files,
        reader::Section,
    },
    model::secret::Secret,
};

/// Where signing keys are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// `signing_keys`: a folder with `current.pem` and, around a rotation, `next.pem` and `previous.pem`, which
    /// `tollgate key` keeps. Default: `signing-keys` in the data directory.
    Directory(PathBuf),
    /// `RSA_PRIVATE_KEY_BASE64` and `RSA_PUBLIC_KEY_BASE64`, or `…_PATH`: the replaced system's one key.
    Pair {
        /// PEM text.
        private: Secret,
        /// PEM text.
        public: String,
    },
}

impl KeySource {
    /// None: there was a mistake, which is recorded.
    pub(super) fn read(section: &Section<'_>, data_dir: &Path, alone: bool) -> Option<Self> {
        let variables: &[&str] = if alone { &["TOLLGATE_SIGNING_KEYS"] } else { &[] };
        let directory = section.optional::<PathBuf>("signing_keys", variables).map(|found| found.value);
        match directory {
            None if alone => read_pair(section.context),
            directory => Some(Self::Directory(directory.unwrap_or_else(|| data_dir.join("signing-keys")))),
        }
    }
}

/// Both halves are wanted in the same form, as they were; base64 wins.
fn read_pair(context: &Context<'_>) -> Option<KeySource> {
    let both = |suffix: &str| {
        let half = |half: &str| context.variable(&format!("RSA_{half}_KEY_{suffix}"));
        (half("PRIVATE"), half("PUBLIC"))
    };
    let (encoded, paths) = (both("BASE64"), both("PATH"));
    let (private, public) = match (encoded, paths) {
        ((Some(private), Some(public)), _) => (decoded(context, &private)?, decoded(context, &public)?),
        (_, (Some(private), Some(public))) => {
            let text = |found: &Found<&str>| match files::read(Path::new(found.value)) {
                Ok(bytes) => Some(bytes),
                Err(message) => {
                    context.mistake(&found.at, message);
                    None
                }
            };
            if let Ok(about) = std::fs::metadata(private.value)
                && !is_private(about.mode(), about.uid())
            {
                let warning = format!("{}: other users of this machine can read {}", private.at, private.value);
                context.warn(format!("{warning}; `chmod 600` it"));
            }
            (text(&private)?, text(&public)?)
        }
        _ => {
            let message = "there is no signing key: set RSA_PRIVATE_KEY_BASE64 and RSA_PUBLIC_KEY_BASE64, or \
                           RSA_PRIVATE_KEY_PATH and RSA_PUBLIC_KEY_PATH";
            context.mistake_in_variable("RSA_PRIVATE_KEY_BASE64", message);
            return None;
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(KeySource::Pair { private: Secret::new(text(&private)), public: text(&public) })
}

fn decoded(context: &Context<'_>, found: &Found<&str>) -> Option<Zeroizing<Vec<u8>>> {
    // Some tools break base64 into lines.
    let text: Zeroizing<String> = Zeroizing::new(found.value.split_ascii_whitespace().collect());
    let bytes = STANDARD.decode(&*text).map(Zeroizing::new).ok();
    if bytes.is_none() {
        context.mistake(&found.at, "must be the base64 of a PEM file");
    }
    bytes
}

/// Whether a file is its owner's alone; or root's, who may let a group read it, as mounted secrets often do.
#[must_use]
pub fn is_private(mode: u32, owner: u32) -> bool {
    let others = mode & 0o077;
    others == 0 || (owner == 0 && others & !0o040 == 0)
}
