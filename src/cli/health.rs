//! `tollgate health`: asks a running gateway on this machine whether it is alive.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, bail};

use super::SourceArgs;
use crate::config::Environment;

const PATIENCE: Duration = Duration::from_secs(3);
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Asks. Works without the configuration's files: an image's health check runs with the environment alone.
///
/// # Errors
/// When there is no answer, or another one than expected.
pub fn run(sources: &SourceArgs) -> anyhow::Result<()> {
    let address = match &sources.config {
        Some(_) => sources.load()?.admin.context("the admin listener is off")?,
        None => {
            match sources.listen_admin.clone().or_else(|| Environment::from_process().value("TOLLGATE_LISTEN_ADMIN")) {
                None => DEFAULT,
                Some(text) => text.parse().with_context(|| format!("TOLLGATE_LISTEN_ADMIN {text:?}"))?,
            }
        }
    };
    let here = if address.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
    } else {
        address
    };
    let mut stream =
        TcpStream::connect_timeout(&here, PATIENCE).with_context(|| format!("nobody listens on {here}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {here}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).with_context(|| format!("{here} does not answer"))?;
    if answer.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    bail!("{here} answered: {}", answer.lines().next().unwrap_or_default())
}
