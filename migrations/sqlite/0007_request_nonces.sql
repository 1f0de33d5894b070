-- Signed requests that have been used. A request is used by inserting its row: whoever inserts it admits the request, and
-- finding it there is a replay. Rows are as many as signed requests arrive in the time for which one is valid, and a
-- little more: the gateway deletes what has ended.
create table request_nonces (
    id      blob    primary key check (length(id) = 32),
    ends_at integer not null
) strict, without rowid;
create index request_nonces_ends_at on request_nonces (ends_at);
