-- How often something was done in a window of time: rate limits. A row is of no use once its window is over.
create table rate (
    key          text    not null,
    window_start integer not null,
    taken        integer not null,
    primary key (key, window_start)
) strict, without rowid;
create index rate_window_start on rate (window_start);
