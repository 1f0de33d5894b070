//! The marketplace, which describes services and plans (nevermined.md sections 7.1 to 7.3).
//!
//! Descriptions are parsed into facts here and nowhere else. Three outcomes are kept apart: the marketplace says there
//! is no such thing (404), it describes something that cannot be paid with credits, and anything we cannot read with
//! certainty. The last is a failure to find out, never a refusal: a price that we misread would be charged.

use std::sync::Arc;

use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{
    OpenService, ServiceFacts,
    fault::{Failed, Fault},
    http,
    http::Object,
};
use crate::model::{
    address::EvmAddress,
    credits::{ChargeType, CreditSource, Credits, PlanKind, Price},
    decision::Reason,
    did::Did,
};

/// Where the marketplace is and how it is asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its base address, to which `/api/v1/metadata/assets/ddo/…` is added.
    pub url: Url,
    /// How to reach it.
    pub http: http::Options,
    /// The longest description read, in bytes.
    pub answer_limit: usize,
}

/// The marketplace.
#[derive(Clone)]
pub struct Marketplace {
    client: Client,
    base: Url,
    answer_limit: usize,
}

/// What a plan's description says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanFacts {
    /// How it pays.
    pub kind: PlanKind,
}

/// What a service's description says, ready for every way it can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// For holders of a credits plan. The reason why nobody can pay with credits, where the description has no
    /// `nft-access` with an `nftHolder` condition and a price.
    pub credits: Result<Arc<ServiceFacts>, Reason>,
    /// For holders of a time plan, who pay nothing. The plan is None where the description names none.
    pub time: Arc<ServiceFacts>,
    /// For those who present nothing.
    pub open: Arc<OpenService>,
}

/// The service's description has nothing to pay with credits.
pub const NOT_PAYABLE: Reason = "service_not_payable";

impl Marketplace {
    /// A marketplace. Nothing is asked yet.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn new(options: &Options) -> Result<Self, http::ClientError> {
        let client = http::client(&options.url, &options.http)?;
        Ok(Self { client, base: options.url.clone(), answer_limit: options.answer_limit })
    }

    /// Asks for a plan. None: there is none.
    ///
    /// # Errors
    /// When the marketplace could not be asked, or its answer cannot be read with certainty.
    pub async fn plan(&self, plan: Did) -> Result<Option<PlanFacts>, Failed> {
        let Some(body) = self.description(plan).await? else { return Ok(None) };
        parse_plan(plan, &body).map(Some)
    }

    /// Asks for a service. None: there is none.
    ///
    /// # Errors
    /// When the marketplace could not be asked, or its answer cannot be read with certainty.
    pub async fn service(&self, service: Did) -> Result<Option<Described>, Failed> {
        let Some(body) = self.description(service).await? else { return Ok(None) };
        parse_service(service, &body).map(Some)
    }

    async fn description(&self, did: Did) -> Result<Option<Vec<u8>>, Failed> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Failed::new(Fault::Transport, "the marketplace's address cannot be extended"))?
            .pop_if_empty()
            .extend(["api", "v1", "metadata", "assets", "ddo", &did.to_string()]);
        let response = self.client.get(url).header("accept", "application/json").send().await.map_err(http::failed)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => http::read(response, self.answer_limit).await.map(Some),
            status => Err(Failed::new(Fault::Status, format!("the marketplace answered {}", status.as_u16()))),
        }
    }
}

/// Reads a plan's description, which must be `plan`'s.
///
/// # Errors
/// When it cannot be read with certainty.
pub fn parse_plan(plan: Did, body: &[u8]) -> Result<PlanFacts, Failed> {
    let main = Ddo::parse(plan, body)?.main::<PlanMain>()?;
    // An absent or unknown type, and `both`, is checked like credits: only `time` alone waives the balance.
    let kind = match main.subscription.and_then(|Object(subscription)| subscription.subscription_type).as_deref() {
        Some("time") => PlanKind::Time,
        _ => PlanKind::Credits,
    };
    Ok(PlanFacts { kind })
}

