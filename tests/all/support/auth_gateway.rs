//! A database as the replaced auth gateway left it (auth-gateway.md section 7), and the refresh tokens it handed out, which
//! are really signed.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::{jose::SigningKey, model::clock::Timestamp};
use uuid::Uuid;

use super::{database::Database, oauth, secret};

/// Of a client's secret `example-secret` (auth-gateway.md section 5.3).
pub const SECRET: &str = "example-secret";
pub const SECRET_HASH: &str = "scrypt$16384$8$1$AAECAwQFBgcICQoLDA0ODw$zyTkMkF5kpt6tLEiL1ljTx22R9Ust_j-OZVbILPhS3FaRmyYJrO28d4QdecRSM8oZozl_TvmvPkLKkRmEBdzNg";

/// What each of its migrations does to the tables, in our words.
const MIGRATIONS: [(&str, &str); 13] = [
    (
        "001_oauth_clients.sql",
        "create table oauth_clients (
             client_id text primary key default gen_random_uuid()::text, client_secret_hash text,
             client_name text not null, client_type text not null check (client_type in ('confidential', 'public')),
             redirect_uris text[] not null default '{}', grant_types text[] not null default '{authorization_code}',
             allowed_scopes text[] not null default '{}', allowed_origins text[] not null default '{}',
             rate_limit integer not null default 60, active boolean not null default true,
             created_at timestamptz not null default now(), updated_at timestamptz not null default now())",
    ),
    (
        "002_refresh_tokens.sql",
        "create table refresh_tokens (
             jti uuid primary key, client_id text not null, address text not null, scopes text[] not null default '{}',
             epoch_at_issuance integer, revoked boolean not null default false, expires_at timestamptz not null,
             created_at timestamptz not null default now());
         create index idx_refresh_tokens_client_id on refresh_tokens (client_id);
         create index idx_refresh_tokens_expires_at on refresh_tokens (expires_at) where not revoked",
    ),
    (
        "003_challenges.sql",
        "create table challenges (
             nonce text primary key, address text not null, scopes text[] not null default '{}',
             created_at timestamptz not null default now(), consumed boolean not null default false);
         create index idx_challenges_created_at on challenges (created_at)",
    ),
    (
        "004_device_codes.sql",
        "create table device_codes (
             device_code text primary key, user_code text not null unique, client_id text not null,
             scopes text[] not null default '{}', approved boolean not null default false,
             denied boolean not null default false, address text, created_at timestamptz not null default now(),
             expires_at timestamptz not null, last_polled_at timestamptz);
         create index idx_device_codes_user_code on device_codes (user_code);
         create index idx_device_codes_expires_at on device_codes (expires_at)",
    ),
    (
        "005_consumed_auth_codes.sql",
        "create table consumed_auth_codes (jti text primary key, consumed_at timestamptz not null default now());
         create index idx_consumed_auth_codes_consumed_at on consumed_auth_codes (consumed_at)",
    ),
    ("006_active_index.sql", "create index idx_oauth_clients_active on oauth_clients (active)"),
    ("007_nullable_address.sql", "alter table challenges alter column address drop not null"),
    ("008_approved_at.sql", "alter table device_codes add column approved_at timestamptz"),
    (
        "009_sign_methods.sql",
        "alter table oauth_clients add column allowed_sign_methods text[] not null default '{}';
         update oauth_clients set allowed_sign_methods = '{sr25519}'",
    ),
    (
        "010_challenge_bindings.sql",
        "alter table challenges add column flow_type text, add column client_id text, add column redirect_uri text,
             add column user_code text, add column session_id text;
         create index idx_challenges_flow_type on challenges (flow_type)",
    ),
    (
        "011_authorize_sessions.sql",
        "create table authorize_sessions (
             session_id text primary key default gen_random_uuid()::text, client_id text not null,
             redirect_uri text not null, scopes text[] not null default '{}', code_challenge text,
             code_challenge_method text, oidc_nonce text, state text, consumed boolean not null default false,
             created_at timestamptz not null default now(),
             check ((code_challenge is null and code_challenge_method is null)
                 or (code_challenge is not null and code_challenge_method = 'S256')));
         create index idx_authorize_sessions_created_at on authorize_sessions (created_at)",
    ),
    (
        "012_foreign_keys.sql",
        "alter table refresh_tokens add foreign key (client_id) references oauth_clients;
         alter table device_codes add foreign key (client_id) references oauth_clients;
         alter table authorize_sessions add foreign key (client_id) references oauth_clients;
         alter table challenges add foreign key (client_id) references oauth_clients on delete set null",
    ),
    (
        "013_oauth_events.sql",
        "create table oauth_events (
             id uuid primary key default gen_random_uuid(), occurred_at timestamptz not null default now(),
             client_id text not null references oauth_clients, event_type text not null, outcome text not null,
             error_reason text, subject_hash bytea, sign_method text, scopes text[] not null default '{}',
             metadata jsonb not null default '{}');
         create index idx_oauth_events_client on oauth_events (client_id, occurred_at desc);
         create index idx_oauth_events_type on oauth_events (event_type, occurred_at desc);
         create table oauth_events_hourly (
             client_id text not null references oauth_clients, hour_bucket timestamptz not null, event_type text not null,
             outcome text not null, count bigint not null, distinct_subjects integer not null,
             primary key (client_id, hour_bucket, event_type, outcome));
         create index idx_oauth_events_hourly_bucket on oauth_events_hourly (hour_bucket desc)",
    ),
];

