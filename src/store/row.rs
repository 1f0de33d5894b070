//! Rows as both databases give them, and what they mean.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Result, StoreError, UsageRow,
    grant::{Grant, Signer, SignerKind},
};
use crate::model::{
    credits::{CreditSource, Credits},
    usage::{Terms, UsageEvent},
};

/// The columns of `usage`, times in microseconds.
#[derive(Debug, sqlx::FromRow)]
pub struct Columns {
    pub event_id: String,
    pub occurred_at: i64,
    pub recorded_at: i64,
    pub request_id: String,
    pub route: String,
    pub listener: Option<String>,
    pub service: String,
    pub plan: Option<String>,
    pub holder: Option<String>,
    pub user_id: String,
    pub owner: String,
    pub endpoint: String,
    pub method: String,
    pub status: i32,
    pub upstream_status: Option<i32>,
    pub reported: Option<i64>,
    pub charged: i64,
    pub source: String,
    pub contract: Option<String>,
    pub duration_micros: i64,
    pub open: bool,
    pub burned_at: Option<i64>,
    pub burn: Option<String>,
}

impl TryFrom<Columns> for UsageRow {
    type Error = StoreError;

    fn try_from(row: Columns) -> Result<Self> {
        let source = match (row.source.as_str(), row.contract.as_deref()) {
            ("local", None) => CreditSource::Local,
            ("chain", Some(contract)) => CreditSource::Chain { contract: contract.parse().map_err(unreadable)? },
            (other, _) => return Err(unreadable(format!("credits of the unknown source `{other}`"))),
        };
        let status = |status: i32| u16::try_from(status).map_err(unreadable);
        let event_id = Uuid::try_parse(&row.event_id).map_err(unreadable)?;
        Ok(Self {
            event: UsageEvent {
                event_id,
                at_micros: row.occurred_at,
                request_id: UsageEvent::request_id_of(event_id, &row.request_id),
                terms: Arc::new(Terms {
                    route: row.route.into(),
                    listener: row.listener.map(Into::into),
                    service: row.service.parse().map_err(unreadable)?,
                    plan: row.plan.map(|plan| plan.parse().map_err(unreadable)).transpose()?,
                    holder: row.holder.map(|holder| holder.parse().map_err(unreadable)).transpose()?,
                    user_id: row.user_id.into(),
                    owner: row.owner.into(),
                    source,
                }),
                endpoint: row.endpoint.into(),
                method: row.method.into(),
                status: status(row.status)?,
                upstream_status: row.upstream_status.map(status).transpose()?,
                reported: row.reported.map(Credits::from_i64),
                charged: Credits::from_i64(row.charged),
                duration_micros: u64::try_from(row.duration_micros).map_err(unreadable)?,
                open: row.open,
            },
            recorded_at_micros: row.recorded_at,
            burned_at_micros: row.burned_at,
            burn: row.burn,
        })
    }
}

/// The words of the columns `source` and `contract`.
pub fn source_columns(source: &CreditSource) -> (&'static str, Option<String>) {
    match source {
        CreditSource::Local => ("local", None),
        CreditSource::Chain { contract } => ("chain", Some(contract.to_string())),
    }
}

fn unreadable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unreadable { table: "usage", error: error.to_string() }
}

/// The digest in a column.
pub fn digest(table: &'static str, bytes: &[u8]) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| StoreError::Unreadable { table, error: "a digest has 32 bytes".to_owned() })
}

/// The columns of `oauth_grant` as both databases give them: the time of the signature in seconds, the end in
/// microseconds.
#[derive(Debug, sqlx::FromRow)]
pub struct GrantColumns {
    pub id: String,
    pub client_id: String,
    pub account: String,
    pub signer: String,
    pub hotkey: Option<String>,
    pub coldkey: Option<String>,
    pub scope: String,
    pub resource: String,
    pub nonce: Option<String>,
    pub auth_time: i64,
    pub expires_at: i64,
    pub revoked: bool,
}

/// A grant's name.
pub fn grant_id(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|error| unreadable_grant(error.to_string()))
}

fn unreadable_grant(error: String) -> StoreError {
    StoreError::Unreadable { table: "oauth_grant", error }
}

impl TryFrom<GrantColumns> for (Grant, bool) {
    type Error = StoreError;

    fn try_from(row: GrantColumns) -> Result<Self> {
        let grant = Grant {
            id: grant_id(&row.id)?,
            client_id: row.client_id,
            signer: Signer {
                account: row.account,
                kind: SignerKind::from_word(&row.signer).ok_or_else(|| unreadable_grant(row.signer.clone()))?,
                hotkey: row.hotkey,
                coldkey: row.coldkey,
            },
            scope: row.scope,
            resource: row.resource,
            nonce: row.nonce,
            auth_time: row.auth_time,
            expires_at_micros: row.expires_at,
        };
        Ok((grant, row.revoked))
    }
}

/// A count of rows.
pub fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
