-- Events that can never be written, set aside so that they do not hold up the ones behind them. Nothing was charged for
-- them. A person looks at the error, and removes the row when the matter is settled.
create table usage_rejected (
    id          bigint      primary key generated always as identity,
    raw         text        not null,
    error       text        not null,
    rejected_at timestamptz not null default now()
);
-- A batch may be tried many times before it is acknowledged; the same record is set aside once.
create unique index usage_rejected_raw on usage_rejected (md5(raw));
