-- What wallet holders granted to clients, and what clients hold because of it. A grant is the family of its refresh
-- tokens: revoking it revokes all of them, and the access tokens that name it. Codes, sessions and tokens are kept as
-- SHA-256 digests of random texts; nothing here can be presented.
create table oauth_session (
    digest         blob    primary key not null check (length(digest) = 32),
    -- The digest of the cookie of the browser that began it: no other may go on with it.
    browser        blob    not null check (length(browser) = 32),
    client_id      text    not null,
    redirect_uri   text    not null,
    scope          text    not null,
    resource       text    not null,
    state          text,
    nonce          text,
    code_challenge text,
    expires_at     integer not null
) strict, without rowid;
create index oauth_session_expires_at on oauth_session (expires_at);

create table oauth_grant (
    id         text    primary key not null,
    client_id  text    not null,
    -- The wallet that signed, and what it is: the claims of its tokens.
    account    text    not null,
    signer     text    not null check (signer in ('hotkey', 'coldkey', 'evm')),
    hotkey     text,
    coldkey    text,
    scope      text    not null,
    -- What the access tokens are for (RFC 8707): URIs with a blank between them; empty: the usual audience.
    resource   text    not null,
    nonce      text,
    auth_time  integer not null,
    -- However often it is refreshed, it ends then.
    expires_at integer not null,
    revoked_at integer
) strict, without rowid;
create index oauth_grant_client_id on oauth_grant (client_id);
create index oauth_grant_expires_at on oauth_grant (expires_at);

create table oauth_code (
    digest         blob    primary key not null check (length(digest) = 32),
    grant_id       text    not null references oauth_grant (id) on delete cascade,
    redirect_uri   text    not null,
    code_challenge text,
    expires_at     integer not null,
    -- Set once. A second redemption finds it and revokes the grant (RFC 6749 section 4.1.2).
    redeemed_at    integer
) strict, without rowid;
create index oauth_code_grant_id on oauth_code (grant_id);
create index oauth_code_expires_at on oauth_code (expires_at);

create table oauth_refresh_token (
    digest      blob    primary key not null check (length(digest) = 32),
    grant_id    text    not null references oauth_grant (id) on delete cascade,
    -- The token it replaced.
    parent      blob,
    expires_at  integer not null,
    -- Set once, when the next one is issued.
    used_at     integer,
    -- Set once, when its second use was taken for a repetition after a lost answer.
    forgiven_at integer
) strict, without rowid;
create index oauth_refresh_token_grant_id on oauth_refresh_token (grant_id);
create index oauth_refresh_token_parent on oauth_refresh_token (parent);
create index oauth_refresh_token_expires_at on oauth_refresh_token (expires_at);
