//! The configuration in words: what `tollgate check` prints. Never a secret.

use super::{
    Config, DatabaseTarget,
    route::{CredentialKind, HostPattern, Route, RouteTarget},
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
                    format!("{versions} over TLS, {}", files.join(", "))
                },
            );
            rows.push(vec![listener.name.clone(), listener.address.to_string(), protocol]);
        }
        if let Some(introspection) = self.introspection {
            rows.push(vec!["introspection".into(), introspection.address.to_string(), "POST /introspect".into()]);
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
        if let Some(oauth) = &self.oauth {
            let keys =
                oauth.keys.directory().map_or_else(|| "RSA_... variables".into(), |path| path.display().to_string());
            rows.push(row("signing keys", keys));
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
        CredentialKind::Nevermined => "Nevermined token",
    });
    let mut text = kinds.collect::<Vec<_>>().join(" or ");
    if !route.services.is_empty() {
        let services: Vec<_> = route.services.iter().map(ToString::to_string).collect();
        text = format!("{text} of {}", services.join(", "));
    }
    if route.open_endpoints {
        text.push_str("; anybody for open endpoints");
    }
    text
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
