//! The decision point: may this identity use this route now?
//!
//! Everything here is a function of its arguments and of cached facts. It reads no headers, writes no responses and never
//! waits longer than the facts' own limits allow. Turning a [`Denial`] into HTTP is `proxy::respond`'s work.

mod access_tokens;
pub mod neurons;

use std::{sync::Arc, time::Instant};

use crate::{
    chain::{Facts, OpenService, ServiceFacts, neurons::Neurons},
    config::{Route, RouteTarget},
    credits::{AccountKey, Charge, Hold, Ledger},
    model::{
        credits::{Credits, PlanKind},
        decision::Denial,
        did::Did,
        endpoint::{Endpoint, Origin, last_match},
        identity::{Entitlement, Identity, Subject},
        path::RequestPath,
    },
};

/// Decides. One for all routes; holds nothing but where facts come from.
pub struct DecisionPoint {
    facts: Arc<Facts>,
    ledger: Arc<Ledger>,
    neurons: Option<Arc<Neurons>>,
}

/// What is asked for, as far as it matters to the decision.
pub struct Asked<'a> {
    /// The path in its normal form: what is matched here is what is sent.
    pub path: &'a RequestPath<'a>,
    /// The origin of a request in absolute form, which must then be the endpoint's.
    pub forward_origin: Option<&'a Origin>,
    /// The service whose DID is the first label of the requested host name.
    pub unverified_service: Option<Did>,
    /// The moment that facts about credits have to be fresh at.
    pub now: Instant,
}

/// Leave to forward one request. Only this file makes one, so code that holds a `Permit` is code that runs after the
/// decision.
pub struct Permit {
    grant: Grant,
    meter: Option<Meter>,
}

enum Grant {
    /// The route asks nobody who they are.
    OpenRoute { upstream: usize },
    /// A service has opened this endpoint to everybody.
    OpenEndpoint { service: Arc<OpenService>, endpoint: usize },
    /// A token covers this endpoint. `upstream` is the route's, if it names one.
    Entitled { identity: Arc<Identity>, endpoint: usize, upstream: Option<usize> },
    /// The route's policy admits this caller.
    Admitted { identity: Arc<Identity>, upstream: usize },
}

/// Where a permitted request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// An upstream of the configuration, by its index.
    Configured(usize),
    /// The origin of the endpoint.
    Origin(&'a Origin),
}

impl Permit {
    /// Where the request goes.
    #[must_use]
    pub fn destination(&self) -> Option<Destination<'_>> {
        match &self.grant {
            Grant::OpenRoute { upstream }
            | Grant::Entitled { upstream: Some(upstream), .. }
            | Grant::Admitted { upstream, .. } => Some(Destination::Configured(*upstream)),
            Grant::Entitled { .. } | Grant::OpenEndpoint { .. } => {
                self.endpoint().map(|endpoint| Destination::Origin(endpoint.origin()))
            }
        }
    }

    /// The endpoint that matched.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.grant {
            Grant::OpenRoute { .. } | Grant::Admitted { .. } => None,
            Grant::OpenEndpoint { service, endpoint } => service.open_endpoints.get(*endpoint),
            Grant::Entitled { identity, endpoint, .. } => identity.entitlement.as_ref()?.endpoints.get(*endpoint),
        }
    }

    /// Who is calling. None: nobody was asked.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match &self.grant {
            Grant::Entitled { identity, .. } | Grant::Admitted { identity, .. } => Some(identity),
            Grant::OpenRoute { .. } | Grant::OpenEndpoint { .. } => None,
        }
    }

    /// The service whose open endpoint this is.
    #[must_use]
    pub fn open_service(&self) -> Option<&OpenService> {
        match &self.grant {
            Grant::OpenEndpoint { service, .. } => Some(service),
            Grant::OpenRoute { .. } | Grant::Entitled { .. } | Grant::Admitted { .. } => None,
        }
    }

    /// Takes the meter out, to settle it: that happens once.
    pub fn take_meter(&mut self) -> Option<Meter> {
        self.meter.take()
    }
}

/// What one request will cost, and the credits that are held for it. Dropping it gives them back.
pub struct Meter {
    facts: Arc<ServiceFacts>,
    identity: Arc<Identity>,
    hold: Option<Hold>,
}

impl Meter {
    /// Who pays.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What the service asks.
    #[must_use]
    pub fn facts(&self) -> &ServiceFacts {
        &self.facts
    }

    /// The hold becomes the charge for an answer with this status, of which the service reported this. Without a hold
    /// there is nothing to charge: the owner calls, or the plan pays with time.
    pub fn charge(&mut self, status: u16, reported: Option<Credits>) -> Charge {
        self.hold.take().map_or(Charge::NOTHING, |hold| hold.charge(self.facts.price.charge(status, reported)))
    }
}

impl DecisionPoint {
    /// Decides by these facts, these accounts and, if any route asks about neurons, these tables.
    #[must_use]
    pub fn new(facts: Arc<Facts>, ledger: Arc<Ledger>, neurons: Option<Arc<Neurons>>) -> Self {
        Self { facts, ledger, neurons }
    }