/// The database.
pub struct OldDatabase {
    pub database: Database,
    key: SigningKey,
}

/// A refresh token of the replaced server.
pub struct OldToken {
    pub jti: Uuid,
    pub claims: Value,
    pub jwt: String,
}

impl OldDatabase {
    /// With its whole schema.
    pub fn fresh() -> Self {
        Self::migrated(MIGRATIONS.len())
    }

    /// As it was after so many migrations.
    pub fn migrated(migrations: usize) -> Self {
        let database = Database::fresh();
        database.execute(
            "create table _migrations (name text primary key, applied_at timestamptz not null default now());
             create table _migration_lock (id integer primary key default 1, locked_at timestamptz)",
        );
        for (name, statements) in &MIGRATIONS[..migrations] {
            database.execute(&format!("{statements}; insert into _migrations (name) values ('{name}')"));
        }
        let pem = std::fs::read(oauth::data("rsa.pem")).unwrap();
        Self { database, key: SigningKey::from_pem(&pem).unwrap() }
    }

    pub fn url(&self) -> &str {
        &self.database.url
    }

    /// A public client for Ethereum wallets with every grant; more columns as `name = value`.
    pub fn client(&self, id: &str, more: &str) {
        let grants = oauth::GRANTS.join(",");
        self.database.execute(&format!(
            "insert into oauth_clients (client_id, client_name, client_type, redirect_uris, grant_types, allowed_scopes,
                                        allowed_sign_methods, rate_limit, created_at, updated_at)
             values ('{id}', 'Weather {id}', 'public', '{{https://app.example/callback}}', '{{{grants}}}', '{{openid}}',
                     '{{evm}}', 0, '2026-01-02T03:04:05.678901Z', '2026-01-02T03:04:05.678901Z')"
        ));
        if !more.is_empty() {
            self.database.execute(&format!("update oauth_clients set {more} where client_id = '{id}'"));
        }
    }

    /// A refresh token for `openid`, as it was handed out an hour ago, with its row.
    pub fn refresh_token(&self, client: &str, address: &str) -> OldToken {
        let token = self.unknown_token(client, address);
        self.database.execute(&format!(
            "insert into refresh_tokens (jti, client_id, address, scopes, expires_at, created_at)
             values ('{}', '{client}', '{address}', '{{openid}}', to_timestamp({}), to_timestamp({}))",
            token.jti, token.claims["exp"], token.claims["iat"],
        ));
        token
    }

    /// The same without a row.
    pub fn unknown_token(&self, client: &str, address: &str) -> OldToken {
        let (jti, now) = (Uuid::new_v4(), Timestamp::now());
        let evm = address.starts_with("0x");
        let claims = json!({
            "iss": oauth::PUBLIC_URL, "aud": "bittensor-apps", "sub": address, "jti": jti, "type": "refresh",
            "iat": now.0 - 3600, "exp": now.plus(Duration::from_hours(23)).0, "client_id": client, "scope": "openid",
            "hotkey": null, "coldkey": if evm { Value::Null } else { json!(address) },
            "evm_address": if evm { json!(address) } else { Value::Null }, "auth_time": now.0 - 90_000,
        });
        let jwt = self.sign("JWT", &claims);
        OldToken { jti, claims, jwt }
    }

    /// What its key signs.
    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        secret(self.key.sign_compact(typ, claims).unwrap())
    }

    /// A token that differs from another in one claim; a null takes the claim away.
    pub fn altered(&self, token: &OldToken, claim: &str, value: Value) -> String {
        let mut claims = token.claims.clone();
        let members = claims.as_object_mut().unwrap();
        match value {
            Value::Null => members.remove(claim),
            value => members.insert(claim.to_owned(), value),
        };
        self.sign("JWT", &claims)
    }

    /// An event that many minutes ago.
    pub fn event(&self, client: &str, minutes: u32, kind: &str, outcome: &str, address: &str) {
        let reason = if outcome == "failure" { "'invalid_grant'" } else { "null" };
        let subject = if address.is_empty() { "null".into() } else { format!("sha256('{address}'::bytea)") };
        self.database.execute(&format!(
            "insert into oauth_events (occurred_at, client_id, event_type, outcome, error_reason, subject_hash, sign_method,
                                       scopes, metadata)
             values (now() - interval '{minutes} minutes', '{client}', '{kind}', '{outcome}', {reason}, {subject}, 'evm',
                     '{{openid}}', '{{\"flow\": \"oauth\"}}')"
        ));
    }

    /// All that is in it, as one text.
    pub fn contents(&self) -> Vec<String> {
        let tables = ["oauth_clients", "refresh_tokens", "oauth_events", "oauth_events_hourly", "_migrations"];
        let of = |table: &str| {
            self.database
                .value(&format!("select coalesce(string_agg(row::text, ';' order by row::text), '') from {table} row"))
        };
        tables.into_iter().map(of).collect()
    }
}
