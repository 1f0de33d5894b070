// What the server keeps, in SQLite: clients, grants, refresh tokens and what happened. The tables are those of the gateway
// it is compared with, and so are the statements that decide something, and how sure a commit is.
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { DatabaseSync } from "node:sqlite";

const FRESH_MS = 5000;
const EVENTS_EVERY_MS = 100;

export const sha256 = (text) => createHash("sha256").update(text).digest();

export const newToken = () => `tgr_${randomBytes(32).toString("base64url")}`;

export class Store {
    #database;
    #statements;
    #clients = new Map();
    #events = [];

    constructor(path) {
        this.#database = new DatabaseSync(path, { enableForeignKeyConstraints: true });
        this.#database.exec("pragma journal_mode = wal; pragma synchronous = full;");
        this.#database.exec(SCHEMA);
        this.#statements = Object.fromEntries(
            Object.entries(STATEMENTS).map(([name, statement]) => [name, this.#database.prepare(statement)]),
        );
    }

    insertClient(id, secretHash, grantTypes) {
        this.#statements.insertClient.run(id, secretHash, JSON.stringify(grantTypes));
    }

    // A client as it was a moment ago.
    client(id) {
        const known = this.#clients.get(id);
        if (known && Date.now() - known.asked < FRESH_MS) return known.client;
        const row = this.#statements.client.get(id);
        const client = row && { id, secretHash: row.secret_hash, grantTypes: JSON.parse(row.grant_types) };
        this.#clients.set(id, { asked: Date.now(), client });
        return client;
    }

    // A grant with its first refresh token, as after a sign-in.
    insertGrant(clientId, account, scope, endsAt) {
        const [id, token] = [randomUUID(), newToken()];
        this.#statements.insertGrant.run(id, clientId, account, "evm", scope, "", Date.now() * 1000, endsAt);
        this.#statements.insertToken.run(sha256(token), id, null, endsAt);
        return token;
    }

    // A refresh token with its grant.
    refreshToken(digest) {
        return this.#statements.refreshToken.get(digest);
    }

    // Exchanges a refresh token for the next one: of many at the same time one succeeds.
    rotate(digest, next, endsAt, now) {
        this.#database.exec("begin immediate");
        try {
            const used = this.#statements.use.get(digest, now);
            if (used) this.#statements.insertToken.run(next, used.grant_id, digest, endsAt);
            this.#database.exec("commit");
            return used !== undefined;
        } catch (error) {
            this.#database.exec("rollback");
            throw error;
        }
    }

    grantStands(id, now) {
        return this.#statements.stands.get(id, now) !== undefined;
    }

    // Remembers what happened; nobody waits for it.
    remember(clientId, kind, outcome, account, scope) {
        if (this.#events.length === 0) setTimeout(() => this.#writeEvents(), EVENTS_EVERY_MS);
        this.#events.push([randomUUID(), Date.now() * 1000, clientId, kind, outcome, "evm", sha256(account), scope, "{}"]);
    }

    #writeEvents() {
        const events = this.#events.splice(0);
        this.#database.exec("begin immediate");
        for (const event of events) this.#statements.insertEvent.run(...event);
        this.#database.exec("commit");
    }
}

const SCHEMA = `
    create table oauth_client (
        client_id text primary key, secret_hash text, grant_types text not null, active integer not null default 1
    ) strict;
    create table oauth_grant (
        id text primary key not null, client_id text not null, account text not null, signer text not null,
        scope text not null, resource text not null, auth_time integer not null, expires_at integer not null,
        revoked_at integer
    ) strict, without rowid;
    create index oauth_grant_client_id on oauth_grant (client_id);
    create index oauth_grant_expires_at on oauth_grant (expires_at);
    create table oauth_refresh_token (
        digest blob primary key not null check (length(digest) = 32),
        grant_id text not null references oauth_grant (id) on delete cascade,
        parent blob, expires_at integer not null, used_at integer
    ) strict, without rowid;
    create index oauth_refresh_token_grant_id on oauth_refresh_token (grant_id);
    create index oauth_refresh_token_parent on oauth_refresh_token (parent);
    create index oauth_refresh_token_expires_at on oauth_refresh_token (expires_at);
    create table oauth_event (
        id text primary key not null, occurred_at integer not null, client_id text not null, kind text not null,
        outcome text not null, wallet text, subject blob, scope text not null, detail text not null
    ) strict, without rowid;
    create index oauth_event_client_id on oauth_event (client_id, occurred_at desc, id desc);
    create index oauth_event_occurred_at on oauth_event (occurred_at);
`;

const STATEMENTS = {
    insertClient: "insert into oauth_client (client_id, secret_hash, grant_types) values (?, ?, ?)",
    client: "select secret_hash, grant_types from oauth_client where client_id = ? and active",
    insertGrant: `
        insert into oauth_grant (id, client_id, account, signer, scope, resource, auth_time, expires_at)
        values (?, ?, ?, ?, ?, ?, ?, ?)`,
    insertToken: "insert into oauth_refresh_token (digest, grant_id, parent, expires_at) values (?, ?, ?, ?)",
    refreshToken: `
        select token.expires_at, token.used_at, grant.id, grant.client_id, grant.account, grant.scope, grant.resource,
               grant.auth_time / 1000000 as auth_time, grant.expires_at as ends_at, grant.revoked_at
          from oauth_refresh_token token join oauth_grant grant on grant.id = token.grant_id
         where token.digest = ?`,
    use: `
        update oauth_refresh_token
           set used_at = ?2
         where digest = ?1 and used_at is null and expires_at > ?2
           and exists (select 1 from oauth_grant where id = grant_id and revoked_at is null and expires_at > ?2)
        returning grant_id`,
    stands: `
        select 1 from oauth_grant
          join oauth_client on oauth_client.client_id = oauth_grant.client_id and oauth_client.active
         where id = ?1 and revoked_at is null and expires_at > ?2`,
    insertEvent: `
        insert into oauth_event (id, occurred_at, client_id, kind, outcome, wallet, subject, scope, detail)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
};
