-- Usage, thousands of events to a row (docs/adr/0013-usage-in-batches.md): a row of its own for each event, with its trees,
-- cost a sixth of what the whole request did. `tollgate usage` reads them; so does whoever has LZ4 and CBOR at hand.
--
-- began groups events by the ten seconds, counted from the Unix epoch, in which their requests began, which their ids tell:
-- whoever looks for an id, to show it or because it may be there already, finds the few rows that may have it. last_event is
-- the greatest id in the row. Times are microseconds since the Unix epoch. owed: charged on chain and not burned yet, which
-- no retention removes. event_ids has the ids in ascending order, sixteen octets each; records has the events in the same
-- order, an LZ4 frame around a CBOR sequence (RFC 8742).
create table usage_batch (
    id          integer primary key,
    began       integer not null,
    last_event  blob    not null check (length(last_event) = 16),
    first_at    integer not null,
    last_at     integer not null check (last_at >= first_at),
    recorded_at integer not null,
    owed        integer not null check (owed in (0, 1)),
    events      integer not null check (events > 0),
    event_ids   blob    not null check (length(event_ids) = 16 * events),
    records     blob    not null
) strict;
create index usage_batch_began on usage_batch (began, last_event);
-- Lists and sums over a time, and what retention removes.
create index usage_batch_last_at on usage_batch (last_at);

-- What accounts owe on chain: the sum of what was charged and not burned.
create table unburned_credit (
    contract text    not null,
    plan     text    not null,
    holder   text    not null,
    credits  integer not null check (credits > 0),
    primary key (contract, plan, holder)
) strict, without rowid;

-- Events to be told to the marketplace's backend, each with its record. A row is made with the batch and removed when the
-- backend has taken it. due_at is also the lease: whoever claims a row moves it into the future, and if nothing more is
-- heard of it the row is due again. No due_at: given up, kept with its error for a person.
create table usage_report_queue (
    event_id text    primary key,
    record   blob    not null,
    due_at   integer,
    attempts integer not null default 0 check (attempts >= 0),
    error    text    not null default ''
) strict, without rowid;
create index usage_report_queue_due_at on usage_report_queue (due_at) where due_at is not null;

-- The tables usage and usage_report stay for a version before this one. SQL cannot make batches of their rows, so the program
-- does, each time that it has applied migrations (src/store/sqlite/usage/conversion.rs).
