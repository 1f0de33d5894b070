//! The way to the upstream: which address, and whether we may go there.
//!
//! Names are resolved by the system's resolver, and an answer counts for a while. The addresses that are checked are the
//! addresses that are connected to: a name that points into our own network is refused, unless the configuration allows
//! the network or names the upstream itself.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;
use ipnet::IpNet;
use pingora::{
    protocols::ALPN,
    upstreams::peer::{HttpPeer, PeerOptions},
};
use quick_cache::sync::Cache;
use tokio::runtime::Handle;

use crate::{
    config::{Egress, Http2, Timeouts, Upstream},
    model::endpoint::{Origin, Scheme},
};

/// Why there is no way to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The name has no address, or could not be resolved in time.
    #[error("the upstream's name has no address")]
    Unresolved,
    /// All of its addresses are in networks that upstreams may not be in.
    #[error("the upstream's addresses are not public, and egress.allow does not name their network")]
    Forbidden,
}

impl NoWay {
    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Forbidden => "forbidden_address",
        }
    }
}

type Addresses = Arc<[SocketAddr]>;

/// An upstream of the configuration, and what need not be found out for each request.
struct Known {
    upstream: Upstream,
    /// Its addresses, where they are addresses and not names.
    fixed: Vec<Option<SocketAddr>>,
    /// What stands in the `Host` field; none: it has no address.
    host: Option<HeaderValue>,
}

impl Known {
    fn new(upstream: Upstream) -> Self {
        let fixed = upstream.addresses.iter().map(|address| fixed(&address.host, address.port)).collect();
        let host = upstream.addresses.first().and_then(|address| HeaderValue::try_from(address.to_string()).ok());
        Self { upstream, fixed, host }
    }
}

/// Finds upstreams' addresses, and makes Pingora's peers of them.
pub struct Upstreams {
    configured: Vec<Known>,
    allow: Vec<IpNet>,
    timeouts: Timeouts,
    resolved: Cache<(Box<str>, u16), (Instant, Addresses)>,
    resolve_ttl: Duration,
    outside: Handle,
}

/// How many names are remembered.
const NAMES: usize = 10_000;

impl Upstreams {
    /// Upstreams as configured; names are resolved on the runtime `outside`.
    #[must_use]
    pub fn new(egress: &Egress, configured: Vec<Upstream>, outside: Handle) -> Self {
        let resolved = Cache::new(NAMES);
        let (allow, timeouts, resolve_ttl) = (egress.allow.clone(), egress.timeouts, egress.resolve_ttl);
        let configured = configured.into_iter().map(Known::new).collect();
        Self { configured, allow, timeouts, resolved, resolve_ttl, outside }
    }

    /// The upstream at this index of the configuration, by its `attempt`th address.
    ///
    /// # Errors
    /// [`NoWay`].
    pub async fn configured(&self, index: usize, attempt: usize) -> Result<Box<HttpPeer>, NoWay> {
        let Known { upstream, fixed, .. } = self.configured.get(index).ok_or(NoWay::Unresolved)?;
        let turn = attempt % upstream.addresses.len().max(1);
        let address = upstream.addresses.get(turn).ok_or(NoWay::Unresolved)?;
        let socket = if let Some(fixed) = fixed.get(turn).copied().flatten() {
            fixed
        } else {
            let addresses = self.addresses(&address.host, address.port).await?;
            let address_of_name = attempt / upstream.addresses.len().max(1);
            pick(&addresses, address_of_name).ok_or(NoWay::Unresolved)?
        };
        let server_name = upstream.server_name.as_ref().unwrap_or(&address.host);
        let http = match (upstream.http2, upstream.tls) {
            (Http2::Never, _) | (Http2::Auto, false) => ALPN::H1,
            (Http2::Auto, true) => ALPN::H2H1,
            (Http2::Always, _) => ALPN::H2,
        };
        Ok(peer(socket, upstream.tls, server_name, http, &upstream.timeouts))
    }

