//! Cached questions to the outside: what a service costs (marketplace) and what a holder has (chain).
//!
//! [`Facts`] is what the deciding rooms see. It answers a known service without waiting; an unknown one waits for one
//! shared look-up. *The source says there is no such thing* and *we could not ask* are different errors all the way
//! through: the first is a refusal, the second an outage.

pub mod cache;
pub mod evm;
#[cfg(test)]
mod fake;
pub mod fault;
pub mod http;
pub mod marketplace;
pub mod neurons;
pub mod pylon;
pub mod subtensor;

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use quick_cache::DefaultHashBuilder;
use tokio::runtime::Handle;

use self::{
    cache::{Cache, Clock, Fetch, Peek, Statistics, Unanswered},
    evm::Evm,
    fault::{Calls, Failed, Fault},
    marketplace::{Described, Marketplace, PlanFacts},
};
use crate::model::{
    address::EvmAddress,
    credits::{CreditSource, Credits, PlanKind, Price},
    decision::{Denial, Dependency, Reason},
    did::Did,
    endpoint::Endpoint,
    identity::IdentityFields,
};

/// What the gateway has to know of a service to decide on a request with a given plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// The service.
    pub service: Did,
    /// The plan that opens it (`_tokenId` of the `nftHolder` condition), which is also the token whose balance counts.
    /// None: any plan does. That can be only for services described in the configuration and for time plans.
    pub plan: Option<Did>,
    /// Whether the plan pays with credits or with time.
    pub plan_kind: PlanKind,
    /// What a request costs. On a time plan: nothing.
    pub price: Price,
    /// Whom the service belongs to (`publicKey[0].owner`), as the marketplace writes it; empty if it does not say.
    pub owner: String,
    /// Who made it (`proof.creator`), as the marketplace writes it; empty if it does not say.
    pub creator: String,
    /// Where the holder's credits are. On a time plan `Local`, and nothing is taken there.
    pub source: CreditSource,
    /// Endpoints that need no credential (`webService.openEndpoints`), as the marketplace writes them.
    pub open_endpoints: Vec<String>,
}

impl ServiceFacts {
    /// A service of which nothing is known but that the plan pays for it with time.
    fn of_time(service: Did, plan: Did) -> Self {
        Self {
            service,
            plan: Some(plan),
            plan_kind: PlanKind::Time,
            price: Price::FREE,
            owner: String::new(),
            creator: String::new(),
            source: CreditSource::Local,
            open_endpoints: Vec::new(),
        }
    }

    /// The owner rule of nevermined.md section 7.4 as the replaced system had it: letter for letter the owner or the
    /// creator. An empty claim owns nothing.
    #[must_use]
    pub fn owned_by(&self, unverified_owner: &str) -> bool {
        !unverified_owner.is_empty() && (self.owner == unverified_owner || self.creator == unverified_owner)
    }
}

/// Why there are no facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactError {
    /// The marketplace says that there is no such service or plan.
    Unknown,
    /// The service is known, and this plan can never be used for it: the reason says why.
    Unusable(Reason),
    /// We could not find out.
    Unavailable(Dependency),
    /// Too many look-ups of services nobody vouches for.
    Limited {
        /// When to try again.
        retry_after: Duration,
    },
}

impl From<FactError> for Denial {
    fn from(error: FactError) -> Self {
        match error {
            FactError::Unknown => Self::NotEntitled("unknown_service"),
            FactError::Unusable(reason) => Self::NotEntitled(reason),
            FactError::Unavailable(dependency) => Self::Unavailable(dependency),
            FactError::Limited { retry_after } => Self::TooManyRequests { retry_after },
        }
    }
}

/// What a service says to those who present nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenService {
    /// The service.
    pub service: Did,
    /// Whom the service belongs to, as in [`ServiceFacts::owner`].
    pub owner: String,
    /// What its upstream is told, which is nothing of a caller.
    pub fields: IdentityFields,
    /// [`ServiceFacts::open_endpoints`], without those that cannot be understood.
    pub open_endpoints: Vec<Endpoint>,
}

impl OpenService {
    /// Reads the endpoints. One that cannot be understood is left out, and does not close the others.
    #[must_use]
    pub fn new(service: Did, owner: String, endpoints: &[String]) -> Self {
        let read = |text: &String| {
            Endpoint::parse(text)
                .inspect_err(|error| tracing::warn!(%service, %error, "an open endpoint cannot be understood"))
                .ok()
        };
        let fields = IdentityFields::new("", service, &owner);
        Self { service, owner, fields, open_endpoints: endpoints.iter().filter_map(read).collect() }
    }
}

