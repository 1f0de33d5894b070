//! `tollgate usage`: what was used, and what it cost. Explains a charge from the request's id to its burn.

use std::io::Write;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{credits::plan, moment, on_runtime, open, table};
use crate::{
    config::Config,
    model::{address::EvmAddress, credits::Credits, did::Did},
    store::{GroupBy, UsageFilter, UsageRow, UsageSum},
};

/// What to show.
#[derive(Subcommand)]
pub enum Command {
    /// The latest requests.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many at the most.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// One request, by its id: the `X-Request-Id` of the answer and the `request_id` of the access log.
    Show {
        /// The id.
        id: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Events that the database cannot take, set aside for a person: nothing was charged for them.
    Rejected {
        /// How many at the most.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Sums.
    Sum {
        /// By what.
        #[arg(long, default_value = "holder")]
        by: By,
        #[command(flatten)]
        filter: Filter,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

/// Which requests.
#[derive(Args)]
pub struct Filter {
    /// At or after this moment: `2026-11-23` or `2026-11-23T12:00:00Z`.
    #[arg(long, value_parser = parse_moment)]
    since: Option<i64>,
    /// Before this moment.
    #[arg(long, value_parser = parse_moment)]
    until: Option<i64>,
    /// Of this holder.
    #[arg(long)]
    holder: Option<EvmAddress>,
    /// Of this plan.
    #[arg(long, value_parser = plan)]
    plan: Option<Did>,
    /// Of this service.
    #[arg(long)]
    service: Option<Did>,
    /// Of this route.
    #[arg(long)]
    route: Option<String>,
}

/// What sums are made by.
#[derive(Clone, Copy, ValueEnum)]
pub enum By {
    /// The account.
    Holder,
    /// The plan.
    Plan,
    /// The service.
    Service,
    /// The route.
    Route,
    /// The day, UTC.
    Day,
}

fn parse_moment(text: &str) -> Result<i64, String> {
    use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};
    let date =
        || Date::parse(text, format_description!("[year]-[month]-[day]")).map(|date| date.midnight().assume_utc());
    let moment = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| date()).map_err(|error| error.to_string())?;
    i64::try_from(moment.unix_timestamp_nanos() / 1000).map_err(|error| error.to_string())
}

impl Filter {
    fn parsed(self) -> UsageFilter {
        UsageFilter {
            since_micros: self.since,
            until_micros: self.until,
            holder: self.holder,
            plan: self.plan,
            service: self.service,
            route: self.route,
        }
    }
}

/// Shows it.
///
/// # Errors
/// When the database does not.
pub fn run(command: Command, config: &Config) -> anyhow::Result<()> {
    on_runtime(async {
        let store = open(config)?;
        let mut out = std::io::stdout().lock();
        match command {
            Command::List { filter, limit, json } => {
                let rows = store.list_usage(&filter.parsed(), limit).await.context("reading the usage")?;
                if json {
                    rows.iter().try_for_each(|row| writeln!(out, "{}", as_json(row)))?;
                } else {
                    let head = ["TIME", "REQUEST", "HOLDER", "ROUTE", "CALLED", "STATUS", "CHARGED", "BURNED"];
                    write!(out, "{}", table(&head, &rows.iter().map(as_line).collect::<Vec<_>>()))?;
                }
            }
            Command::Show { id, json } => {
                let rows = store.show_usage(&id).await.context("reading the usage")?;
                ensure!(
                    !rows.is_empty(),
                    "no metered request has the id {id}. Events reach the database within a second; refused requests and open routes are not metered."
                );
                for row in &rows {
                    if json { writeln!(out, "{:#}", as_json(row))? } else { write!(out, "{}", explain(row))? }
                }
            }
            Command::Rejected { limit } => {
                for rejected in store.rejected_usage(limit).await.context("reading what was set aside")? {
                    let line = json!({
                        "id": rejected.id,
                        "time": moment(rejected.at_micros),
                        "error": rejected.error,
                        "event": rejected.raw,
                    });
                    writeln!(out, "{line}")?;
                }
            }
            Command::Sum { by, filter, json } => {
                let by = match by {
                    By::Holder => GroupBy::Holder,
                    By::Plan => GroupBy::Plan,
                    By::Service => GroupBy::Service,
                    By::Route => GroupBy::Route,
                    By::Day => GroupBy::Day,
                };
                let sums = store.sum_usage(by, &filter.parsed()).await.context("reading the usage")?;
                if json {
                    sums.iter().try_for_each(|sum| writeln!(out, "{}", sum_as_json(by, sum)))?;
                } else {
                    let row = |sum: &UsageSum| {
                        vec![sum.key.clone(), sum.events.to_string(), sum.charged.to_string(), sum.unburned.to_string()]
                    };
                    let head = by.as_str().to_uppercase();
                    let rows: Vec<_> = sums.iter().map(row).collect();
                    write!(out, "{}", table(&[&head, "REQUESTS", "CHARGED", "NOT BURNED YET"], &rows))?;
                }
            }
        }
        store.close().await;
        Ok(())
    })
}

fn as_line(row: &UsageRow) -> Vec<String> {
    let event = &row.event;
    vec![
        moment(event.at_micros),
        event.request_id().into_owned(),
        event.terms.holder.map_or_else(|| "-".to_owned(), |holder| holder.to_string()),
        event.terms.route.to_string(),
        printable(&format!("{} {}", event.method, event.endpoint)),
        event.status.to_string(),
        event.charged.to_string(),
        burned(row),
    ]
}

/// A client chose these characters: none of them may move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn burned(row: &UsageRow) -> String {
    match (&row.burn, row.burned_at_micros) {
        _ if row.event.charged == Credits::ZERO => "nothing to burn".to_owned(),
        (Some(burn), Some(at)) if burn == "queue-error" => format!("not: the burner gave up, {}", moment(at)),
        (Some(burn), Some(at)) => format!("{burn} {}", moment(at)),
        _ => "not yet".to_owned(),
    }
}

/// From the request to the charge, in words.
fn explain(row: &UsageRow) -> String {
    let event = &row.event;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let reason = match (event.status, event.reported, event.charged.get()) {
        (status, _, 0) if !(200..300).contains(&status) => format!("nothing, because status {status} is no delivery"),
        (_, Some(reported), charged) if reported.get() == charged => format!("{charged}, as the service reported"),
        (_, Some(reported), charged) => format!(
            "{charged}; the service reported {reported}, and the plan's bounds, its fixed price or what the holder had \
             left decided"
        ),
        (_, None, 0) => "nothing: the caller owns the service, the plan pays with time, or its price is 0".to_owned(),
        (_, None, charged) => format!("{charged}, the plan's ordinary price: the service reported nothing"),
    };
    let lines = [
        ("request", event.request_id().into_owned()),
        ("event", event.event_id.to_string()),
        ("answered", format!("{} after {} µs", moment(event.at_micros), event.duration_micros)),
        ("route", event.terms.route.to_string()),
        ("called", printable(&format!("{} {}", event.method, event.endpoint))),
        ("service", event.terms.service.to_string()),
        ("plan", or_none(event.terms.plan.map(|plan| plan.to_string()))),
        ("holder", or_none(event.terms.holder.map(|holder| holder.to_string()))),
        (
            "status",
            format!(
                "{} (the service answered {})",
                event.status,
                or_none(event.upstream_status.map(|status| status.to_string()))
            ),
        ),
        ("charged", reason),
        ("recorded", moment(row.recorded_at_micros)),
        ("burned", burned(row)),
    ];
    lines.map(|(name, value)| format!("{name:<9} {value}\n")).concat()
}

fn as_json(row: &UsageRow) -> serde_json::Value {
    let event = &row.event;
    json!({
        "request_id": event.request_id(),
        "event_id": event.event_id.to_string(),
        "time": moment(event.at_micros),
        "duration_us": event.duration_micros,
        "route": &*event.terms.route,
        "method": event.method,
        "endpoint": event.endpoint,
        "service": event.terms.service.to_string(),
        "plan": event.terms.plan.map(|plan| plan.to_string()),
        "holder": event.terms.holder.map(|holder| holder.to_string()),
        "status": event.status,
        "upstream_status": event.upstream_status,
        "reported": event.reported,
        "charged": event.charged,
        "recorded_at": moment(row.recorded_at_micros),
        "burned_at": row.burned_at_micros.map(moment),
        "burn": row.burn,
    })
}

fn sum_as_json(by: GroupBy, sum: &UsageSum) -> serde_json::Value {
    json!({ by.as_str(): sum.key, "requests": sum.events, "charged": sum.charged, "unburned": sum.unburned })
}
