-- The request's id is the event's id, which is the primary key: what the index found, `tollgate usage show` finds there. It
-- was a third tree to write for each event.
drop index if exists usage_request_id;
