//! The configuration in words: what `tollgate check` prints. Never a secret.

use std::fmt::Write as _;

use super::{
    Config, DatabaseTarget, NeuronSource,
    listener::ClientCertificates,
    neurons::NeuronPolicy,
    route::{AccessTokenPolicy, Compatibility, CredentialKind, HostPattern, Route, RouteTarget},
};

impl Config {
    /// A table of the listeners, the routes and who may call them, and what they depend on. Ends with a line break.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = table(&["LISTENER", "ADDRESS", "PROTOCOL"], &self.listener_rows());
        text.push('\n');
        let head = ["ROUTE", "HOSTS", "PATH", "METHODS", "UPSTREAM", "WHO MAY CALL", "REFUSALS"];
        let rows: Vec<Vec<String>> = self.routes.iter().map(|route| self.route_row(route)).collect();
        text.push_str(&table(&head, &rows));
        text.push('\n');
        text.push_str(&table(&["DEPENDS ON", "WHERE"], &self.dependency_rows()));
        text
    }

    fn listener_rows(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for listener in &self.listeners {
            let protocol = listener.tls.as_ref().map_or_else(
                || "HTTP/1.1 in clear text".to_owned(),
                |tls| {
                    let versions = if tls.alpn_h2 { "HTTP/2 and HTTP/1.1" } else { "HTTP/1.1" };
                    let files: Vec<_> = tls.certificates.iter().map(|files| files.cert.display().to_string()).collect();
                    let clients = match tls.client_certificates {
                        ClientCertificates::Ignore => "",
                        ClientCertificates::Optional => ", client certificates optional",
                        ClientCertificates::Required => ", client certificates required",
                    };
                    format!("{versions} over TLS, {}{clients}", files.join(", "))
                },
            );
            rows.push(vec![listener.name.clone(), listener.address.to_string(), protocol]);
        }
        if let Some(introspection) = self.introspection {
            rows.push(vec!["introspection".into(), introspection.address.to_string(), "POST /introspect".into()]);
        }
        if let Some(auth_request) = &self.auth_request {
            let verdicts = match auth_request.compatibility {
                Compatibility::NexusAuth => ", the verdicts of nexus-auth",
                Compatibility::Standard | Compatibility::Nevermined => "",
            };
            let peers: Vec<_> = auth_request.trusted_peers.iter().map(ToString::to_string).collect();
            let who = neurons(&auth_request.neurons);
            let protocol = format!("X-Client-Cert from {}, {who}{verdicts}", peers.join(", "));
            rows.push(vec!["auth_request".into(), auth_request.address.to_string(), protocol]);
        }
        if let Some(address) = self.oauth.as_ref().and_then(|oauth| oauth.admin_address) {
            rows.push(vec!["oauth admin".into(), address.to_string(), "/v1/admin/...".into()]);
        }
        if let Some(address) = self.admin {
            rows.push(vec!["admin".into(), address.to_string(), "/healthz /readyz /metrics".into()]);
        }
        rows
    }

    fn route_row(&self, route: &Route) -> Vec<String> {
        let upstream = match route.target {
            RouteTarget::Token => "the token's".to_owned(),
            RouteTarget::AuthorizationServer => "authorization server".to_owned(),
            RouteTarget::Upstream(index) => self.upstreams.get(index).map_or_else(String::new, |upstream| {
                let addresses: Vec<_> = upstream.addresses.iter().map(ToString::to_string).collect();
                format!("{} ({})", upstream.name, addresses.join(", "))
            }),
        };
        vec![
            route.name.clone(),
            or_any(route.hosts.iter().map(HostPattern::to_string)),
            route.path.clone(),
            or_any(route.methods.iter().map(ToString::to_string)),
            upstream,
            who(route),
            route.compatibility.as_str().to_owned(),
        ]
    }

    fn dependency_rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, place: String| vec![what.to_owned(), place];
        let mut rows = vec![row("data directory", self.server.data_dir.display().to_string())];
        rows.push(match &self.database.target {
            DatabaseTarget::Sqlite(path) => row("database", format!("SQLite file {}", path.display())),
            DatabaseTarget::Postgres(url) => row("database", format!("Postgres {}", without_secrets(url.expose()))),
        });
        if let Some(marketplace) = &self.marketplace {
            rows.push(row("marketplace", marketplace.url.to_string()));
        }
        if let Some(chain) = &self.chain {
            rows.push(row("chain", chain.rpc.to_string()));
        }
        if let Some(neurons) = &self.neurons {
            let source = match (neurons.source, &self.pylon, &self.subtensor) {
                (NeuronSource::Pylon, Some(pylon), _) => {
                    let identity = |netuid| pylon.identity_of(netuid, neurons.netuid);
                    let names = self.subnets().into_keys().filter_map(|netuid| Some(identity(netuid)?.name.as_str()));
                    format!("Pylon {} as {}", pylon.url, names.collect::<Vec<_>>().join(", "))
                }
                (NeuronSource::Subtensor, _, Some(node)) => format!("Subtensor {}", node.url),
                _ => String::new(),
            };
            let netuids: Vec<_> = self.subnets().into_keys().map(|netuid| netuid.to_string()).collect();
            let subnets = if netuids.len() == 1 { "subnet" } else { "subnets" };
            rows.push(row("neurons", format!("{source}, {subnets} {}", netuids.join(", "))));
        }
        if let Some(oauth) = &self.oauth {
            let keys =
                oauth.keys.directory().map_or_else(|| "RSA_... variables".into(), |path| path.display().to_string());
            rows.push(row("signing keys", keys));
            let owners = self.subtensor.as_ref().map(|node| format!("Subtensor {}", node.url));
            let nobody = || "nobody to ask: Bittensor wallets cannot sign in ([subtensor])".to_owned();
            rows.push(row("owners of hotkeys", owners.unwrap_or_else(nobody)));
        }
        if let Some(report) = &self.usage.report {
            rows.push(row("usage reports", report.url.to_string()));
        }
        rows
    }
}

