// A minimal authorization server and resource server with Fastify and jose, to be measured beside the gateway
// (benches/side-by-side). It does what the gateway does for the requests that are measured, with the same claims, the same
// tables and the same checks, and nothing else: nobody can sign in here, so it begins with the grants it is told to make.
//
//     node server.mjs SETTINGS.json
import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";

import formbody from "@fastify/formbody";
import proxy from "@fastify/http-proxy";
import rateLimit from "@fastify/rate-limit";
import Fastify from "fastify";
import pino from "pino";

import { Store, newToken, sha256 } from "./store.mjs";
import { Tokens } from "./tokens.mjs";

const settings = JSON.parse(readFileSync(process.argv[2], "utf8"));
const store = new Store(settings.database);
const tokens = await Tokens.load(readFileSync(settings.key, "utf8"), settings);

// --- Who asks ------------------------------------------------------------------------------------------------------

const hashed = promisify(scrypt);
const SCRYPT = { N: 16384, r: 8, p: 1, maxmem: 128 << 20 };
const salt = randomBytes(16);
// Fingerprints of secrets that were right: each is hashed with scrypt once, and not at every request.
const right = new Set();
const fingerprint = (client, secret) => sha256(`${salt.toString("hex")}:${client.id}:${client.secretHash}:${secret}`).toString("base64");

class Refused extends Error {
    constructor(statusCode, error, description) {
        super(description);
        Object.assign(this, { statusCode, error });
    }
}

async function authenticated(request) {
    const { authorization } = request.headers;
    let [id, secret] = [request.body.client_id, request.body.client_secret];
    if (authorization?.slice(0, 6).toLowerCase() === "basic ") {
        const text = Buffer.from(authorization.slice(6), "base64").toString();
        [id, secret] = [text.slice(0, text.indexOf(":")), text.slice(text.indexOf(":") + 1)].map(decodeURIComponent);
    }
    const client = id && store.client(id);
    if (!client) throw new Refused(401, "invalid_client", "Unknown or inactive client");
    if (!client.secretHash) return client;
    const print = secret && fingerprint(client, secret);
    if (!right.has(print)) {
        const [itsSalt, expected] = client.secretHash.split("$").map((part) => Buffer.from(part, "base64url"));
        const actual = await hashed(secret ?? "", itsSalt, 64, SCRYPT);
        if (!timingSafeEqual(actual, expected)) throw new Refused(401, "invalid_client", "Invalid client credentials");
        right.add(print);
    }
    return client;
}

// --- Endpoints -----------------------------------------------------------------------------------------------------

const REFRESH_LIFETIME_MICROS = 86_400_000_000;

async function token(request) {
    const client = await authenticated(request);
    const { grant_type, refresh_token } = request.body;
    if (grant_type !== "refresh_token") throw new Refused(400, "unsupported_grant_type", "Unsupported grant_type");
    if (!client.grantTypes.includes(grant_type)) throw new Refused(400, "unauthorized_client", "Not for this client");
    const now = Date.now() * 1000;
    const digest = refresh_token?.startsWith("tgr_") && sha256(refresh_token);
    const found = digest && store.refreshToken(digest);
    const good = found && found.client_id === client.id && found.revoked_at === null && found.used_at === null;
    if (!good || found.expires_at <= now || found.ends_at <= now) throw new Refused(400, "invalid_grant", "Invalid refresh token");
    const next = newToken();
    const endsAt = Math.min(now + REFRESH_LIFETIME_MICROS, found.ends_at);
    if (!store.rotate(digest, sha256(next), endsAt, now)) throw new Refused(400, "invalid_grant", "Used already");
    const answer = await tokens.answer(found, next);
    store.remember(client.id, "token_refresh", "success", found.account, found.scope);
    return answer;
}

async function introspect(request) {
    const client = await authenticated(request);
    if (!client.secretHash) throw new Refused(401, "invalid_client", "Only clients that have a secret may ask about tokens");
    if (!request.body.token) throw new Refused(400, "invalid_request", "token is required");
    const claims = await tokens.accessToken(request.body.token);
    if (!claims || (claims.grant_id && !store.grantStands(claims.grant_id, Date.now() * 1000))) return { active: false };
    const { type, ...shown } = claims;
    return { ...shown, active: true, token_type: "Bearer" };
}

