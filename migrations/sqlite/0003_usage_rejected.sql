-- Events that can never be written, set aside so that they do not hold up the ones behind them. Nothing was charged for
-- them. A person looks at the error, and removes the row when the matter is settled.
create table usage_rejected (
    id          integer primary key,
    raw         text    not null,
    error       text    not null,
    rejected_at integer not null
) strict;
-- A batch may be tried many times before it is acknowledged; the same record is set aside once.
create unique index usage_rejected_raw on usage_rejected (raw);
