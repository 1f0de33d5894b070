//! Who is calling: the address that limits count.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request, State as Extract},
    http::{HeaderMap, request::Parts},
    middleware::Next,
    response::Response,
};

use super::State;
use crate::config::Trusted;

/// The client's address: the connection's other end, or what trusted proxies say it was. Found by [`find`]; endpoints
/// take it as an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let found = parts.extensions.get::<Self>().copied();
        // Everybody whose address is not known shares one, which is the strictest.
        Ok(found.unwrap_or(Self(Ipv4Addr::UNSPECIFIED.into())))
    }
}

/// Puts the client's address into the request.
pub async fn find(Extract(state): Extract<State>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    if let Some(peer) = peer {
        let client = client(peer, request.headers(), &state.settings.trusted);
        request.extensions_mut().insert(ClientAddress(client));
    }
    next.run(request).await
}

/// From here outwards: whoever is trusted is believed about the one before him.
fn client(peer: IpAddr, headers: &HeaderMap, trusted: &Trusted) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let chain: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    for (hop, word) in chain.into_iter().rev().enumerate() {
        let believed = match trusted {
            Trusted::Everybody => true,
            Trusted::Hops(hops) => hop < usize::try_from(*hops).unwrap_or(usize::MAX),
            Trusted::Networks(networks) => networks.iter().any(|network| network.contains(&client)),
        };
        let Some(before) = address(word).filter(|_| believed) else { break };
        client = before;
    }
    client
}

/// An address, maybe with a port.
fn address(word: &str) -> Option<IpAddr> {
    let bare = || word.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || word.parse::<SocketAddr>().ok().map(|address| address.ip());
    word.parse().ok().or_else(bare).or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_word_is_believed_is_a_setting() {
        let networks = |list: &[&str]| Trusted::Networks(list.iter().map(|net| net.parse().unwrap()).collect());
        //   trusted, X-Forwarded-For, the client
        for (trusted, forwarded, expected) in [
            (networks(&[]), "198.51.100.7", "10.0.0.1"),
            (networks(&["10.0.0.0/8"]), "198.51.100.7", "198.51.100.7"),
            (networks(&["10.0.0.0/8"]), "203.0.113.9, 198.51.100.7", "198.51.100.7"),
            (networks(&["10.0.0.0/8"]), "203.0.113.9, 10.9.9.9", "203.0.113.9"),
            (networks(&["10.0.0.0/8"]), "nonsense", "10.0.0.1"),
            (networks(&["10.0.0.0/8"]), "203.0.113.9, nonsense, 10.9.9.9", "10.9.9.9"),
            (networks(&["192.0.2.0/24"]), "198.51.100.7", "10.0.0.1"),
            (Trusted::Hops(0), "198.51.100.7", "10.0.0.1"),
            (Trusted::Hops(1), "203.0.113.9, 198.51.100.7", "198.51.100.7"),
            (Trusted::Hops(2), "203.0.113.9, 198.51.100.7", "203.0.113.9"),
            (Trusted::Hops(9), "203.0.113.9, 198.51.100.7", "203.0.113.9"),
            (Trusted::Everybody, "203.0.113.9, 198.51.100.7", "203.0.113.9"),
            (Trusted::Hops(1), "[2001:db8::1]:443", "2001:db8::1"),
            (Trusted::Hops(1), "198.51.100.7:4711", "198.51.100.7"),
            (Trusted::Hops(1), "::ffff:198.51.100.7", "198.51.100.7"),
            (Trusted::Hops(1), "", "10.0.0.1"),
        ] {
            let headers = HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), forwarded.parse().unwrap())]);
            let found = client("::ffff:10.0.0.1".parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{trusted:?} {forwarded}");
        }
    }
}