/// Reads a service's description, which must be `service`'s.
///
/// # Errors
/// When it cannot be read with certainty.
pub fn parse_service(service: Did, body: &[u8]) -> Result<Described, Failed> {
    let ddo = Ddo::parse(service, body)?;
    let web = ddo.main::<ServiceMain>()?.web_service.map(|Object(web)| web).unwrap_or_default();
    let charge_type = match web.charge_type.as_deref() {
        None | Some("" | "fixed") => ChargeType::Fixed,
        Some("dynamic") => ChargeType::Dynamic,
        Some(_) => return Err(malformed("chargeType is neither fixed nor dynamic")),
    };
    let access = ddo.access(charge_type)?;
    let owner = ddo.public_key.into_iter().next().and_then(|Object(key)| key.owner).unwrap_or_default();
    let creator = ddo.proof.and_then(|Object(proof)| proof.creator).unwrap_or_default();
    let open_endpoints = web.open_endpoints.unwrap_or_default();
    let open = Arc::new(OpenService::new(service, owner.clone(), &open_endpoints));
    let time = ServiceFacts {
        service,
        plan: access.as_ref().map(|access| access.plan),
        plan_kind: PlanKind::Time,
        price: Price::FREE,
        owner,
        creator,
        source: CreditSource::Local,
        open_endpoints,
    };
    let credits = access.ok_or(NOT_PAYABLE).map(|access| {
        Arc::new(ServiceFacts {
            plan_kind: PlanKind::Credits,
            price: access.price,
            source: CreditSource::Chain { contract: access.contract },
            ..time.clone()
        })
    });
    Ok(Described { credits, time: Arc::new(time), open })
}

#[derive(Deserialize)]
struct Ddo {
    id: String,
    #[serde(default, rename = "publicKey")]
    public_key: Vec<Object<PublicKey>>,
    proof: Option<Object<Proof>>,
    service: Vec<Object<Part>>,
}

#[derive(Deserialize)]
struct PublicKey {
    owner: Option<String>,
}

#[derive(Deserialize)]
struct Proof {
    creator: Option<String>,
}

/// An element of `service`. There are kinds that do not concern us, whose attributes are not looked at.
#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    attributes: Value,
}

#[derive(Deserialize)]
struct Attributes<T> {
    main: Object<T>,
}

#[derive(Deserialize)]
struct PlanMain {
    subscription: Option<Object<Subscription>>,
}

#[derive(Deserialize)]
struct Subscription {
    #[serde(rename = "subscriptionType")]
    subscription_type: Option<String>,
}

#[derive(Deserialize)]
struct ServiceMain {
    #[serde(rename = "webService")]
    web_service: Option<Object<WebService>>,
}

#[derive(Default, Deserialize)]
struct WebService {
    #[serde(rename = "chargeType")]
    charge_type: Option<String>,
    #[serde(rename = "openEndpoints")]
    open_endpoints: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct AccessAttributes {
    main: Object<AccessMain>,
    #[serde(rename = "serviceAgreementTemplate")]
    template: Option<Object<Template>>,
}

#[derive(Deserialize)]
struct AccessMain {
    #[serde(rename = "nftAttributes")]
    nft: Option<Object<Nft>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Nft {
    amount: Value,
    #[serde(default)]
    min_credits_required: Value,
    #[serde(default)]
    min_credits_to_charge: Value,
    #[serde(default)]
    max_credits_to_charge: Value,
}

#[derive(Deserialize)]
struct Template {
    #[serde(default)]
    conditions: Vec<Object<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    name: String,
    #[serde(default)]
    parameters: Vec<Object<Parameter>>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    #[serde(default)]
    value: Value,
}

/// How a service is paid with credits.
struct Access {
    contract: EvmAddress,
    plan: Did,
    price: Price,
}

impl Ddo {
    fn parse(asked: Did, body: &[u8]) -> Result<Self, Failed> {
        let Object(ddo) = serde_json::from_slice::<Object<Self>>(body).map_err(|error| unreadable(&error))?;
        if ddo.id.parse() != Ok(asked) {
            return Err(malformed("the description is not of what was asked for"));
        }
        Ok(ddo)
    }

