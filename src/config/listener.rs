//! `[[listener]]`, `[admin]` and `[introspection]`: where we listen.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{
    context::{Context, Spot},
    files::{self, Half},
    oauth,
    reader::Section,
    route::HostPattern,
    value::{Parse, Raw},
};

/// One address that clients connect to.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `name`: the word in logs and metrics. Default: the address as written.
    pub name: String,
    /// `address`: where to bind.
    pub address: SocketAddr,
    /// `[listener.tls]`: TLS on this listener. None: plain HTTP.
    pub tls: Option<Tls>,
}

/// TLS on a listener.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `[[listener.tls.certificate]]`: at least one; the first also serves clients that send no or an unknown name.
    pub certificates: Vec<CertificateFiles>,
    /// Whether HTTP/2 is offered: `alpn` names `h2`. Default: yes.
    pub alpn_h2: bool,
}

/// A certificate and its key, as PEM files. Both were read when the configuration was, and belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// `cert`: the chain, the server's own certificate first.
    pub cert: PathBuf,
    /// `key`: the private key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// `names`: the server names it is used for, lower case. Empty (the default): the names it contains.
    pub names: Vec<String>,
}

/// The replaced system's decision endpoint (nevermined.md section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introspection {
    /// `introspection.address`, or `SERVER_HOST` and `SERVER_PORT` (127.0.0.1 and 4000 in drop-in mode).
    pub address: SocketAddr,
}

/// Where the replaced system had its certificate.
const CERTIFICATE: &str = "/ssl/certs/tls.crt";
const KEY: &str = "/ssl/certs/tls.key";

/// Where a listener's name and address were written.
pub(super) struct Written {
    pub name: Spot,
    pub address: Spot,
    /// A variable made the listener; it is not in the file.
    pub by_variable: bool,
}

/// All listeners, and where each was written: those of the file with the variables laid over them, or
/// the two of drop-in mode.
pub(super) fn read_all(root: &Section<'_>) -> Vec<(Listener, Written)> {
    let context = root.context;
    let sections = root.sections("listener");
    let read = |section: &Section<'_>| {
        let written = Written { name: section.spot("name"), address: section.spot("address"), by_variable: false };
        Some((Listener::read(section)?, written))
    };
    let mut listeners: Vec<_> = sections.iter().filter_map(read).collect();
    for (variable, name, default, tls) in
        [("TOLLGATE_LISTEN_TLS", "https", "0.0.0.0:443", true), ("TOLLGATE_LISTEN_HTTP", "http", "0.0.0.0:3128", false)]
    {
        match context.variable_or_empty(variable) {
            None if context.drop_in() => lay_over(context, &mut listeners, variable, default, name, tls),
            None => {}
            Some(found) if found.value.is_empty() => listeners.retain(|(listener, _)| listener.tls.is_some() != tls),
            Some(found) => lay_over(context, &mut listeners, variable, found.value, name, tls),
        }
    }
    if context.replaced().auth_gateway {
        let at = Spot::of_variable("PORT");
        let listener = Listener { name: "oauth".into(), address: oauth::address(context), tls: None };
        listeners.push((listener, Written { name: at.clone(), address: at, by_variable: true }));
    }
    use_certificate(context, &mut listeners);
    listeners
}

/// Gives the one listener of a kind another address, or makes one.
fn lay_over(
    context: &Context<'_>,
    listeners: &mut Vec<(Listener, Written)>,
    variable: &str,
    address: &str,
    name: &str,
    tls: bool,
) {
    let address = match SocketAddr::parse(Raw::Variable(address)) {
        Ok(address) => address,
        Err(message) => return context.mistake_in_variable(variable, message),
    };
    let at = Spot::of_variable(variable);
    let mut of_kind = listeners.iter_mut().filter(|(listener, _)| listener.tls.is_some() == tls);
    match (of_kind.next(), of_kind.next()) {
        (Some(_), Some(_)) => {
            context.mistake_in_variable(variable, "the file has several such listeners: which one is meant?");
        }
        (Some((listener, written)), None) => (listener.address, written.address) = (address, at),
        (None, _) => listeners.push((
            Listener { name: name.into(), address, tls: tls.then(Tls::default) },
            Written { name: at.clone(), address: at, by_variable: true },
        )),
    }
}

/// The halves of a certificate that variables name.
fn certificate_from_variables(context: &Context<'_>) -> [Option<PathBuf>; 2] {
    ["TOLLGATE_TLS_CERT", "TOLLGATE_TLS_KEY"]
        .map(|name| context.parsed_variable::<PathBuf>(&[name]).ok().flatten().map(|found| found.value))
}

