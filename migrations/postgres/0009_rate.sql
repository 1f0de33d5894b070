-- How often something was done in a window of time: rate limits that several gateways share. A row is of no use once its
-- window is over, and none is missed after a crash, so the table needs no write-ahead log.
create unlogged table rate (
    key          text        not null,
    window_start timestamptz not null,
    taken        bigint      not null,
    primary key (key, window_start)
);
create index rate_window_start on rate (window_start);
