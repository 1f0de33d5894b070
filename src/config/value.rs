//! From what was written to what it means.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use url::Url;

use super::upstream::HostPort;
use crate::model::{address::EvmAddress, credits::Credits, did::Did, hotkey::Hotkey, secret::Secret};

/// A value as it was written.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// A string of the file.
    Text(&'a str),
    /// An environment variable or a flag, which is always text.
    Variable(&'a str),
    /// An integer of the file.
    Integer(i64),
    /// A number with decimals.
    Float(f64),
    /// A boolean of the file.
    Boolean(bool),
    /// Something that no setting is: its kind.
    Other(&'static str),
}

impl<'a> Raw<'a> {
    /// The text, or a complaint that it is not `what`.
    fn text(self, what: &str) -> Result<&'a str, String> {
        match self {
            Self::Text(text) | Self::Variable(text) if !text.is_empty() => Ok(text),
            Self::Text(_) | Self::Variable(_) => Err(format!("must be {what}, and is empty")),
            Self::Integer(_) | Self::Float(_) => Err(format!("must be {what} in quotes, and is a number")),
            Self::Boolean(_) => Err(format!("must be {what}, and is a boolean")),
            Self::Other(kind) => Err(format!("must be {what}, and is of type {kind}")),
        }
    }
}

/// What a value can mean. The error says what it must be instead; where the value could be a secret, without it.
pub(super) trait Parse: Sized {
    fn parse(raw: Raw<'_>) -> Result<Self, String>;
}

/// One of some words.
pub(super) fn word<T: Copy>(raw: Raw<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let list = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
    let text = raw.text(&list)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| format!("must be {list}, and is {text:?}"))
}

/// A number of bytes: an integer, or text like `64KiB`.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub(super) struct Size(pub u64);

/// A duration that is waited for, and therefore longer than nothing.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub(super) struct Timeout(pub Duration);

/// The base of an HTTP API. Its path ends without a slash only as far as the `url` crate lets it.
pub(super) struct BaseUrl(pub Url);

impl Parse for String {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        raw.text("a text").map(Into::into)
    }
}

impl Parse for Secret {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        raw.text("a text").map(|text| Self::new(text.into()))
    }
}

impl Parse for PathBuf {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        raw.text("a path").map(Into::into)
    }
}

impl Parse for bool {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Boolean(value) => Ok(value),
            Raw::Variable("true") => Ok(true),
            Raw::Variable("false") => Ok(false),
            _ => Err("must be true or false".into()),
        }
    }
}

impl Parse for u64 {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const MESSAGE: &str = "must be a whole number, not below 0";
        match raw {
            Raw::Integer(number) => Self::try_from(number).map_err(|_| MESSAGE.into()),
            Raw::Variable(text) => text.parse().map_err(|_| MESSAGE.into()),
            _ => Err(MESSAGE.into()),
        }
    }
}

impl Parse for usize {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        Self::try_from(u64::parse(raw)?).map_err(|_| "is too large".into())
    }
}

impl Parse for u32 {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        Self::try_from(u64::parse(raw)?).map_err(|_| "is too large".into())
    }
}

impl Parse for u16 {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        Self::try_from(u64::parse(raw)?).map_err(|_| "must be at most 65535".into())
    }
}

impl Parse for Credits {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        u64::parse(raw).map(Self::new)
    }
}

/// A number and the letters after it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

impl Parse for Size {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "a size like \"64KiB\" or a number of bytes";
        if let Raw::Integer(_) = raw {
            return u64::parse(raw).map(Self);
        }
        let text = raw.text(WHAT)?;
        let size = number_and_unit(text).and_then(|(number, unit)| {
            let unit: u64 = match unit {
                "" | "B" => 1,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                "TiB" => 1 << 40,
                _ => return None,
            };
            number.checked_mul(unit).filter(|size| i64::try_from(*size).is_ok())
        });
        size.map(Self).ok_or_else(|| format!("must be {WHAT}, and is {text:?}"))
    }
}

