-- Clients of the authorization server (RFC 6749 section 2). Never removed, only deactivated: tokens and statistics name them.
create table oauth_client (
    client_id       text        primary key check (client_id <> ''),
    -- scrypt$N$r$p$salt$hash. Null: a public client.
    secret_hash     text,
    name            text        not null,
    redirect_uris   text[]      not null default '{}',
    grant_types     text[]      not null default '{}',
    -- Patterns; none: anything may be asked for.
    allowed_scopes  text[]      not null default '{}',
    allowed_origins text[]      not null default '{}',
    sign_method     text        not null check (sign_method in ('sr25519', 'evm')),
    -- Token requests in a minute; 0 or less: any number.
    rate_limit      integer     not null default 60,
    active          boolean     not null default true,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now()
);
create index oauth_client_created_at on oauth_client (created_at desc);