/// Where facts come from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The marketplace. None: there are only the services described in the configuration.
    pub marketplace: Option<marketplace::Options>,
    /// The chain's node. None: no balance can be asked for.
    pub node: Option<evm::Options>,
    /// How descriptions are kept: for plans and for services, each.
    pub cache: cache::Options,
}

/// What is known of services, plans and balances.
pub struct Facts {
    configured: ArcSwap<HashMap<Did, Configured, DefaultHashBuilder>>,
    market: Option<Market>,
    node: Option<Arc<Evm>>,
    handle: Handle,
}

/// A service described in the configuration.
struct Configured {
    facts: Arc<ServiceFacts>,
    open: Arc<OpenService>,
}

/// The marketplace, remembered. A plan and a service are described apart, and kept each under its own DID.
struct Market {
    plans: Cache<Did, PlanFacts>,
    services: Cache<Did, Described>,
}

impl Facts {
    /// Facts about nothing yet. What is asked of the outside is asked on `handle`'s runtime, which must live as long.
    ///
    /// # Errors
    /// When an HTTP client cannot be built.
    pub fn new(options: Options, clock: &Clock, handle: Handle) -> Result<Self, http::ClientError> {
        let market =
            options.marketplace.map(|market| Market::new(&market, &options.cache, clock, &handle)).transpose()?;
        let node = options.node.as_ref().map(Evm::new).transpose()?.map(Arc::new);
        Ok(Self { configured: ArcSwap::default(), market, node, handle })
    }

    /// Replaces the services described in the configuration. They are asked before the marketplace, which then is not.
    pub fn configure(&self, services: impl IntoIterator<Item = ServiceFacts>) {
        let configured = services.into_iter().map(|facts| (facts.service, Configured::new(facts)));
        self.configured.store(Arc::new(configured.collect()));
    }

    /// The facts of a service for holders of a plan, if they are known now and allow its use. Never waits.
    ///
    /// None sends the caller to [`Self::service`], which also says why not.
    #[must_use]
    pub fn peek_service(&self, service: Did, plan: Did) -> Option<Arc<ServiceFacts>> {
        if let Some(configured) = self.configured.load().get(&service) {
            return for_plan(&configured.facts, plan).ok();
        }
        let market = self.market.as_ref()?;
        let now = market.plans.now();
        // Both are looked at even if the first is missing, so that both refreshes start together.
        let (plan_facts, described) =
            (known(market.plans.peek(&plan, now)), known(market.services.peek(&service, now)));
        terms(&*described?, *plan_facts?, plan).ok()
    }

    /// The facts of a service for holders of a plan, looked up if they are not known. Both names must come out of a
    /// token that we could open: look-ups of them are not limited.
    ///
    /// # Errors
    /// When there are none; see [`FactError`].
    pub async fn service(&self, service: Did, plan: Did) -> Result<Arc<ServiceFacts>, FactError> {
        if let Some(configured) = self.configured.load().get(&service) {
            return for_plan(&configured.facts, plan);
        }
        let market = self.market.as_ref().ok_or(FactError::Unknown)?;
        let (plan_facts, described) = tokio::join!(market.plans.get(&plan), market.services.get(&service));
        // A plan of time is enough by itself: nothing is counted, so nobody has to say what (nevermined.md section 7.4).
        if matches!(&plan_facts, Ok(Some(plan)) if plan.kind == PlanKind::Time) && !matches!(described, Ok(Some(_))) {
            return Ok(Arc::new(ServiceFacts::of_time(service, plan)));
        }
        // A definite no counts, even if the other question could not be answered.
        if matches!(plan_facts, Ok(None)) || matches!(described, Ok(None)) {
            return Err(FactError::Unknown);
        }
        terms(&*definite(described)?, *definite(plan_facts)?, plan)
    }

    /// As [`Self::peek_service`], for a request that names a service and presents nothing (nevermined.md section 6).
    #[must_use]
    pub fn peek_open(&self, unverified_service: Did) -> Option<Arc<OpenService>> {
        if let Some(configured) = self.configured.load().get(&unverified_service) {
            return Some(Arc::clone(&configured.open));
        }
        let services = &self.market.as_ref()?.services;
        known(services.peek(&unverified_service, services.now())).map(|described| Arc::clone(&described.open))
    }