impl Parse for Duration {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "a duration like \"250ms\", \"5s\", \"10m\", \"1h\" or \"30d\"";
        /// A hundred years: nobody means more, and sums of two cannot overflow.
        const LONGEST: u64 = 100 * 365 * 24 * 3_600_000;
        let text = raw.text(WHAT)?;
        let milliseconds = number_and_unit(text).and_then(|(number, unit)| {
            let unit = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            number.checked_mul(unit).filter(|milliseconds| *milliseconds <= LONGEST)
        });
        milliseconds.map(Self::from_millis).ok_or_else(|| format!("must be {WHAT}, and is {text:?}"))
    }
}

impl Parse for Timeout {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let duration = Duration::parse(raw)?;
        if duration.is_zero() { Err("must be longer than nothing".into()) } else { Ok(Self(duration)) }
    }
}

impl Parse for BaseUrl {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "a URL that begins with http:// or https://";
        // Never repeated in the message: people put passwords into URLs.
        let url = Url::parse(raw.text(WHAT)?).map_err(|problem| format!("must be {WHAT}: {problem}"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(format!("must be {WHAT}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user name or password".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must end before any `?` or `#`: our part of the path is added to it".into());
        }
        Ok(Self(url))
    }
}

impl Parse for SocketAddr {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "an IP address and a port, like \"0.0.0.0:443\" or \"[::]:443\"";
        let text = raw.text(WHAT)?;
        let named = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        let local = named.map(|port| Self::from((Ipv4Addr::LOCALHOST, port)));
        local.or_else(|| text.parse().ok()).ok_or_else(|| format!("must be {WHAT}, and is {text:?}"))
    }
}

impl Parse for IpAddr {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let text = raw.text("an IP address")?;
        if text == "localhost" {
            return Ok(Ipv4Addr::LOCALHOST.into());
        }
        text.parse().map_err(|_| format!("must be an IP address, and is {text:?}"))
    }
}

impl Parse for IpNet {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "a network like \"10.0.0.0/8\", or an IP address";
        let text = raw.text(WHAT)?;
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        let network: Self = text.parse().map_err(|_| format!("must be {WHAT}, and is {text:?}"))?;
        if network.trunc() != network {
            return Err(format!("{text:?} has bits set behind its prefix; the network is \"{}\"", network.trunc()));
        }
        Ok(network)
    }
}

impl Parse for HostPort {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "a host and a port, like \"10.0.0.7:8080\" or \"api.internal:443\"";
        let text = raw.text(WHAT)?;
        let wrong = || format!("must be {WHAT}, and is {text:?}");
        if text.contains('/') {
            return Err(format!("{} (no scheme, no path; `tls = true` makes it https)", wrong()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let host = match url::Host::parse(host).map_err(|_| wrong())? {
            url::Host::Domain(name) => name.trim_end_matches('.').to_owned(),
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host, port })
    }
}

/// What the type's own parser takes, with its complaint.
fn from_str<T: FromStr<Err: ToString>>(raw: Raw<'_>, what: &str) -> Result<T, String> {
    raw.text(what)?.parse().map_err(|problem: T::Err| problem.to_string())
}

impl Parse for Did {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        from_str(raw, "a DID")
    }
}

impl Parse for EvmAddress {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        from_str(raw, "an Ethereum address")
    }
}

impl Parse for Hotkey {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        from_str(raw, "a hotkey")
    }
}

impl Parse for Method {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let text = raw.text("an HTTP method")?;
        let method = text.parse().ok().filter(|_| !text.bytes().any(|byte| byte.is_ascii_lowercase()));
        method.ok_or_else(|| format!("must be an HTTP method in capital letters, and is {text:?}"))
    }
}

/// The name of a header as it was written, because `HeaderName` would forget capital letters.
pub(super) struct HeaderWord(pub String);

impl Parse for HeaderWord {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        let text = raw.text("the name of a header")?;
        HeaderName::from_str(text).map_err(|_| format!("must be the name of a header, and is {text:?}"))?;
        Ok(Self(text.into()))
    }
}

