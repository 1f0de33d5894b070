//! `[neurons]`, `[pylon]` and `[subtensor]`: which subnets' neurons are known, and who says so.

mod policy;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use url::Url;

pub use self::policy::NeuronPolicy;
use super::{
    chain::PrivateUrl,
    context::{Context, Found},
    marketplace::read_ca,
    oauth::Network,
    reader::Section,
    value::{BaseUrl, Parse, Raw, Timeout, word},
};
use crate::model::{address::hex_decode, neuron::NetUid, secret::Secret};

/// The subnets whose neurons may call.
#[derive(Clone, Debug)]
pub struct Neurons {
    /// `netuid`: the subnet of those who name none.
    pub netuid: NetUid,
    /// `source`: `pylon` or `subtensor`. Default: the one that has a section.
    pub source: NeuronSource,
    /// `refresh`: how often the table is read at least. Default 12 s, a block.
    pub refresh: Duration,
    /// `stale_for`: how long a table is believed while the source cannot be asked. Default 10 min.
    pub stale_for: Duration,
    /// `stalled_for`: how long a table is believed while the source answers and its chain does not move on. Default
    /// 10 min.
    pub stalled_for: Duration,
}

/// Who is asked about neurons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeuronSource {
    /// `pylon`: the service of `[pylon]`.
    Pylon,
    /// `subtensor`: the chain itself, at the node of `[subtensor]`.
    Subtensor,
}

/// Pylon, the service that reads the chain for others (nexus.md section 4).
#[derive(Clone, Debug)]
pub struct Pylon {
    /// `url`: its base; `/api/v1/…` is ours to add.
    pub url: Url,
    /// `identity` and its token: who is asked for the subnet of `[neurons]`.
    pub identity: PylonIdentity,
    /// `[[pylon.subnet]]`: who is asked for other subnets.
    pub subnets: BTreeMap<NetUid, PylonIdentity>,
    /// `timeout`: of one question, all included. Default 5 s.
    pub timeout: Duration,
    /// `ca`: a PEM bundle trusted for Pylon besides the system's.
    pub ca: Option<PathBuf>,
}

/// An identity of Pylon's, which belongs to one subnet.
#[derive(Clone, Debug)]
pub struct PylonIdentity {
    /// `identity`: the name under which Pylon knows the wallet.
    pub name: String,
    /// `token` or `token_file`: its bearer token. None: for a Pylon before 2.0, which knows none.
    pub token: Option<Secret>,
}

/// A node of the chain. Where there is no file and the auth gateway's environment, `NETWORK` has one.
#[derive(Clone, Debug)]
pub struct Subtensor {
    /// `url`, `url_file` or `SUBTENSOR_WS_URL`: `ws`, `wss`, `http` or `https`. May hold an API key.
    pub url: PrivateUrl,
    /// `genesis_hash`: which chain it must be. None (the default): whichever the node has.
    pub genesis_hash: Option<[u8; 32]>,
    /// `timeout` or `SUBTENSOR_QUERY_TIMEOUT_MS`: of one question, all included. Default 10 s.
    pub timeout: Duration,
}

impl Neurons {
    pub(super) fn read(section: &Section<'_>, pylon: &Section<'_>, subtensor: &Section<'_>) -> Option<Self> {
        let context = section.context;
        let netuid = section.optional::<NetUid>("netuid", &["NEXUS_PYLON_NETUID"]);
        let source = section.optional::<NeuronSource>("source", &[]);
        let stale_for = section.or("stale_for", Timeout(Duration::from_mins(10))).0;
        // Asked for before anything is given up on, so that every key counts as known.
        let read = Self {
            netuid: NetUid(0),
            source: NeuronSource::Pylon,
            refresh: section.or("refresh", Timeout(Duration::from_secs(12))).0,
            stale_for: cached_for(context).unwrap_or(stale_for),
            stalled_for: section.or("stalled_for", Timeout(Duration::from_mins(10))).0,
        };
        if !section.present() && !context.nexus_auth() {
            return None;
        }
        let source = match (source, Pylon::is_named(pylon), subtensor.present()) {
            (Some(Found { value: NeuronSource::Pylon, at }), false, _) => {
                section.context.mistake(&at, "\"pylon\" needs a [pylon] section");
                return None;
            }
            (Some(Found { value: NeuronSource::Subtensor, at }), _, false) => {
                section.context.mistake(&at, "\"subtensor\" needs a [subtensor] section");
                return None;
            }
            (Some(found), ..) => found.value,
            (None, true, false) => NeuronSource::Pylon,
            (None, false, true) => NeuronSource::Subtensor,
            (None, false, false) => {
                section.mistake("source", "there is neither a [subtensor] nor a [pylon] section to ask");
                return None;
            }
            (None, true, true) => {
                section.mistake("source", "is missing: there are a [subtensor] and a [pylon] section");
                return None;
            }
        };
        let Some(netuid) = netuid else {
            if context.nexus_auth() && context.variable("NEXUS_PYLON_NETUID").is_none() {
                let message = "is not set: it, or -net-uid, says which subnet's neurons may pass";
                context.mistake_in_variable("NEXUS_PYLON_NETUID", message);
            } else if section.present() && !section.has("netuid") {
                section.mistake("netuid", "is missing");
            }
            return None;
        };
        if read.stale_for < read.refresh {
            section.mistake("stale_for", "is shorter than `refresh`: every table would be too old before the next");
        }
        Some(Self { netuid: netuid.value, source, ..read })
    }
}

