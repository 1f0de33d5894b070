-- Messages that wallets are asked to sign. Only the digest of a message is kept: whoever reads this table can answer no
-- challenge. A row is taken out by the statement that uses it, so a message is good for one answer.
create table oauth_challenge (
    digest     blob    primary key not null check (length(digest) = 32),
    flow       text    not null check (flow in ('auth', 'oauth', 'device')),
    -- The digest of what the challenge belongs to: an authorize session, or a device's code.
    binding    blob,
    account    text,
    scope      text    not null,
    expires_at integer not null
) strict, without rowid;
create index oauth_challenge_expires_at on oauth_challenge (expires_at);