/// Gives the certificate of the variables to the one TLS listener, and the usual one to a listener that they made.
fn use_certificate(context: &Context<'_>, listeners: &mut [(Listener, Written)]) {
    let [cert, key] = certificate_from_variables(context);
    let given = cert.is_some() || key.is_some();
    let with_tls: Vec<_> = listeners
        .iter_mut()
        .filter_map(|(listener, written)| Some((listener.tls.as_mut()?, written.by_variable)))
        .filter(|(_, by_variable)| given || *by_variable)
        .collect();
    if given && with_tls.len() > 1 {
        let message = "there are several listeners with TLS: which one is meant?";
        return context.mistake_in_variable("TOLLGATE_TLS_CERT", message);
    }
    for (tls, _) in with_tls {
        let usual = || CertificateFiles { cert: CERTIFICATE.into(), key: KEY.into(), names: Vec::new() };
        let own = tls.certificates.first().cloned().unwrap_or_else(usual);
        let (cert, key) = (cert.clone().unwrap_or(own.cert), key.clone().unwrap_or(own.key));
        let files = CertificateFiles { cert, key, names: Vec::new() };
        if let Err((half, message)) = files::certified_key(&files) {
            let name = match half {
                Half::Certificate => "TOLLGATE_TLS_CERT",
                Half::Key => "TOLLGATE_TLS_KEY",
            };
            context.mistake_in_variable(name, format!("{message}; without TLS, set TOLLGATE_LISTEN_TLS to nothing"));
        }
        tls.certificates = vec![files];
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificates: Vec::new(), alpn_h2: true }
    }
}

impl Listener {
    fn read(section: &Section<'_>) -> Option<Self> {
        let address = section.required::<SocketAddr>("address", &[]);
        let name = section.optional::<String>("name", &[]);
        let tls = section.section("tls");
        let tls = section.has("tls").then(|| Tls::read(&tls));
        let address = address?.value;
        Some(Self { name: name.map_or_else(|| address.to_string(), |found| found.value), address, tls })
    }
}

impl Tls {
    fn read(section: &Section<'_>) -> Self {
        let mut certificates = Vec::new();
        for section in section.sections("certificate") {
            certificates.extend(CertificateFiles::read(&section));
        }
        if !section.has("certificate") {
            section.mistake("certificate", "is missing: TLS needs a [[listener.tls.certificate]]");
        }
        Self { certificates, alpn_h2: read_alpn(section) }
    }
}

/// Whether `alpn` has `h2`. Something that we do not speak is a mistake: ignoring it would be a silent outage.
fn read_alpn(section: &Section<'_>) -> bool {
    let Some(protocols) = section.list::<String>("alpn", &[]) else { return true };
    for found in &protocols {
        let message = match found.value.as_str() {
            "h2" | "http/1.1" => continue,
            "h3" => "HTTP/3 is not spoken here; there are \"h2\" and \"http/1.1\"".to_owned(),
            other => format!("there are \"h2\" and \"http/1.1\", and no {other:?}"),
        };
        section.context.mistake(&found.at, message);
    }
    if !protocols.iter().any(|found| found.value == "http/1.1") {
        section.mistake("alpn", "\"http/1.1\" cannot be left out");
    }
    protocols.iter().any(|found| found.value == "h2")
}

impl CertificateFiles {
    fn read(section: &Section<'_>) -> Option<Self> {
        let cert = section.required("cert", &[]);
        let key = section.required("key", &[]);
        let names = section.list::<String>("names", &[]).unwrap_or_default();
        for found in &names {
            if HostPattern::from_text(&found.value).is_none() {
                section.context.mistake(&found.at, format!("must be a host name, and is {:?}", found.value));
            }
        }
        let names = names.into_iter().map(|found| found.value.to_ascii_lowercase()).collect();
        let files = Self { cert: cert?.value, key: key?.value, names };
        let overridden = certificate_from_variables(section.context).iter().any(Option::is_some);
        if !overridden && let Err((half, message)) = files::certified_key(&files) {
            let key = match half {
                Half::Certificate => "cert",
                Half::Key => "key",
            };
            section.mistake(key, message);
        }
        Some(files)
    }
}

/// `[admin]`: on, at its usual place, unless the address is empty.
pub(super) fn read_admin(section: &Section<'_>) -> Option<SocketAddr> {
    const VARIABLE: &str = "TOLLGATE_LISTEN_ADMIN";
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    let written = section.optional::<MaybeOff>("address", &[]).map_or(Some(default), |found| found.value.0);
    match section.context.variable_or_empty(VARIABLE) {
        Some(found) if found.value.is_empty() => None,
        Some(_) => section.context.parsed_variable(&[VARIABLE]).ok().flatten().map(|found| found.value),
        None => oauth::metrics_address(section.context).or(written),
    }
}

/// An address, or an empty text for none.
struct MaybeOff(Option<SocketAddr>);

impl Parse for MaybeOff {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text("") => Ok(Self(None)),
            raw => SocketAddr::parse(raw).map(Some).map(Self),
        }
    }
}

impl Introspection {
    /// On if anything asks for it, and in drop-in mode.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let context = section.context;
        let written = section.optional::<SocketAddr>("address", &[]).map(|found| found.value);
        let host = context.parsed_variable::<IpAddr>(&["SERVER_HOST"]).ok().flatten();
        let port = context.parsed_variable::<u16>(&["SERVER_PORT"]).ok().flatten();
        if section.present() && !section.has("address") && host.is_none() && port.is_none() {
            section.mistake("address", "is missing");
        }
        if written.is_none() && host.is_none() && port.is_none() && !context.drop_in() {
            return None;
        }
        let default = written.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 4000)));
        let host = host.map_or_else(|| default.ip(), |found| found.value);
        let port = port.map_or_else(|| default.port(), |found| found.value);
        Some(Self { address: SocketAddr::new(host, port) })
    }
}