    /// The `main` of the first element of type `metadata`.
    fn main<T: for<'a> Deserialize<'a>>(&self) -> Result<T, Failed> {
        let part = self.part("metadata").ok_or_else(|| malformed("there is no metadata"))?;
        part.attributes::<Attributes<T>>().map(|attributes| attributes.main.0)
    }

    fn part(&self, kind: &str) -> Option<&Part> {
        self.service.iter().map(|Object(part)| part).find(|part| part.kind == kind)
    }

    /// The first element of type `nft-access`. None: one cannot pay with credits. That something is missing as a whole
    /// is a statement; that it is there and ill-formed is not.
    fn access(&self, charge_type: ChargeType) -> Result<Option<Access>, Failed> {
        let Some(part) = self.part("nft-access") else { return Ok(None) };
        let access = part.attributes::<AccessAttributes>()?;
        let conditions = access.template.map(|Object(template)| template.conditions).unwrap_or_default();
        let Some(Object(holder)) = conditions.iter().find(|Object(condition)| condition.name == "nftHolder") else {
            return Ok(None);
        };
        let Some(Object(nft)) = access.main.0.nft else { return Ok(None) };
        let price = Price {
            charge_type,
            amount: amount("amount", &nft.amount)?.ok_or_else(|| malformed("amount is empty"))?,
            minimum: amount("minCreditsToCharge", &nft.min_credits_to_charge)?,
            maximum: amount("maxCreditsToCharge", &nft.max_credits_to_charge)?,
            // Absent means one (nevermined.md section 7.4). There the number 0 also meant one, and the text "0" none:
            // here both mean none.
            required: amount("minCreditsRequired", &nft.min_credits_required)?.unwrap_or(Credits::new(1)),
        };
        let contract =
            holder.text("_contractAddress")?.parse().map_err(|_| malformed("_contractAddress is not an address"))?;
        let plan = Did::from_digits(holder.text("_tokenId")?).map_err(|_| malformed("_tokenId is not 64 digits"))?;
        Ok(Some(Access { contract, plan, price }))
    }
}

impl Part {
    fn attributes<T: for<'a> Deserialize<'a>>(&self) -> Result<T, Failed> {
        Object::deserialize(&self.attributes).map(|Object(attributes)| attributes).map_err(|error| unreadable(&error))
    }
}

impl Condition {
    fn text(&self, name: &str) -> Result<&str, Failed> {
        let parameter =
            self.parameters.iter().map(|Object(parameter)| parameter).find(|parameter| parameter.name == name);
        parameter
            .and_then(|parameter| parameter.value.as_str())
            .ok_or_else(|| malformed(&format!("there is no {name}")))
    }
}

/// A whole number that is not negative, as a JSON number or as decimal digits. None: absent, null or empty.
fn amount(name: &str, value: &Value) -> Result<Option<Credits>, Failed> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::Number(number) => number.as_u64(),
        Value::String(text) if text.len() <= 78 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(text.parse().unwrap_or(u64::MAX))
        }
        _ => None,
    };
    number.map(|number| Some(Credits::new(number))).ok_or_else(|| malformed(&format!("{name} is not a whole number")))
}

fn malformed(detail: &str) -> Failed {
    Failed::new(Fault::Malformed, detail)
}

/// What the parser says may quote the description, at whatever length: only the beginning is kept.
fn unreadable(error: &serde_json::Error) -> Failed {
    malformed(&error.to_string().chars().take(200).collect::<String>())
}

#[cfg(test)]
pub(super) mod tests;