/// Host, port and database of a database's URL.
fn without_secrets(url: &str) -> String {
    let Ok(url) = url::Url::parse(url) else { return String::new() };
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}{port}{}", url.host_str().unwrap_or_default(), url.path())
}

fn who(route: &Route) -> String {
    if route.accepts.is_empty() {
        return "anybody".into();
    }
    let kinds = route.accepts.iter().map(|kind| match kind {
        CredentialKind::Nevermined if route.services.is_empty() => "Nevermined token".to_owned(),
        CredentialKind::Nevermined => {
            let services: Vec<_> = route.services.iter().map(ToString::to_string).collect();
            format!("Nevermined token of {}", services.join(", "))
        }
        CredentialKind::ClientCertificate => format!("client certificate of {}", policy(route)),
        CredentialKind::Btauth => format!("btauth signature of {}", policy(route)),
        CredentialKind::Epistula => format!("Epistula signature of {}", policy(route)),
        CredentialKind::EpistulaLite => format!("Epistula signature (lite) of {}", policy(route)),
        CredentialKind::AccessToken => {
            format!("access token{}", route.access_token.as_ref().map_or_else(String::new, access_tokens))
        }
    });
    let mut text = kinds.collect::<Vec<_>>().join(" or ");
    if route.open_endpoints {
        text.push_str("; anybody for open endpoints");
    }
    text
}

fn policy(route: &Route) -> String {
    route.neurons.as_ref().map_or_else(String::new, neurons)
}

fn neurons(policy: &NeuronPolicy) -> String {
    let mut text = match &policy.hotkeys {
        Some(listed) => format!("one of {} listed neurons of subnet {}", listed.len(), policy.netuid),
        None => format!("a neuron of subnet {}", policy.netuid),
    };
    if policy.registered {
        text.push_str(", registered");
    }
    if policy.validator_permit {
        text.push_str(", with validator permit");
    }
    if policy.min_stake > 0 {
        write!(text, ", with stake of {} or more", units(policy.min_stake)).unwrap_or_default();
    }
    if !policy.deny_hotkeys.is_empty() {
        write!(text, ", {} denied", policy.deny_hotkeys.len()).unwrap_or_default();
    }
    text
}

fn access_tokens(policy: &AccessTokenPolicy) -> String {
    let mut text = format!(" for {}", policy.audience);
    if let Some(clients) = &policy.clients {
        let mut clients: Vec<_> = clients.iter().map(String::as_str).collect();
        clients.sort_unstable();
        write!(text, ", of client {}", clients.join(" or ")).unwrap_or_default();
    }
    if !policy.signers.is_empty() {
        let signers: Vec<_> = policy.signers.iter().map(|signer| signer.as_str()).collect();
        write!(text, ", signed by {}", signers.join(" or ")).unwrap_or_default();
    }
    if !policy.scopes.is_empty() {
        let scopes: Vec<_> = policy.scopes.iter().map(ToString::to_string).collect();
        write!(text, ", with {}", scopes.join(" ")).unwrap_or_default();
    }
    text
}

/// A stake in whole units.
fn units(stake: u64) -> String {
    let text = format!("{}.{:09}", stake / 1_000_000_000, stake % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn or_any(words: impl Iterator<Item = String>) -> String {
    let text = words.collect::<Vec<_>>().join(" ");
    if text.is_empty() { "any".into() } else { text }
}

/// Columns as wide as their widest cell, two spaces apart.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
