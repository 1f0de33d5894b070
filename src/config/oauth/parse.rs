//! What is written in `[oauth]` and in the replaced system's variables.

use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::Trusted;
use crate::config::value::{BaseUrl, Parse, Raw, Timeout};

/// A URL that paths are added to, exactly as it was written but for slashes at its end.
pub(super) struct Origin(pub String);

impl Origin {
    /// What the replaced system took for its own if it was not told.
    pub(super) fn local() -> Self {
        Self("http://localhost:3000".into())
    }
}

impl Parse for Origin {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        BaseUrl::parse(raw)?;
        let text = String::parse(raw)?;
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Whether nobody on the way can read along: https, or this machine.
pub(super) fn is_secure(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || local
}

/// A duration: in the file with a unit, in a variable in seconds.
///
/// The replaced system read the digits that a variable begins with, so that `15m` was fifteen seconds. Here that is a
/// mistake: nobody means it.
pub(super) struct Period(pub Duration);

impl Parse for Period {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "must be a number of seconds, at least 1, without a unit";
        let Raw::Variable(text) = raw else { return Timeout::parse(raw).map(|timeout| Self(timeout.0)) };
        let seconds = text.trim().parse::<u32>().ok().filter(|seconds| *seconds > 0).ok_or(WHAT)?;
        Ok(Self(Duration::from_secs(seconds.into())))
    }
}

/// `TRUST_PROXY`: `true`, `false`, a number of hops, or a list of networks, addresses and the words for three ranges.
pub(super) struct TrustWord(pub Trusted);

impl Parse for TrustWord {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "must be true, false, a number of proxies, or a list of networks with commas";
        let text = String::parse(raw)?;
        let trusted = match text.trim() {
            "true" => Trusted::Everybody,
            "false" => Trusted::Networks(Vec::new()),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                Trusted::Hops(number.parse().map_err(|_| WHAT.to_owned())?)
            }
            list => {
                let mut networks = Vec::new();
                for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                    networks.extend(networks_of(word).map_err(|problem| format!("{WHAT}: {problem}"))?);
                }
                Trusted::Networks(networks)
            }
        };
        Ok(Self(trusted))
    }
}

fn networks_of(word: &str) -> Result<Vec<IpNet>, String> {
    let words: &[&str] = match word {
        "loopback" => &["127.0.0.0/8", "::1/128"],
        "linklocal" => &["169.254.0.0/16", "fe80::/10"],
        "uniquelocal" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
        _ => {
            // Written as anybody writes it: bits behind the prefix never mattered.
            let written = word.parse::<IpNet>().map(|net| net.trunc()).ok();
            return written.map_or_else(|| IpNet::parse(Raw::Variable(word)), Ok).map(|net| vec![net]);
        }
    };
    Ok(words.iter().filter_map(|net| net.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_proxy_has_four_forms() {
        let networks = |list: &[&str]| Some(Trusted::Networks(list.iter().map(|net| net.parse().unwrap()).collect()));
        for (text, expected) in [
            ("true", Some(Trusted::Everybody)),
            ("false", networks(&[])),
            ("1", Some(Trusted::Hops(1))),
            ("0", Some(Trusted::Hops(0))),
            ("10.0.0.0/8", networks(&["10.0.0.0/8"])),
            ("10.1.2.3/8", networks(&["10.0.0.0/8"])),
            ("10.1.2.3, fd00::/8", networks(&["10.1.2.3/32", "fd00::/8"])),
            ("loopback", networks(&["127.0.0.0/8", "::1/128"])),
            ("yes", None),
            ("-1", None),
            ("99999999999", None),
            ("10.0.0.0/33", None),
        ] {
            assert_eq!(TrustWord::parse(Raw::Variable(text)).ok().map(|word| word.0), expected, "{text}");
        }
    }

    #[test]
    fn a_lifetime_in_a_variable_is_in_seconds_and_nothing_else() {
        for (text, seconds) in [("900", Some(900)), (" 5 ", Some(5)), ("15m", None), ("0", None), ("-5", None)] {
            let parsed = Period::parse(Raw::Variable(text)).ok().map(|period| period.0.as_secs());
            assert_eq!(parsed, seconds, "{text}");
        }
        assert_eq!(Period::parse(Raw::Text("15m")).ok().map(|period| period.0.as_secs()), Some(900));
    }

    #[test]
    fn what_is_not_https_must_be_this_machine() {
        for (url, secure) in [
            ("https://auth.example", true),
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:3000", true),
            ("http://auth.example", false),
            ("http://localhost.example", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_secure(url), secure, "{url}");
        }
    }
}
