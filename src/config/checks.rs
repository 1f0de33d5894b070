//! What must fit together across sections.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{
    Config,
    context::{Context, Spot},
    listener::{ClientCertificates, Listener, Written},
    neurons::{NeuronPolicy, NeuronSource},
    reader::Section,
    route::{CredentialKind, Route, RouteTarget},
};
use crate::model::credits::CreditSource;

/// Where the parts of a configuration were written.
pub(super) struct Places<'a> {
    pub root: &'a Section<'a>,
    /// In the order of `Config::listeners`.
    pub listeners: Vec<Written>,
    /// In the order of `Config::services`.
    pub services: Vec<&'a Section<'a>>,
    /// In the order of `Config::upstreams`.
    pub upstreams: Vec<&'a Section<'a>>,
    /// In the order of `Config::routes`.
    pub routes: Vec<&'a Section<'a>>,
    /// How many routes there are in the file, those with a mistake included.
    pub routes_written: usize,
}

/// Records what does not fit together.
pub(super) fn check(config: &Config, places: &Places<'_>) {
    check_addresses(config, places);
    check_names(config, places);
    check_routes(config, places);
    check_authorization_server(config, places);
    check_sources(config, places);
    check_signed_requests(config, places);
}

fn check_addresses(config: &Config, places: &Places<'_>) {
    let context = places.root.context;
    // With another mistake, that one may be the reason.
    let endpoints = config.introspection.is_some() || config.auth_request.is_some();
    if config.listeners.is_empty() && !endpoints && context.no_mistakes() {
        let message = "there is nothing to do: neither a [[listener]] nor an [introspection] nor an [auth_request]";
        places.root.mistake("listener", message);
    }
    let mut all: Vec<(SocketAddr, String, Spot)> = Vec::new();
    for (listener, written) in config.listeners.iter().zip(&places.listeners) {
        all.push((listener.address, format!("listener {:?}", listener.name), written.address.clone()));
    }
    if let Some(address) = config.admin {
        all.push((address, "the admin listener".into(), places.root.spot_below("admin", "address")));
    }
    if let Some(address) = config.oauth.as_ref().and_then(|oauth| oauth.admin_address) {
        let spot = places.root.spot_below("oauth", "admin_address");
        all.push((address, "the authorization server's admin listener".into(), spot));
    }
    if let Some(introspection) = config.introspection {
        let spot = places.root.spot_below("introspection", "address");
        all.push((introspection.address, "the introspection endpoint".into(), spot));
    }
    if let Some(auth_request) = &config.auth_request {
        let spot = places.root.spot_below("auth_request", "address");
        all.push((auth_request.address, "the auth_request endpoint".into(), spot));
    }
    let mut earlier: Vec<(SocketAddr, String)> = Vec::new();
    for (address, what, spot) in all {
        if let Some((_, other)) = earlier.iter().find(|(other, _)| collide(*other, address)) {
            context.mistake(&spot, format!("{address} is already taken by {other}"));
        }
        earlier.push((address, what));
    }
}

/// Whether two addresses cannot both be bound. Port 0 is always another one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let family = |address: IpAddr| address.is_ipv4();
    let overlap = one.ip() == other.ip()
        || ((one.ip().is_unspecified() || other.ip().is_unspecified()) && family(one.ip()) == family(other.ip()));
    one.port() == other.port() && one.port() != 0 && overlap
}

