//! `[marketplace]`: who describes services and plans.

use std::{path::PathBuf, time::Duration};

use url::Url;

use super::{
    context::Found,
    files,
    reader::Section,
    value::{BaseUrl, Size, Timeout},
};

/// The Nevermined marketplace API (nevermined.md section 7).
#[derive(Clone, Debug)]
pub struct Marketplace {
    /// `url`, or `MARKETPLACE_API_URI` (also `MARKETPLACE_API_URL`): its base; the path is ours to add.
    pub url: Url,
    /// `timeout`: of one question, all included. Default 5 s.
    pub timeout: Duration,
    /// How long answers count. Default: fresh 60 s, negative 10 s, stale 10 min, 50 000 entries.
    pub freshness: Freshness,
    /// `ca`: a PEM bundle trusted for the marketplace besides the system's.
    pub ca: Option<PathBuf>,
    /// `max_body_bytes`: a larger answer is refused. Default 1 MiB.
    pub max_body_bytes: u64,
}

/// How long a cached answer from outside counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// `fresh_for`: an answer is used without asking again.
    pub fresh_for: Duration,
    /// `negative_for`: a "there is none" is.
    pub negative_for: Duration,
    /// `stale_for`: how old an answer may be and still be used while asking again fails; counted from the answer.
    pub stale_for: Duration,
    /// `max_entries`: how many answers are remembered.
    pub max_entries: usize,
}

/// What the replaced system asked if nothing was set (nevermined.md section 11).
const DEFAULT: &str = "https://marketplace.nevermined.localnet";

impl Marketplace {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let context = section.context;
        let url = section.optional::<BaseUrl>("url", &["MARKETPLACE_API_URI", "MARKETPLACE_API_URL"]);
        let timeout = section.or("timeout", Timeout(Duration::from_secs(5))).0;
        let freshness = Freshness::read(
            section,
            &Freshness {
                fresh_for: Duration::from_mins(1),
                negative_for: Duration::from_secs(10),
                stale_for: Duration::from_mins(10),
                max_entries: 50_000,
            },
        );
        let ca = read_ca(section, "ca", &[]);
        let max_body_bytes = section.or("max_body_bytes", Size(1 << 20)).0;
        let url = match url {
            Some(found) => found.value.0,
            None if context.drop_in()
                && context.first_variable(&["MARKETPLACE_API_URI", "MARKETPLACE_API_URL"]).is_none() =>
            {
                context
                    .warn(format!("MARKETPLACE_API_URI is not set: the replaced system's default is asked, {DEFAULT}"));
                Url::parse(DEFAULT).ok()?
            }
            None => {
                if section.present() && !section.has("url") {
                    section.mistake("url", "is missing");
                }
                return None;
            }
        };
        Some(Self { url, timeout, freshness, ca, max_body_bytes })
    }
}

impl Freshness {
    /// `fresh_for`, `negative_for`, `stale_for` and `max_entries`.
    pub(super) fn read(section: &Section<'_>, default: &Self) -> Self {
        Self {
            fresh_for: section.or("fresh_for", default.fresh_for),
            negative_for: section.or("negative_for", default.negative_for),
            stale_for: section.or("stale_for", default.stale_for),
            max_entries: section.within("max_entries", 1..=100_000_000, default.max_entries),
        }
    }
}

/// A PEM bundle, which is read to see whether it is one.
pub(super) fn read_ca(section: &Section<'_>, key: &str, variables: &[&str]) -> Option<PathBuf> {
    let Found { value, at } = section.optional::<PathBuf>(key, variables)?;
    if let Err(message) = files::certificates(&value) {
        section.context.mistake(&at, message);
    }
    Some(value)
}