const ENDPOINT: &str = "NEXUS_PYLON_ENDPOINT";
const IDENTITY: &str = "NEXUS_PYLON_IDENTITY_NAME";
const TOKEN: &str = "NEXUS_PYLON_IDENTITY_TOKEN";

/// `NEXUS_AUTH_CACHE_DURATION_MINS`: how long nexus-auth believed a key that it had once read. What it could not read it took for
/// its default. A table is read every few seconds, so here this counts only while Pylon cannot be asked, and nothing at all would
/// be too short for one failure.
fn cached_for(context: &Context<'_>) -> Option<Duration> {
    const NAME: &str = "NEXUS_AUTH_CACHE_DURATION_MINS";
    const DEFAULT: u64 = 15;
    /// A hundred years.
    const MOST: u64 = 100 * 365 * 24 * 60;
    let Some(found) = context.variable(NAME) else { return context.nexus_auth().then(|| Duration::from_mins(DEFAULT)) };
    let minutes = found.value.parse::<u64>().unwrap_or_else(|_| {
        context.warn(format!("{}: {:?} is no number of minutes; it is taken for {DEFAULT}", found.at, found.value));
        DEFAULT
    });
    Some(Duration::from_mins(minutes.min(MOST)).max(Duration::from_secs(30)))
}

impl Pylon {
    /// Whether there is one to ask, be it with a mistake.
    fn is_named(section: &Section<'_>) -> bool {
        section.present() || section.context.nexus_auth() || section.context.variable(ENDPOINT).is_some()
    }

    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let context = section.context;
        let url = section.optional::<BaseUrl>("url", &[ENDPOINT]);
        let identity = section.optional::<IdentityName>("identity", &[IDENTITY]);
        let token = section.secret("token", Some(TOKEN));
        let timeout = section.or("timeout", Timeout(Duration::from_secs(5))).0;
        let ca = read_ca(section, "ca", &[]);
        let subnets = other_identities(section, identity.as_ref().map(|found| found.value.0.as_str()));
        for (key, given) in [("url", url.is_some()), ("identity", identity.is_some())] {
            if section.present() && !given && !section.has(key) {
                section.mistake(key, "is missing");
            }
        }
        let default = || {
            Url::parse("http://pylon:8000")
                .ok()
                .filter(|_| context.nexus_auth() && context.variable(ENDPOINT).is_none())
        };
        let url = url.map(|found| found.value.0).or_else(default);
        let token = token.ok()?.map(|found| found.value);
        if context.nexus_auth() {
            // It started without them, and refused everybody.
            if identity.is_none() && context.variable(IDENTITY).is_none() {
                context.mistake_in_variable(
                    IDENTITY,
                    "is not set: it names the identity that Pylon was given for the subnet",
                );
            }
            if token.is_none() {
                context.mistake_in_variable(
                    TOKEN,
                    "is not set: it, or a file named in …_FILE, is the token of that identity",
                );
            }
        }
        let (mut url, identity) = (url?, identity?.value.0);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        if token.is_none() {
            let at = section.spot("token");
            section.context.warn(format!("{at} is not set: only a Pylon before version 2.0 answers without"));
        }
        Some(Self { url, identity: PylonIdentity { name: identity, token }, subnets, timeout, ca })
    }

    /// Who is asked for a subnet, where `default` is that of `[neurons]`. None: nobody.
    #[must_use]
    pub fn identity_of(&self, netuid: NetUid, default: NetUid) -> Option<&PylonIdentity> {
        if netuid == default { Some(&self.identity) } else { self.subnets.get(&netuid) }
    }
}