fn check_names(config: &Config, places: &Places<'_>) {
    let context = places.root.context;
    unique(
        context,
        config.listeners.iter().map(|it| it.name.clone()).zip(places.listeners.iter().map(|it| it.name.clone())),
    );
    let spots = |sections: &[&Section<'_>], key| sections.iter().map(|section| section.spot(key)).collect::<Vec<_>>();
    unique(context, config.upstreams.iter().map(|it| it.name.clone()).zip(spots(&places.upstreams, "name")));
    unique(context, config.services.iter().map(|it| it.id.to_string()).zip(spots(&places.services, "id")));
    unique(context, config.routes.iter().map(|it| it.name.clone()).zip(spots(&places.routes, "name")));
}

fn unique(context: &Context<'_>, names: impl Iterator<Item = (String, Spot)>) {
    let mut seen = BTreeMap::new();
    for (name, spot) in names {
        if let Some(first) = seen.insert(name.clone(), spot.clone()) {
            context.mistake(&spot, format!("{name:?} is already the name of {first}"));
        }
    }
}

fn check_routes(config: &Config, places: &Places<'_>) {
    if config.routes.is_empty() && !config.listeners.is_empty() && places.routes_written == 0 {
        places.root.mistake("route", "there is a listener and no [[route]]: every answer would be 404");
    }
    let described = |route: &Route| {
        let known = |did| config.services.iter().any(|service| service.id == did);
        config.marketplace.is_some() || route.services.iter().all(|did| known(*did))
    };
    for (index, (route, section)) in config.routes.iter().zip(&places.routes).enumerate() {
        let takes_tokens = route.accepts.contains(&CredentialKind::Nevermined);
        // A [nevermined] with a mistake in it has been reported already.
        if takes_tokens && config.nevermined.is_none() && !places.root.has("nevermined") {
            section.mistake("accepts", "\"nevermined\" needs a [nevermined] section with a key");
        }
        if route.access_token.is_some() && config.oauth.is_none() && !places.root.has("oauth") {
            section.mistake("accepts", "\"access-token\" needs an [oauth] section: whose tokens are they?");
        }
        let asks = |listener: &Listener| {
            listener.tls.as_ref().is_some_and(|tls| tls.client_certificates != ClientCertificates::Ignore)
        };
        if route.accepts.contains(&CredentialKind::ClientCertificate) && !config.listeners.iter().any(asks) {
            let message = "\"client-certificate\" needs a listener with TLS whose `client_certificates` is \"optional\" \
                           or \"required\"";
            section.mistake("accepts", message);
        }
        // A [neurons] with a mistake in it has been reported already.
        let nobody_to_ask = config.neurons.is_none() && !places.root.has("neurons");
        if nobody_to_ask && route.accepts.contains(&CredentialKind::ClientCertificate) {
            section
                .mistake("accepts", "\"client-certificate\" needs a [neurons] section: who knows the published keys?");
        } else if nobody_to_ask && route.neurons.as_ref().is_some_and(NeuronPolicy::asks_neurons) {
            let message = "signed requests need a [neurons] section: who knows which neurons are registered?";
            section.mistake("accepts", message);
        }
        if route.target == RouteTarget::Token && !describes(config, places) {
            section.mistake("upstream", "\"token\" needs a [marketplace] or a [[service]] that describes services");
        }
        if route.target == RouteTarget::AuthorizationServer && config.oauth.is_none() && !places.root.has("oauth") {
            section.mistake("upstream", "\"authorization-server\" needs an [oauth] section");
        }
        if takes_tokens && !described(route) {
            section.mistake("services", "one of them is not a [[service]], and there is no [marketplace] to ask");
        }
        if let Some(first) = config.routes.iter().take(index).find(|first| first.covers(route)) {
            let message = format!("can never be reached: route {:?} before it takes all its requests", first.name);
            section.mistake("", message);
        }
    }
}

/// Whether anything describes services, if only with a mistake in it.
fn describes(config: &Config, places: &Places<'_>) -> bool {
    let marketplace = config.marketplace.is_some() || places.root.has("marketplace");
    marketplace || !config.services.is_empty() || places.root.has("service")
}

/// An authorization server that no request reaches would be forgotten.
fn check_authorization_server(config: &Config, places: &Places<'_>) {
    let all_read = places.routes_written == config.routes.len();
    let reached = config.routes.iter().any(|route| route.target == RouteTarget::AuthorizationServer);
    if config.oauth.is_some() && !places.root.context.replaced().auth_gateway && all_read && !reached {
        places.root.mistake("oauth", "needs a [[route]] with `upstream = \"authorization-server\"`");
    }
}

fn check_sources(config: &Config, places: &Places<'_>) {
    let root = places.root;
    let chain = config.chain.is_some() || root.has("chain");
    for (service, section) in config.services.iter().zip(&places.services) {
        if matches!(service.credits, CreditSource::Chain { .. }) && !chain {
            section.mistake("credits", "\"chain\" needs a [chain] section");
        }
    }
    if config.marketplace.is_some() && !chain && !root.context.drop_in() {
        root.mistake("chain", "is missing: the credits of the marketplace's services are on chain");
    }
    if let (Some(neurons), Some(pylon)) = (&config.neurons, &config.pylon)
        && pylon.subnets.contains_key(&neurons.netuid)
    {
        let message = format!("subnet {} is that of [neurons], for which `identity` is asked", neurons.netuid);
        root.context.mistake(&root.spot_below("pylon", "subnet"), message);
    }
    for (route, section) in config.routes.iter().zip(&places.routes) {
        if let Some(policy) = &route.neurons {
            check_identity(config, policy, root.context, &section.spot_below("neurons", "netuid"));
        }
    }
    if let Some(settings) = &config.auth_request {
        check_identity(config, &settings.neurons, root.context, &root.spot_below("auth_request", "neurons"));
    }
    // With another mistake, that one may be the reason.
    if config.auth_request.is_some() && config.neurons.is_none() && root.context.no_mistakes() {
        root.mistake("auth_request", "needs a [neurons] section: whose certificates are good");
    }
    if config.introspection.is_some() && !root.context.drop_in() {
        if config.nevermined.is_none() && !root.has("nevermined") {
            root.mistake("introspection", "needs a [nevermined] section with a key");
        }
        if !describes(config, places) {
            root.mistake("introspection", "needs a [marketplace] or a [[service]] that describes services");
        }
        // A route that is missing here because of a mistake in it has been reported already.
        let all_read = places.routes_written == config.routes.len();
        if all_read && !config.routes.iter().any(|route| route.target == RouteTarget::Token) {
            let message = "needs a [[route]] with `upstream = \"token\"`: it answers as that route would";
            root.mistake("introspection", message);
        }
    }
}

/// Pylon answers an identity for its own subnet alone.
fn check_identity(config: &Config, policy: &NeuronPolicy, context: &Context<'_>, at: &Spot) {
    let (Some(neurons), Some(pylon)) = (&config.neurons, &config.pylon) else { return };
    let netuid = policy.netuid;
    if neurons.source == NeuronSource::Pylon && pylon.identity_of(netuid, neurons.netuid).is_none() {
        let (name, own) = (&pylon.identity.name, neurons.netuid);
        let message = format!(
            "Pylon's identity {name:?} is asked about subnet {own} alone: subnet {netuid} needs a [[pylon.subnet]] with \
             an identity of its own"
        );
        context.mistake(at, message);
    }
}

fn check_signed_requests(config: &Config, places: &Places<'_>) {
    let root = places.root;
    for (route, section) in config.routes.iter().zip(&places.routes) {
        let accepts = |kind| route.accepts.contains(&kind);
        let bound = accepts(CredentialKind::Btauth) || accepts(CredentialKind::Epistula);
        if !bound && !accepts(CredentialKind::EpistulaLite) {
            continue;
        }
        let Some(settings) = &config.signed_requests else {
            section.mistake("accepts", "signed requests need a [signed_requests] section");
            continue;
        };
        if bound && settings.require_receiver && settings.receivers.is_empty() && root.context.no_mistakes() {
            let message = "is missing: our own hotkey, for which requests must be signed; \
                           or what was signed for another gateway would be taken here";
            root.context.mistake(&root.spot_below("signed_requests", "receiver"), message);
        }
        let anybody = |policy: &NeuronPolicy| !policy.asks_neurons() && policy.hotkeys.is_none();
        if route.neurons.as_ref().is_some_and(anybody) {
            let warning = format!("route {:?} admits whoever makes a key pair and signs with it", route.name);
            root.context.warn(warning);
        }
        if accepts(CredentialKind::EpistulaLite) {
            let warning = format!(
                "route {:?} accepts \"epistula-lite\", which names no receiver: whoever gets such a request can pass it \
                 on to this gateway as long as it is fresh",
                route.name
            );
            root.context.warn(warning);
        }
    }
}
