-- Clients of the authorization server (RFC 6749 section 2). Never removed, only deactivated: tokens and statistics name them.
-- Lists are JSON.
create table oauth_client (
    client_id       text    primary key check (client_id <> ''),
    -- scrypt$N$r$p$salt$hash. Null: a public client.
    secret_hash     text,
    name            text    not null,
    redirect_uris   text    not null default '[]' check (json_valid(redirect_uris)),
    grant_types     text    not null default '[]' check (json_valid(grant_types)),
    -- Patterns; none: anything may be asked for.
    allowed_scopes  text    not null default '[]' check (json_valid(allowed_scopes)),
    allowed_origins text    not null default '[]' check (json_valid(allowed_origins)),
    sign_method     text    not null check (sign_method in ('sr25519', 'evm')),
    -- Token requests in a minute; 0 or less: any number.
    rate_limit      integer not null default 60,
    active          integer not null default 1 check (active in (0, 1)),
    created_at      integer not null,
    updated_at      integer not null
) strict;
create index oauth_client_created_at on oauth_client (created_at desc);
