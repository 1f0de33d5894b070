//! What happened with clients: numbers and lists for the admin API (auth-gateway.md section 1.5).

use axum::{
    Json, Router,
    extract::{Path, State as Extract},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{Error, State, body::Query};
use crate::{
    model::{address::hex_into, client::Client, clock},
    store::event::{ClientStats, Counts, Event},
};

/// These endpoints, to be put behind the admin key.
pub fn routes() -> Router<State> {
    Router::new()
        .route("/v1/admin/clients/{id}/stats", get(stats))
        .route("/v1/admin/clients/{id}/events", get(events))
        .route("/v1/admin/stats/overview", get(overview))
}

#[derive(Deserialize)]
struct Window {
    window: Option<String>,
}

const HOUR: u32 = 3600;
const DAY: u32 = 86_400;

/// How far back, and in how large steps.
fn window(asked: &Window, default: &'static str) -> Result<(String, i64, u32), Error> {
    let word = asked.window.as_deref().unwrap_or(default);
    let (days, step) = match word {
        "24h" => (1, HOUR),
        "7d" => (7, HOUR),
        "30d" => (30, DAY),
        _ => return Err(Error::form("window must be 24h, 7d or 30d")),
    };
    let since = clock::now_micros().saturating_sub(days * i64::from(DAY) * 1_000_000);
    Ok((word.to_owned(), since, step))
}

async fn stats(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    Query(asked): Query<Window>,
) -> Result<Json<Value>, Error> {
    let (window, since, step) = window(&asked, "24h")?;
    let client = active(&state, &id).await?;
    let ClientStats { totals, reasons, scopes, buckets } = state.store.oauth_stats(&client.id, since, step).await?;
    let rate = if totals.exchanges == 0 { 0.0 } else { ratio(totals.successes, totals.exchanges) };
    let mut numbers = counted(&totals);
    if let Some(members) = numbers.as_object_mut() {
        members.insert("success_rate".into(), json!(rate));
    }
    let bucket = |(begins, counts): &(i64, Counts)| {
        let mut bucket = counted(counts);
        if let Some(members) = bucket.as_object_mut() {
            members.insert("bucket".into(), json!(moment(begins.saturating_mul(1_000_000))));
        }
        bucket
    };
    let reasons: serde_json::Map<String, Value> =
        reasons.into_iter().map(|(reason, number)| (reason, json!(number))).collect();
    Ok(Json(json!({
        "client_id": client.id,
        "window": window,
        "generated_at": moment(clock::now_micros()),
        "totals": numbers,
        "failures_by_reason": reasons,
        "scopes_requested": by_scope(&scopes),
        "timeseries": buckets.iter().map(bucket).collect::<Vec<_>>(),
    })))
}

/// Each scope by itself, the one asked for most first.
fn by_scope(together: &[(String, u64)]) -> Vec<Value> {
    let mut numbers = std::collections::BTreeMap::<&str, u64>::new();
    for (scopes, number) in together {
        for scope in scopes.split_ascii_whitespace() {
            let sum = numbers.entry(scope).or_default();
            *sum = sum.saturating_add(*number);
        }
    }
    let mut list: Vec<_> = numbers.into_iter().collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    list.into_iter().map(|(scope, count)| json!({ "scope": scope, "count": count })).collect()
}

#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
    before: Option<String>,
}

