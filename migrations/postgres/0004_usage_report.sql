-- Events to be told to the marketplace's backend. A row is made with the usage row and removed when the backend has
-- taken it, so the table is as long as the backlog. due_at is also the lease: whoever claims a row moves it into the
-- future, and if nothing more is heard of it the row is due again. No due_at: given up, kept with its error for a person.
create table usage_report (
    event_id uuid        primary key references usage (event_id) on delete cascade,
    due_at   timestamptz,
    attempts integer     not null default 0 check (attempts >= 0),
    error    text        not null default ''
);
create index usage_report_due_at on usage_report (due_at) where due_at is not null;
