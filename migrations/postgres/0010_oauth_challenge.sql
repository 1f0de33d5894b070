-- Messages that wallets are asked to sign. Only the digest of a message is kept: whoever reads this table can answer no
-- challenge. A row is taken out by the statement that uses it, so a message is good for one answer.
create table oauth_challenge (
    digest     bytea       primary key check (length(digest) = 32),
    flow       text        not null check (flow in ('auth', 'oauth', 'device')),
    -- The digest of what the challenge belongs to: an authorize session, or a device's code.
    binding    bytea,
    account    text,
    scope      text        not null,
    expires_at timestamptz not null
);
create index oauth_challenge_expires_at on oauth_challenge (expires_at);
