-- One row per metered request. The event id is made with the hold on the holder's credits, so a batch that is written
-- twice counts once: `insert … on conflict (event_id) do nothing`.
--
-- burned_at and burn say when and by what the charge was destroyed: `local` (our own ledger, in the same transaction as
-- the insert), `queue` (the replaced system's burner), `queue-error` (which gave up), or the id of a burn of ours.
-- Texts of DIDs and addresses are as Display writes them: `did:nv:` and lower case, `0x` and lower case. Times are
-- microseconds since the Unix epoch; ids are texts, because people read them.
create table usage (
    event_id        text    primary key,
    occurred_at     integer not null,
    recorded_at     integer not null,
    request_id      text    not null,
    route           text    not null,
    listener        text,
    service         text    not null,
    plan            text,
    holder          text,
    user_id         text    not null default '',
    owner           text    not null default '',
    endpoint        text    not null,
    method          text    not null,
    status          integer not null check (status between 0 and 999),
    upstream_status integer check (upstream_status between 0 and 999),
    reported        integer check (reported >= 0),
    charged         integer not null check (charged >= 0),
    source          text    not null check (source in ('local', 'chain')),
    contract        text,
    duration_micros integer not null check (duration_micros >= 0),
    open            integer not null default 0 check (open in (0, 1)),
    burned_at       integer,
    burn            text,

    constraint usage_contract_on_chain   check ((source = 'chain') = (contract is not null)),
    constraint usage_charge_has_account  check (charged = 0 or (plan is not null and holder is not null)),
    constraint usage_local_is_burned     check (source <> 'local' or charged = 0 or burned_at is not null),
    constraint usage_burn_has_a_name     check ((burned_at is null) = (burn is null))
) strict, without rowid;

-- What an account owes: asked for on the way to every balance.
create index usage_unburned on usage (plan, holder) where burned_at is null and charged > 0;
-- Lists and sums over a time, and what retention removes.
create index usage_occurred_at on usage (occurred_at);
-- `tollgate usage show <request id>`.
create index usage_request_id on usage (request_id);
