//! `[[service]]`: services and their plans, described here instead of at the marketplace.

use super::{
    reader::Section,
    value::{Parse, Raw, word},
};
use crate::model::{
    address::EvmAddress,
    credits::{ChargeType, CreditSource, Credits, PlanKind, Price},
    did::Did,
    endpoint::Endpoint,
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

impl Service {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let id = section.required::<Did>("id", &[]);
        let plan = section.required::<Did>("plan", &[]);
        let plan_kind = section.or("plan_kind", PlanKind::Credits);
        let price = read_price(section);
        let owner = section.optional::<String>("owner", &[]).map_or_else(String::new, |found| found.value);
        let credits = read_credits(section);
        let open_endpoints = section.list::<String>("open_endpoints", &[]).unwrap_or_default();
        for found in &open_endpoints {
            if let Err(problem) = Endpoint::parse(&found.value) {
                section.context.mistake(&found.at, format!("{:?} is no endpoint: {problem}", found.value));
            }
        }
        let open_endpoints = open_endpoints.into_iter().map(|found| found.value).collect();
        Some(Self { id: id?.value, plan: plan?.value, plan_kind, price, owner, credits: credits?, open_endpoints })
    }
}

fn read_price(section: &Section<'_>) -> Price {
    let credits = |key| section.optional::<Credits>(key, &[]).map(|found| found.value);
    let price = Price {
        charge_type: section.or("charge", ChargeType::Fixed),
        amount: credits("amount").unwrap_or(Credits::new(1)),
        minimum: credits("minimum"),
        maximum: credits("maximum"),
        required: credits("required").unwrap_or(Credits::new(1)),
    };
    if let (Some(minimum), Some(maximum)) = (price.minimum, price.maximum)
        && minimum > maximum
    {
        section.mistake("minimum", "is more than `maximum`");
    }
    price
}

fn read_credits(section: &Section<'_>) -> Option<CreditSource> {
    let on_chain = section.or("credits", OnChain(false)).0;
    let contract = section.optional::<EvmAddress>("contract", &[]);
    match (on_chain, contract) {
        (false, None) => Some(CreditSource::Local),
        (false, Some(found)) => {
            section.context.mistake(&found.at, "has no effect without `credits = \"chain\"`");
            None
        }
        (true, Some(found)) => Some(CreditSource::Chain { contract: found.value }),
        (true, None) => {
            if !section.has("contract") {
                section.mistake("contract", "is missing: `credits = \"chain\"` needs it");
            }
            None
        }
    }
}

/// The word of `credits`.
struct OnChain(bool);

impl Parse for OnChain {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("local", false), ("chain", true)]).map(Self)
    }
}

impl Parse for PlanKind {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("credits", Self::Credits), ("time", Self::Time)])
    }
}

impl Parse for ChargeType {
    fn parse(raw: Raw<'_>) -> Result<Self, String> {
        word(raw, &[("fixed", Self::Fixed), ("dynamic", Self::Dynamic)])
    }
}
