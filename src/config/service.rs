//! `[[service]]`: services and their plans, described here instead of at the marketplace.

use crate::model::{
    address::EvmAddress,
    credits::{PlanKind, Price},
    did::Did,
};

/// A service and the plan that pays for it.
#[derive(Clone, Debug)]
pub struct Service {
    /// `id`: the service's DID, which tokens carry as `did`.
    pub id: Did,
    /// `plan`: the plan's DID, which tokens carry as `subscriptionDid`.
    pub plan: Did,
    /// `plan_kind`: `credits` (the default) or `time`.
    pub plan_kind: PlanKind,
    /// `charge` (`fixed`, the default, or `dynamic`), `amount` (1), `minimum`, `maximum` (none) and `required` (1).
    pub price: Price,
    /// `owner`: told to the upstream of an open endpoint as `NVM-Owner`. Default: empty.
    pub owner: String,
    /// `credits`: `local` (the default) or `chain`, which needs `contract`.
    pub credits: CreditSource,
    /// `open_endpoints`: URL patterns that anybody may call (nevermined.md section 3). Default: none.
    pub open_endpoints: Vec<String>,
}

/// Who knows how many credits a holder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditSource {
    /// Our own database.
    Local,
    /// An ERC-1155 contract, whose token id is the plan.
    Chain {
        /// `contract`: its address.
        contract: EvmAddress,
    },
}