async fn events(
    Extract(state): Extract<State>,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Error> {
    let limit = page.limit.unwrap_or(50);
    if !(1..=200).contains(&limit) {
        return Err(Error::form("limit must be between 1 and 200"));
    }
    let before = match &page.before {
        None => None,
        Some(text) => Some(cursor(text).ok_or_else(|| Error::form("before is not a cursor"))?),
    };
    let client = active(&state, &id).await?;
    let mut events = state.store.oauth_events(&client.id, before, limit.saturating_add(1)).await?;
    let has_more = events.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    events.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let last = events.last().filter(|_| has_more);
    let next = last.map(|event| format!("{}|{}", moment(event.at_micros), event.id));
    Ok(Json(json!({
        "events": events.iter().map(shown).collect::<Vec<_>>(),
        "has_more": has_more,
        "next_cursor": next,
    })))
}

fn shown(event: &Event) -> Value {
    let digits = |digest: &[u8; 32]| {
        let mut digits = Vec::new();
        hex_into(&mut digits, digest.get(..8).unwrap_or_default());
        String::from_utf8(digits).unwrap_or_default()
    };
    json!({
        "id": event.id,
        "occurred_at": moment(event.at_micros),
        "event_type": event.kind,
        "outcome": event.outcome,
        "error_reason": event.reason,
        "sign_method": event.wallet,
        "scopes": event.scope.split_ascii_whitespace().collect::<Vec<_>>(),
        "subject_prefix": event.subject.as_ref().map(digits),
        "metadata": serde_json::from_str::<Value>(&event.detail).unwrap_or_default(),
    })
}

async fn overview(Extract(state): Extract<State>, Query(asked): Query<Window>) -> Result<Json<Value>, Error> {
    let (window, since, _) = window(&asked, "7d")?;
    let (totals, counts) = state.store.oauth_overview(since).await?;
    let mut counts: std::collections::HashMap<String, Counts> = counts.into_iter().collect();
    let clients = state.store.clients().await?;
    let mut lines: Vec<(Client, Counts)> = clients
        .into_iter()
        .map(|client| {
            let own = counts.remove(&client.id).unwrap_or_default();
            (client, own)
        })
        .collect();
    lines.sort_by(|(a, of_a), (b, of_b)| of_b.exchanges.cmp(&of_a.exchanges).then_with(|| a.id.cmp(&b.id)));
    let line = |(client, counts): &(Client, Counts)| {
        let mut line = counted(counts);
        if let Some(members) = line.as_object_mut() {
            members.insert("client_id".into(), json!(client.id));
            members.insert("client_name".into(), json!(client.name));
            members.insert("client_type".into(), json!(client.kind()));
            members.insert("active".into(), json!(client.active));
        }
        line
    };
    Ok(Json(json!({
        "window": window,
        "generated_at": moment(clock::now_micros()),
        "totals": counted(&totals),
        "by_client": lines.iter().map(line).collect::<Vec<_>>(),
    })))
}

async fn active(state: &State, id: &str) -> Result<Client, Error> {
    let client = state.store.client(id).await?.filter(|client| client.active);
    client.ok_or_else(|| Error::not_found("Client not found"))
}

fn counted(counts: &Counts) -> Value {
    json!({
        "exchanges": counts.exchanges,
        "successes": counts.successes,
        "failures": counts.failures,
        "distinct_users": counts.distinct_users,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a share, for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Microseconds, so that a cursor loses nothing: the replaced server's lost events of the same millisecond
/// (auth-gateway.md section 14.2, 10).
fn moment(micros: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros).saturating_mul(1000));
    moment.ok().and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}

/// `TIME|UUID`.
fn cursor(text: &str) -> Option<(i64, Uuid)> {
    let (time, id) = text.split_once('|')?;
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    let micros = i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).ok()?;
    Some((micros, Uuid::try_parse(id).ok().filter(|_| id.len() == 36)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_microseconds() {
        let id = Uuid::from_u128(7);
        for micros in [1_795_000_000_123_456, 1_795_000_000_000_000, 1_795_000_000_120_000] {
            assert_eq!(cursor(&format!("{}|{id}", moment(micros))), Some((micros, id)));
        }
        for bad in [
            "",
            "|",
            "2026-11-18T11:06:40Z",
            "2026-11-18T11:06:40Z|",
            "x|00000000-0000-0000-0000-000000000007",
            "2026-11-18T11:06:40Z|00000000000000000000000000000007",
            "2026-11-18T11:06:40Z|' or 1=1",
        ] {
            assert_eq!(cursor(bad), None, "{bad}");
        }
    }

    #[test]
    fn scopes_are_counted_one_by_one() {
        let together = [("openid tao:holder".to_owned(), 2), ("openid".to_owned(), 3), (String::new(), 9)];
        assert_eq!(
            by_scope(&together),
            [json!({ "scope": "openid", "count": 5 }), json!({ "scope": "tao:holder", "count": 2 })]
        );
    }
}