    /// Decides whether a request may be forwarded, and takes a hold on the most it may cost.
    ///
    /// # Errors
    /// The [`Denial`], which says why not.
    pub async fn decide(
        &self,
        route: &Route,
        identity: Option<Arc<Identity>>,
        asked: &Asked<'_>,
    ) -> Result<Permit, Denial> {
        let upstream = match route.target {
            RouteTarget::Upstream(index) => Some(index),
            RouteTarget::Token => None,
            // Answered by ourselves, and never forwarded.
            RouteTarget::AuthorizationServer => return Err(Denial::NoRoute),
        };
        match (identity, upstream) {
            (Some(identity), Some(upstream)) if identity.entitlement.is_none() => {
                self.admit(route, &identity)?;
                Ok(Permit { grant: Grant::Admitted { identity, upstream }, meter: None })
            }
            (Some(identity), _) => {
                let (endpoint, facts) = self.entitle(route, &identity, asked).await?;
                let hold = self.hold(&identity, &facts, asked.now).await?;
                let meter = Some(Meter { facts, identity: Arc::clone(&identity), hold });
                Ok(Permit { grant: Grant::Entitled { identity, endpoint, upstream }, meter })
            }
            (None, Some(upstream)) if route.accepts.is_empty() => {
                Ok(Permit { grant: Grant::OpenRoute { upstream }, meter: None })
            }
            (None, _) => self.open_endpoint(route, asked).await,
        }
    }

    /// Whether the same request would be let through, for a proxy that is not us: the holder must have what the service
    /// asks for at least, and nothing is held, because nobody would tell us when the answer ends.
    ///
    /// # Errors
    /// The [`Denial`], which says why not.
    pub async fn introspect(
        &self,
        route: &Route,
        identity: Option<Arc<Identity>>,
        asked: &Asked<'_>,
    ) -> Result<Permit, Denial> {
        let Some(identity) = identity else { return self.open_endpoint(route, asked).await };
        let (endpoint, facts) = self.entitle(route, &identity, asked).await?;
        if let Some((key, _)) = payment(&identity, &facts) {
            let needed = facts.price.required;
            if self.ledger.spendable(key).await? < needed {
                return Err(Denial::InsufficientCredits { needed });
            }
        }
        Ok(Permit { grant: Grant::Entitled { identity, endpoint, upstream: None }, meter: None })
    }

    /// Whether the route admits the bearer of an access token, or a neuron.
    fn admit(&self, route: &Route, identity: &Identity) -> Result<(), Denial> {
        if let Some(token) = &identity.access_token {
            let policy = route.access_token.as_ref().ok_or(Denial::NotEntitled("no_access_token"))?;
            return access_tokens::admit(policy, token);
        }
        let policy = route.neurons.as_ref().ok_or(Denial::NotEntitled("no_neuron"))?;
        neurons::admit(policy, self.neurons.as_deref(), &identity.subject)
    }

    /// Everything but the credits: the endpoint that covers the request, and what the service asks for it.
    async fn entitle(
        &self,
        route: &Route,
        identity: &Identity,
        asked: &Asked<'_>,
    ) -> Result<(usize, Arc<ServiceFacts>), Denial> {
        let entitlement = identity.entitlement.as_ref().ok_or(Denial::NotEntitled("no_entitlement"))?;
        if matches!(route.target, RouteTarget::Upstream(_)) && !route.services.contains(&entitlement.service) {
            return Err(Denial::NotEntitled("other_service"));
        }
        let endpoint = covering(entitlement, asked)?;
        let facts = match self.facts.peek_service(entitlement.service, entitlement.plan) {
            Some(facts) => facts,
            None => self.facts.service(entitlement.service, entitlement.plan).await?,
        };
        Ok((endpoint, facts))
    }

    async fn hold(&self, identity: &Identity, facts: &ServiceFacts, now: Instant) -> Result<Option<Hold>, Denial> {
        match payment(identity, facts) {
            Some((key, most)) => self.ledger.hold(key, most, facts.price.required, now).await.map(Some),
            None => Ok(None),
        }
    }

    /// A request without a credential that names a service by its DID (nevermined.md section 6).
    async fn open_endpoint(&self, route: &Route, asked: &Asked<'_>) -> Result<Permit, Denial> {
        let Some(service) = asked.unverified_service.filter(|_| route.open_endpoints) else {
            return Err(Denial::NoCredential);
        };
        let service = match self.facts.peek_open(service) {
            Some(known) => known,
            None => self.facts.open_service(service).await.map_err(|error| match error {
                // A stranger learns nothing about which services exist.
                crate::chain::FactError::Unknown => Denial::NoCredential,
                other => other.into(),
            })?,
        };
        let endpoint = last_match(&service.open_endpoints, asked.path, None).ok_or(Denial::NoCredential)?;
        Ok(Permit { grant: Grant::OpenEndpoint { service, endpoint }, meter: None })
    }
}

/// The last endpoint that matches covers the request (nevermined.md section 3).
fn covering(entitlement: &Entitlement, asked: &Asked<'_>) -> Result<usize, Denial> {
    if entitlement.endpoints.is_empty() {
        return Err(Denial::NotEntitled("no_usable_endpoint"));
    }
    last_match(&entitlement.endpoints, asked.path, asked.forward_origin)
        .ok_or(Denial::NotEntitled("endpoint_not_covered"))
}

/// Who pays how much at the most. None where nothing is paid: the plan pays with time, or the caller owns the service.
/// The replaced system looked at who owns the service, not at who calls, so that nobody ever paid (nevermined.md section 7.4).
fn payment(identity: &Identity, facts: &ServiceFacts) -> Option<(AccountKey, Credits)> {
    let Subject::Evm(holder) = identity.subject else { return None };
    let entitlement = identity.entitlement.as_ref()?;
    let caller_is_owner = facts.owned_by(&entitlement.user_id);
    if facts.plan_kind == PlanKind::Time || caller_is_owner {
        return None;
    }
    Some((AccountKey { source: facts.source, plan: entitlement.plan, holder }, facts.price.most()))
}
