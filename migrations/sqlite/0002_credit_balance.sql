-- The local ledger: credits of plans that live here and not on chain.
--
-- A balance may be negative. What was served is charged, whatever is left: a service that reports more than was held,
-- or a balance that another gateway spent meanwhile. A check would turn such an event into one that can never be
-- written; a debt is visible, keeps the holder out, and is paid by the next grant.
create table credit_balance (
    plan       text    not null,
    holder     text    not null,
    balance    integer not null,
    updated_at integer not null,
    primary key (plan, holder)
) strict, without rowid;
create index credit_balance_holder on credit_balance (holder);
