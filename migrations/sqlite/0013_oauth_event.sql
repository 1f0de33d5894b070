-- What happened at the authorization server, by client: for the statistics and the event list of the admin API. Accounts
-- are kept as SHA-256 digests.
create table oauth_event (
    id          text    primary key not null,
    occurred_at integer not null,
    client_id   text    not null,
    kind        text    not null,
    outcome     text    not null check (outcome in ('success', 'failure', 'rejected', 'pending')),
    reason      text,
    wallet      text,
    subject     blob,
    scope       text    not null,
    -- A JSON object.
    detail      text    not null
) strict, without rowid;
create index oauth_event_client_id on oauth_event (client_id, occurred_at desc, id desc);
create index oauth_event_occurred_at on oauth_event (occurred_at);
