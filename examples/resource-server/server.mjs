// An API that serves whoever has an access token of Tollgate's (RFC 9068, RFC 6750), and finds that out by itself.

import { createServer } from "node:http";

import { createRemoteJWKSet, errors, jwtVerify } from "jose";

const {
    // Whose tokens.
    ISSUER = "http://localhost:8402",
    // Who we are: tokens for others are of no use here. It stands among the server's `resources` (RFC 8707).
    AUDIENCE = "http://localhost:8407/",
    // Whose users are welcome. Any web page may register with a server or talk somebody into signing.
    CLIENTS = "example-cli",
    // What they must have been granted.
    SCOPE = "openid",
    PORT = "8407",
} = process.env;

const clients = CLIENTS.split(",");

/** A refusal, told as RFC 6750 section 3 says. */
class Refused extends Error {
    constructor(status, error, description) {
        super(description ?? error);
        this.status = status;
        const named = error ? `, error="${error}"` : "";
        const wanted = error === "insufficient_scope" ? `, scope="${SCOPE}"` : "";
        this.challenge = `Bearer realm="example"${named}${wanted}`;
    }
}

const metadata = await (await fetch(`${ISSUER}/.well-known/oauth-authorization-server`)).json();
if (metadata.issuer !== ISSUER) throw new Error(`${ISSUER} calls itself ${metadata.issuer}`);
// Fetched once, and again when a token is signed with a key that it lacks: keys are rotated.
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));

/** The claims of the token in a request, if it is one for us. */
async function authorized(request) {
    const [scheme, token, more] = (request.headers.authorization ?? "").split(" ");
    // Of a token in the address there would be copies in logs, so it is not even looked for there.
    if (scheme.toLowerCase() !== "bearer" || !token || more !== undefined) throw new Refused(401);
    const claims = await verified(token);
    if (!clients.includes(claims.client_id)) throw new Refused(401, "invalid_token", "a client that is not welcome");
    if (!claims.scope.split(" ").includes(SCOPE)) throw new Refused(403, "insufficient_scope");
    return claims;
}

const OF_KEY_SET = ["ERR_JOSE_GENERIC", "ERR_JWKS_INVALID", "ERR_JWKS_TIMEOUT"];

async function verified(token) {
    try {
        const { payload } = await jwtVerify(token, keys, {
            // Not an ID token, nor anything else that is signed with the same key.
            typ: "at+jwt",
            issuer: ISSUER,
            audience: AUDIENCE,
            // What the server may sign with, and not what the token says of itself.
            algorithms: ["RS256", "ES256", "EdDSA"],
            // A claim that is not there would not be checked.
            requiredClaims: ["exp", "sub", "client_id", "scope"],
        });
        return payload;
    } catch (error) {
        // A key set that cannot be had says nothing about the token.
        const ofToken = error instanceof errors.JOSEError && !OF_KEY_SET.includes(error.code);
        throw ofToken ? new Refused(401, "invalid_token", error.message) : error;
    }
}

const server = createServer(async (request, response) => {
    const answer = (status, document, headers = {}) => {
        response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store", ...headers });
        response.end(`${JSON.stringify(document)}\n`);
    };
    try {
        const { sub, signer_type, scope } = await authorized(request);
        // A hotkey's token names its owner's coldkey as well, which has not signed: ask signer_type before you take
        // `coldkey` for the one who is here.
        answer(200, { hello: sub, signer_type, scope });
    } catch (error) {
        if (error instanceof Refused) {
            return answer(error.status, { error: error.message }, { "WWW-Authenticate": error.challenge });
        }
        console.error(error.message);
        answer(503, { error: "the token cannot be checked now" }, { "Retry-After": "5" });
    }
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`listening on http://localhost:${server.address().port}/`));
