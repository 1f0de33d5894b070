-- What an import took over from an auth gateway's database. A second import brings it up to date, as long as nobody has
-- changed or used it here.

-- What updated_at was when an import wrote the client. Another updated_at: it was changed here since. Null: registered here.
alter table oauth_client add column taken_over_at timestamptz;

-- The replaced server's refresh tokens are JWTs: the digest is that of a token's name (jti), and its grant has the same name.
alter table oauth_refresh_token add column taken_over boolean not null default false;
create index oauth_refresh_token_taken_over on oauth_refresh_token (grant_id) where taken_over;