    /// As [`Self::service`], for a request that names a service and presents nothing. Such look-ups are limited.
    ///
    /// # Errors
    /// When there are no facts; see [`FactError`].
    pub async fn open_service(&self, unverified_service: Did) -> Result<Arc<OpenService>, FactError> {
        if let Some(configured) = self.configured.load().get(&unverified_service) {
            return Ok(Arc::clone(&configured.open));
        }
        let market = self.market.as_ref().ok_or(FactError::Unknown)?;
        let described = definite(market.services.get_unvouched(&unverified_service).await)?;
        Ok(Arc::clone(&described.open))
    }

    /// What `holder` has of `plan`'s credits on chain, at the latest block. Asked anew every time.
    ///
    /// The question outlives a caller that stops waiting for it.
    ///
    /// # Errors
    /// The reason is for the log; to a caller every one of them means [`FactError::Unavailable`], as
    /// [`FactError::from`] says.
    pub async fn balance(&self, contract: EvmAddress, holder: EvmAddress, plan: Did) -> Result<Credits, Failed> {
        let node = self.node.clone().ok_or_else(|| Failed::new(Fault::Transport, "no node is configured"))?;
        // On our own runtime: the client's connections are served by the runtime that opened them.
        let question = self.handle.spawn(async move { node.balance(contract, holder, plan).await });
        question.await.unwrap_or_else(|_| Err(Failed::new(Fault::Aborted, "the question was cut off")))
    }

    /// What has happened to look-ups of plans, for the metrics.
    #[must_use]
    pub fn plan_statistics(&self) -> Option<&Statistics> {
        self.market.as_ref().map(|market| market.plans.statistics())
    }

    /// What has happened to look-ups of services, for the metrics.
    #[must_use]
    pub fn service_statistics(&self) -> Option<&Statistics> {
        self.market.as_ref().map(|market| market.services.statistics())
    }

    /// The questions put to the chain, for the metrics.
    #[must_use]
    pub fn node_calls(&self) -> Option<&Calls> {
        self.node.as_ref().map(|node| node.calls())
    }
}

impl Configured {
    fn new(facts: ServiceFacts) -> Self {
        let open = OpenService::new(facts.service, facts.owner.clone(), &facts.open_endpoints);
        Self { facts: Arc::new(facts), open: Arc::new(open) }
    }
}

impl Market {
    fn new(
        options: &marketplace::Options,
        cache: &cache::Options,
        clock: &Clock,
        handle: &Handle,
    ) -> Result<Self, http::ClientError> {
        let market = Marketplace::new(options)?;
        let plans = {
            let market = market.clone();
            move |plan| -> Fetch<PlanFacts> {
                let market = market.clone();
                Box::pin(async move { market.plan(plan).await })
            }
        };
        let services = move |service| -> Fetch<Described> {
            let market = market.clone();
            Box::pin(async move { market.service(service).await })
        };
        Ok(Self {
            plans: Cache::new(Dependency::Marketplace, cache.clone(), clock.clone(), handle.clone(), plans),
            services: Cache::new(Dependency::Marketplace, cache.clone(), clock.clone(), handle.clone(), services),
        })
    }
}

/// The value that can be used now.
fn known<V>(peek: Peek<V>) -> Option<Arc<V>> {
    match peek {
        Peek::Fresh(answer) => answer,
        Peek::Stale(value) => Some(value),
        Peek::Missing => None,
    }
}

/// The value, where "there is none" is an error too.
fn definite<V>(answer: Result<cache::Answer<V>, Unanswered>) -> Result<Arc<V>, FactError> {
    match answer {
        Ok(answer) => answer.ok_or(FactError::Unknown),
        Err(Unanswered::Unavailable(_)) => Err(FactError::Unavailable(Dependency::Marketplace)),
        Err(Unanswered::Limited { retry_after }) => Err(FactError::Limited { retry_after }),
    }
}

/// What a service asks of those who hold this plan.
fn terms(described: &Described, plan_facts: PlanFacts, plan: Did) -> Result<Arc<ServiceFacts>, FactError> {
    let facts = match plan_facts.kind {
        PlanKind::Time => &described.time,
        PlanKind::Credits => described.credits.as_ref().map_err(|reason| FactError::Unusable(reason))?,
    };
    for_plan(facts, plan)
}

/// The facts, if this plan opens the service.
fn for_plan(facts: &Arc<ServiceFacts>, plan: Did) -> Result<Arc<ServiceFacts>, FactError> {
    match facts.plan {
        Some(needed) if needed != plan => Err(FactError::Unusable("plan_of_another_service")),
        _ => Ok(Arc::clone(facts)),
    }
}

impl From<Failed> for FactError {
    /// A balance that could not be had.
    fn from(_: Failed) -> Self {
        Self::Unavailable(Dependency::Chain)
    }
}

#[cfg(test)]
mod tests;
