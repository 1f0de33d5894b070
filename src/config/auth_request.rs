//! `[auth_request]`: the endpoint of nexus-auth, for somebody who keeps NGINX.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::{
    context::Found,
    neurons::NeuronPolicy,
    reader::Section,
    route::Compatibility,
    value::{Parse, Raw},
};
use crate::model::neuron::NetUid;

/// The endpoint that says whether a client certificate is a neuron's (nexus.md section 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// `address` or `NEXUS_AUTH_LISTEN_ADDR`, where `:8080`, its default, is that port of every address.
    pub address: SocketAddr,
    /// `trusted_peers` or `TOLLGATE_AUTH_TRUSTED_PEERS`: proxies that are believed when they say which certificate a client
    /// has. Default: those on this machine.
    pub trusted_peers: Vec<IpNet>,
    /// `compatibility` or `TOLLGATE_COMPATIBILITY`: `standard` (the default), or `nexus-auth`, whose verdicts are repeated with
    /// their weaknesses.
    pub compatibility: Compatibility,
    /// `health_path`: answers 200 instead of deciding. Default `/healthz`.
    pub health_path: String,
    /// `[auth_request.neurons]`: which neurons may pass. Default: all with a published key.
    pub neurons: NeuronPolicy,
}

impl AuthRequest {
    /// On if anything asks for it. The keys of neurons come from `[neurons]`, and `subnet` is the one named there.
    pub(super) fn read(section: &Section<'_>, subnet: Option<NetUid>) -> Option<Self> {
        let context = section.context;
        let address = section.optional::<ListenAddress>("address", &["NEXUS_AUTH_LISTEN_ADDR"]);
        let trusted = section.list::<IpNet>("trusted_peers", &["TOLLGATE_AUTH_TRUSTED_PEERS"]);
        let compatibility = section.optional::<Compatibility>("compatibility", &["TOLLGATE_COMPATIBILITY"]);
        let health_path = section.optional::<String>("health_path", &[]);
        let neurons = NeuronPolicy::read(&section.section("neurons"), subnet, false);
        if section.present() && address.is_none() && !section.has("address") {
            section.mistake("address", "is missing");
        }
        if let Some(Found { value: Compatibility::Nevermined, at }) = &compatibility {
            context.mistake(at, "must be \"standard\" or \"nexus-auth\" here: no other system answered this question");
        }
        if let Some(Found { value, at }) = &health_path
            && (!value.starts_with('/') || value.contains(['?', '#']))
        {
            context.mistake(at, format!("must be a path like \"/healthz\", and is {value:?}"));
        }
        if section.is_empty_list("trusted_peers") {
            section.mistake("trusted_peers", "is a list of nobody: every answer would be 403");
        }
        let default = context.nexus_auth().then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)));
        let address = address.map(|found| found.value.0).or(default)?;
        if trusted.is_none() && !address.ip().is_loopback() {
            let message = "auth_request: only proxies on this machine are believed, and everybody else is answered 403: name \
                           others in TOLLGATE_AUTH_TRUSTED_PEERS or `trusted_peers`";
            context.warn(message.into());
        }
        Some(Self {
            address,
            trusted_peers: trusted
                .map_or_else(this_machine, |list| list.into_iter().map(|found| found.value).collect()),
            compatibility: compatibility.map_or(Compatibility::Standard, |found| found.value),
            health_path: health_path.map_or_else(|| "/healthz".into(), |found| found.value),
            neurons,
        })
    }
}

fn this_machine() -> Vec<IpNet> {
    let v4 = IpNet::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8).map(|network| network.trunc());
    v4.into_iter().chain([IpAddr::V6(Ipv6Addr::LOCALHOST).into()]).collect()
}

/// An address to listen on. Without a host it is every address, as nexus-auth's configuration had it.
struct ListenAddress(SocketAddr);

impl Parse for ListenAddress {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        if let Raw::Text(text) | Raw::Variable(text) = raw
            && let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok())
        {
            return Ok(Self(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))));
        }
        SocketAddr::parse(raw).map(Self)
    }
}
