-- Devices that wait for somebody to sign for them (RFC 8628). The device's own code is kept as a digest; the user's code
-- is not a secret: it is shown, typed, and good for minutes only.
create table oauth_device (
    digest           blob    primary key not null check (length(digest) = 32),
    user_code        text    not null unique,
    client_id        text    not null,
    scope            text    not null,
    resource         text    not null,
    -- Seconds between two polls; grows by five with each poll that comes too soon (RFC 8628 section 3.5).
    interval_seconds integer not null,
    polled_at        integer,
    -- Approved.
    grant_id         text    references oauth_grant (id) on delete cascade,
    denied_at        integer,
    expires_at       integer not null,
    check (grant_id is null or denied_at is null)
) strict, without rowid;
create index oauth_device_grant_id on oauth_device (grant_id);
create index oauth_device_expires_at on oauth_device (expires_at);