/// A page's origin as browsers send it, or `*`.
#[derive(PartialEq)]
pub(super) struct OriginWord(pub HeaderValue);

impl Parse for OriginWord {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        const WHAT: &str = "\"*\" or an origin like \"https://app.example.com\"";
        let text = raw.text(WHAT)?;
        let origin = || Some(Url::parse(text).ok()?.origin().ascii_serialization());
        if text != "*" && origin().is_none_or(|origin| origin != text || origin == "null") {
            return Err(format!("must be {WHAT}, without a path, and is {text:?}"));
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| format!("must be {WHAT}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, milliseconds) in [
            ("250ms", Some(250)),
            ("5s", Some(5_000)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("30d", Some(2_592_000_000)),
            ("0s", Some(0)),
            ("5", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1.5s", None),
            ("5S", None),
            ("99999999999d", None),
            ("99999999999999999999s", None),
        ] {
            let parsed = Duration::parse(Raw::Text(text)).ok();
            assert_eq!(parsed, milliseconds.map(Duration::from_millis), "{text:?}");
        }
        assert!(Timeout::parse(Raw::Text("0s")).is_err());
        assert!(Duration::parse(Raw::Integer(5)).unwrap_err().contains("in quotes"));
    }

    #[test]
    fn sizes_are_bytes_unless_they_say_otherwise() {
        for (raw, bytes) in [
            (Raw::Text("64KiB"), Some(65_536)),
            (Raw::Text("1 MiB"), Some(1 << 20)),
            (Raw::Text("2GiB"), Some(2 << 30)),
            (Raw::Integer(17), Some(17)),
            (Raw::Text("17"), Some(17)),
            (Raw::Text("64KB"), None),
            (Raw::Text("99999999TiB"), None),
            (Raw::Integer(-1), None),
            (Raw::Boolean(true), None),
        ] {
            assert_eq!(Size::parse(raw).ok(), bytes.map(Size));
        }
    }

    #[test]
    fn addresses_and_networks() {
        for (text, good) in
            [("0.0.0.0:443", true), ("[::]:1", true), ("localhost:80", true), (":80", false), ("h:80", false)]
        {
            assert_eq!(SocketAddr::parse(Raw::Text(text)).is_ok(), good, "{text}");
        }
        for (text, shown) in [("10.0.0.0/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::/8", "fd00::/8")] {
            assert_eq!(IpNet::parse(Raw::Text(text)).unwrap().to_string(), shown);
        }
        assert!(IpNet::parse(Raw::Text("10.1.2.3/8")).unwrap_err().contains("10.0.0.0/8"));
        for (text, shown) in [
            ("127.0.0.1:3005", Some("127.0.0.1:3005")),
            ("API.internal.:443", Some("api.internal:443")),
            ("[::1]:80", Some("[::1]:80")),
            ("http://h:80", None),
            ("h:80/", None),
            ("h", None),
            ("h:0", None),
            (":80", None),
            ("h:99999", None),
            ("a b:80", None),
        ] {
            assert_eq!(HostPort::parse(Raw::Text(text)).ok().map(|it| it.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn a_base_url_has_no_password_and_is_not_repeated() {
        for text in ["https://u:hunter2@h/", "ftp://hunter2/", "hunter2", "https://h/?k=hunter2", "https://h/#hunter2"]
        {
            let message = BaseUrl::parse(Raw::Text(text)).err().unwrap();
            assert!(!message.contains("hunter2"), "{message}");
        }
        assert!(BaseUrl::parse(Raw::Text("http://localhost:3001")).is_ok());
    }

    #[test]
    fn origins_are_what_browsers_send() {
        for (text, good) in [
            ("*", true),
            ("https://app.example.com", true),
            ("http://localhost:3000", true),
            ("https://app.example.com/", false),
            ("https://app.example.com:443", false),
            ("HTTPS://app.example.com", false),
            ("app.example.com", false),
            ("null", false),
            ("data:x", false),
        ] {
            assert_eq!(OriginWord::parse(Raw::Text(text)).is_ok(), good, "{text}");
        }
    }
}