// Whoever has an access token for this audience may pass, and the service learns who it is.
async function admit(request, reply, claimsOf) {
    const { authorization } = request.headers;
    const presented = authorization?.slice(0, 7).toLowerCase() === "bearer " ? authorization.slice(7) : undefined;
    request.claims = presented && (await claimsOf(presented));
    if (!request.claims) {
        reply.header("www-authenticate", `Bearer error="invalid_token"`);
        throw new Refused(401, "invalid_token", "The access token is missing or invalid");
    }
}

const verified = (token) => tokens.accessToken(token, { audience: settings.audience });

// That a token is genuine does not change, so that it may be remembered; its time is looked at again.
const genuine = new Map();
async function remembered(token) {
    let claims = genuine.get(token);
    if (claims === undefined) {
        claims = await verified(token);
        if (genuine.size >= 50_000) genuine.clear();
        if (claims) genuine.set(token, claims);
    }
    return claims && claims.exp > Date.now() / 1000 ? claims : undefined;
}

// What the service is told of the caller, in place of what the caller says of himself.
function told(request, { authorization, ...headers }) {
    const { claims, id, ip, protocol } = request;
    return {
        ...headers,
        "x-auth-subject": claims.sub,
        "x-auth-signer": claims.signer_type,
        "x-auth-client": claims.client_id,
        "x-auth-scope": claims.scope,
        "x-real-ip": ip,
        "x-request-id": id,
        "x-forwarded-for": ip,
        "x-forwarded-proto": protocol,
    };
}

// --- The server ----------------------------------------------------------------------------------------------------

// One line a request with what the gateway logs too, written as seldom as it writes.
const log = pino({ base: null }, pino.destination({ dest: settings.log, minLength: 64 << 10, maxWrite: 128 << 10, sync: true }));

const app = Fastify({ loggerInstance: log, disableRequestLogging: true });
app.decorateRequest("claims", null);
app.addHook("onResponse", async (request, reply) => {
    log.info({
        request_id: request.id,
        listener: "plain",
        route: request.routeOptions.url,
        client: request.ip,
        method: request.method,
        host: request.host,
        path: request.url,
        subject: request.claims?.sub,
        status: reply.statusCode,
        duration_us: Math.round(reply.elapsedTime * 1000),
        bytes_sent: reply.getHeader("content-length"),
        bytes_received: request.headers["content-length"],
    });
});
app.setErrorHandler((error, request, reply) => {
    reply.code(error.statusCode ?? 500).send({ error: error.error ?? "server_error", error_description: error.message });
});

app.register(async (oauth) => {
    await oauth.register(rateLimit, { max: 1_000_000_000, timeWindow: "1 minute" });
    oauth.register(formbody);
    oauth.addHook("onRequest", async (request, reply) => {
        reply.headers({ "cache-control": "no-store", pragma: "no-cache" });
    });
    oauth.post("/v1/oauth/token", token);
    oauth.post("/v1/oauth/introspect", introspect);
});
app.get("/.well-known/jwks.json", async () => tokens.jwks);
for (const [prefix, claimsOf] of Object.entries({ "/verified": verified, "/remembered": remembered })) {
    app.register(proxy, {
        upstream: settings.upstream,
        prefix,
        rewritePrefix: "/verified",
        preHandler: (request, reply) => admit(request, reply, claimsOf),
        undici: { connections: 256, pipelining: 1 },
        replyOptions: { rewriteRequestHeaders: told },
    });
}

// --- Those who are there already -----------------------------------------------------------------------------------

for (const { id, secret } of [settings.publicClient, settings.confidentialClient]) {
    const itsSalt = randomBytes(16);
    const hash = secret && `${itsSalt.toString("base64url")}$${(await hashed(secret, itsSalt, 64, SCRYPT)).toString("base64url")}`;
    store.insertClient(id, hash ?? null, ["refresh_token"]);
}
const endsAt = (Date.now() + 30 * 86_400_000) * 1000;
const first = Array.from({ length: settings.grants }, () =>
    store.insertGrant(settings.publicClient.id, settings.account, "openid", endsAt),
);
writeFileSync(settings.refreshTokens, first.map((each) => `${each}\n`).join(""));

await app.listen({ host: "127.0.0.1", port: settings.port, backlog: 1024 });
process.on("SIGTERM", () => process.exit(0));