/// `[[pylon.subnet]]`.
fn other_identities(section: &Section<'_>, first: Option<&str>) -> BTreeMap<NetUid, PylonIdentity> {
    let mut written = section.sections("subnet");
    if written.is_empty() {
        // So that its keys are known.
        written.push(section.section("subnet"));
    }
    let mut subnets = BTreeMap::new();
    let mut names: BTreeSet<String> = first.map(str::to_owned).into_iter().collect();
    for subnet in written {
        let netuid = subnet.optional::<NetUid>("netuid", &[]);
        let name = subnet.optional::<IdentityName>("identity", &[]);
        let token = subnet.secret("token", None);
        for (key, given) in [("netuid", netuid.is_some()), ("identity", name.is_some())] {
            if subnet.present() && !given && !subnet.has(key) {
                subnet.mistake(key, "is missing");
            }
        }
        let (Ok(token), Some(netuid), Some(name)) = (token, netuid, name) else { continue };
        let identity = PylonIdentity { name: name.value.0, token: token.map(|found| found.value) };
        if !names.insert(identity.name.clone()) {
            section.context.mistake(&name.at, "is named twice: an identity belongs to one subnet");
        }
        if subnets.insert(netuid.value, identity).is_some() {
            section.context.mistake(&netuid.at, format!("is named twice: who is asked for subnet {}?", netuid.value));
        }
    }
    subnets
}

impl Subtensor {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let alone = section.context.replaced().auth_gateway;
        let url = section.secret("url", alone.then_some("SUBTENSOR_WS_URL"));
        let genesis_hash = section.optional::<Hash>("genesis_hash", &[]).map(|found| found.value.0);
        let timeout = section.or("timeout", Timeout(Duration::from_secs(10))).0;
        let timeout = if alone { query_timeout(section.context).unwrap_or(timeout) } else { timeout };
        let Some(Found { value, at }) = url.ok()? else {
            if alone {
                return Self::public(section.context, timeout);
            }
            if section.present() {
                section.mistake("url", "is missing");
            }
            return None;
        };
        let url = PrivateUrl::parse_node(&value).map_err(|message| section.context.mistake(&at, message)).ok()?;
        Some(Self { url, genesis_hash, timeout })
    }

    /// The node that the auth gateway asked if it was told of none (auth-gateway.md section 8).
    fn public(context: &Context<'_>, timeout: Duration) -> Option<Self> {
        // A wrong NETWORK has been reported where [oauth] reads it.
        let testnet = context.variable("NETWORK").is_some_and(|found| found.value == Network::Testnet.as_str());
        let (url, genesis_hash) = if testnet {
            ("wss://test.finney.opentensor.ai:443", None)
        } else {
            ("wss://entrypoint-finney.opentensor.ai:443", Some(MAINNET))
        };
        Some(Self { url: PrivateUrl::new(Url::parse(url).ok()?), genesis_hash, timeout })
    }
}

/// The hash of the main network's first block (subtensor.md section 2).
const MAINNET: [u8; 32] = [
    0x2f, 0x05, 0x55, 0xcc, 0x76, 0xfc, 0x28, 0x40, 0xa2, 0x5a, 0x6e, 0xa3, 0xb9, 0x63, 0x71, 0x46, 0x80, 0x6f, 0x1f,
    0x44, 0xb0, 0x90, 0xc1, 0x75, 0xff, 0xde, 0x2a, 0x7e, 0x5a, 0xb3, 0x6c, 0x03,
];

/// `SUBTENSOR_QUERY_TIMEOUT_MS`.
fn query_timeout(context: &Context<'_>) -> Option<Duration> {
    const NAME: &str = "SUBTENSOR_QUERY_TIMEOUT_MS";
    let found = context.parsed_variable::<u32>(&[NAME]).ok()??;
    if found.value == 0 {
        context.mistake(&found.at, "must be at least 1");
    }
    Some(Duration::from_millis(found.value.into()))
}

impl Parse for NetUid {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        u16::parse(raw).map(Self)
    }
}

impl Parse for NeuronSource {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("subtensor", Self::Subtensor), ("pylon", Self::Pylon)])
    }
}

/// The name of an identity, which stands in a path.
struct IdentityName(String);

impl Parse for IdentityName {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let text = String::parse(raw)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if text.bytes().all(plain) && !matches!(text.as_str(), "." | "..") {
            Ok(Self(text))
        } else {
            Err(format!("must be a name of letters, digits, `_`, `-` and `.`, and is {text:?}"))
        }
    }
}

/// 32 bytes in hexadecimal.
struct Hash([u8; 32]);

impl Parse for Hash {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let text = String::parse(raw)?;
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        let mut bytes = [0; 32];
        hex_decode(digits, &mut bytes).ok_or_else(|| format!("must be 64 hexadecimal digits, and is {text:?}"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_digits() {
        for (text, good) in [
            ("0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03", true),
            ("2F0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03", true),
            ("0x2f0555cc", false),
            ("0x", false),
            ("gg0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03", false),
        ] {
            assert_eq!(Hash::parse(Raw::Text(text)).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn an_identity_is_a_plain_name() {
        for (text, good) in [("miner", true), ("sn-2.miner_1", true), ("", false), ("a/b", false), ("..", false)] {
            assert_eq!(IdentityName::parse(Raw::Text(text)).is_ok(), good, "{text}");
        }
    }
}