    /// The origin of an endpoint that a token names, by its `attempt`th address among those we may go to.
    ///
    /// # Errors
    /// [`NoWay`].
    pub async fn named(&self, origin: &Origin, attempt: usize) -> Result<Box<HttpPeer>, NoWay> {
        let socket = if let Some(address) = origin.address() {
            self.may_go_to(address).then_some(SocketAddr::new(address, origin.port())).ok_or(NoWay::Forbidden)?
        } else {
            let addresses = self.addresses(origin.host(), origin.port()).await?;
            let allowed = addresses.iter().filter(|address| self.may_go_to(address.ip()));
            let allowed: Vec<SocketAddr> = allowed.copied().collect();
            pick(&allowed, attempt).ok_or(NoWay::Forbidden)?
        };
        let tls = origin.scheme() == Scheme::Https;
        let http = if tls { ALPN::H2H1 } else { ALPN::H1 };
        Ok(peer(socket, tls, origin.host(), http, &self.timeouts))
    }

    /// The host name or address of an upstream of the configuration, for the `Host` field.
    #[must_use]
    pub fn host_of(&self, index: usize) -> Option<&HeaderValue> {
        self.configured.get(index)?.host.as_ref()
    }

    fn may_go_to(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allow.iter().any(|network| network.contains(&address))
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Addresses, NoWay> {
        let key: (Box<str>, u16) = (host.into(), port);
        let known = self.resolved.get(&key);
        if let Some((at, addresses)) = &known
            && at.elapsed() < self.resolve_ttl
        {
            return Ok(Arc::clone(addresses));
        }
        match self.resolve(host, port).await {
            Some(addresses) => {
                self.resolved.insert(key, (Instant::now(), Arc::clone(&addresses)));
                Ok(addresses)
            }
            // A resolver that fails does not move a service: the old addresses are better than none.
            None => known.map(|(_, addresses)| addresses).ok_or(NoWay::Unresolved),
        }
    }

    async fn resolve(&self, host: &str, port: u16) -> Option<Addresses> {
        let name = (host.to_owned(), port);
        let lookup = self.outside.spawn(async move {
            let found = tokio::net::lookup_host((name.0.as_str(), name.1)).await;
            found.map(Iterator::collect::<Vec<SocketAddr>>)
        });
        let found = tokio::time::timeout(self.timeouts.total_connect, lookup).await.ok()?.ok()?.ok()?;
        (!found.is_empty()).then(|| found.into())
    }
}

/// The address that a text is, if it is no name.
fn fixed(host: &str, port: u16) -> Option<SocketAddr> {
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}

fn pick(addresses: &[SocketAddr], attempt: usize) -> Option<SocketAddr> {
    addresses.get(attempt % addresses.len().max(1)).copied()
}

fn peer(address: SocketAddr, tls: bool, server_name: &str, http: ALPN, timeouts: &Timeouts) -> Box<HttpPeer> {
    // The name is the one in the handshake. Without one, all names at an address share its connections.
    let server_name = if tls { server_name } else { "" };
    let mut peer = Box::new(HttpPeer::new(address, tls, server_name.to_owned()));
    let options: &mut PeerOptions = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.total_connect);
    options.read_timeout = Some(timeouts.read);
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(timeouts.idle);
    options.alpn = http;
    peer
}

/// Whether an address is one that anybody on the Internet could reach: not this machine, not a private or link-local
/// network (where clouds keep their metadata services), nor any other special-purpose block (RFC 6890).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 240..=255, _, _) // this network, private, loopback, reserved and broadcast
            | (100, 64..=127, _)         // carrier-grade NAT
            | (169, 254, _)              // link-local
            | (172, 16..=31, _)          // private
            | (192, 0, 0 | 2)            // protocol assignments, documentation
            | (192, 88, 99)              // 6to4 relays
            | (192, 168, _)              // private
            | (198, 18..=19, _)          // benchmarking
            | (198, 51, 100)             // documentation
            | (203, 0, 113) // documentation
    );
    !special && !address.is_multicast()
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = match segments {
        // NAT64 and 6to4 carry an IPv4 address, and lead where that one leads.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, _, _, _, _, _] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = embedded {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast is 2000::/3; documentation, Teredo and the like are cut out of it.
    matches!(segments, [0x2000..=0x3fff, ..])
        && !matches!(segments, [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_our_own_world_are_not_public() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "198.18.0.1",
            "192.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "192.0.1.1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
