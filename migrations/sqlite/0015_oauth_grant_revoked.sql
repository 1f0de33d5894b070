-- Routes that accept access tokens ask every two seconds which grants do not stand any more: those that were taken back a
-- moment ago, and those that a client was given in the very moment in which it was deactivated.
create index oauth_grant_revoked_at on oauth_grant (revoked_at) where revoked_at is not null;
create index oauth_grant_not_revoked on oauth_grant (client_id) where revoked_at is null;
