// oauth4webapi: every step by itself, and a resource server's check of access tokens (RFC 9068).

import assert from "node:assert/strict";
import { test } from "node:test";

import * as oauth from "oauth4webapi";

import { account, allow, approve, deny, refuse } from "./user.mjs";
import {
    INVALID_GRANT,
    TIMEOUT_SECONDS,
    accessTokenHash,
    algorithm,
    altered,
    clients,
    issuer,
    part,
    redirectUri,
    resources,
    standard,
} from "./world.mjs";

const refused = assert.rejects;
const options = () => ({ signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000) });

async function discovered(kind, at = issuer) {
    const answer = await oauth.discoveryRequest(new URL(at), { algorithm: kind, ...options() });
    return oauth.processDiscoveryResponse(new URL(at), answer);
}

const server = await discovered("oidc");

/** An application, and how it authenticates. */
const application = ({ client_id }, authentication) => ({
    client: { client_id, id_token_signed_response_alg: algorithm },
    authentication,
});
const applications = {
    none: application(clients.public, oauth.None()),
    client_secret_basic: application(clients.confidential, oauth.ClientSecretBasic(clients.confidential.client_secret)),
    client_secret_post: application(clients.confidential, oauth.ClientSecretPost(clients.confidential.client_secret)),
};
const app = applications.none;
const confidential = applications.client_secret_basic;
const resourceServer = application(clients.other, oauth.ClientSecretBasic(clients.other.client_secret));

/** What an application remembers of a request, and the link for its user. */
async function begin({ client }, parameters = {}) {
    const request = {
        verifier: oauth.generateRandomCodeVerifier(),
        state: oauth.generateRandomState(),
        nonce: oauth.generateRandomNonce(),
    };
    const link = new URL(server.authorization_endpoint);
    link.search = new URLSearchParams({
        client_id: client.client_id,
        redirect_uri: redirectUri,
        response_type: "code",
        scope: "openid",
        state: request.state,
        nonce: request.nonce,
        code_challenge: await oauth.calculatePKCECodeChallenge(request.verifier),
        code_challenge_method: "S256",
        ...parameters,
    });
    return { ...request, link };
}

/** The tokens for what the user's browser brought. */
async function redeem({ client, authentication }, { verifier, state, nonce }, answer) {
    const parameters = oauth.validateAuthResponse(server, client, answer, state);
    const response = await oauth.authorizationCodeGrantRequest(
        server,
        client,
        authentication,
        parameters,
        redirectUri,
        verifier,
        options(),
    );
    const checks = { expectedNonce: nonce, maxAge: 600, requireIdToken: true };
    const tokens = await oauth.processAuthorizationCodeResponse(server, client, response, checks);
    await oauth.validateApplicationLevelSignature(server, response, options());
    return tokens;
}

async function signIn(application, parameters) {
    const request = await begin(application, parameters);
    return redeem(application, request, await allow(request.link));
}

async function refresh({ client, authentication }, token, parameters = {}) {
    const more = { additionalParameters: parameters, ...options() };
    const response = await oauth.refreshTokenGrantRequest(server, client, authentication, token, more);
    const tokens = await oauth.processRefreshTokenResponse(server, client, response);
    if (tokens.id_token) await oauth.validateApplicationLevelSignature(server, response, options());
    return tokens;
}

async function userInfo({ client }, token, subject = account) {
    const response = await oauth.userInfoRequest(server, client, token, options());
    return oauth.processUserInfoResponse(server, client, subject, response);
}

async function introspect({ client, authentication }, token) {
    const response = await oauth.introspectionRequest(server, client, authentication, token, options());
    return oauth.processIntrospectionResponse(server, client, response);
}

async function revoke({ client, authentication }, token) {
    const response = await oauth.revocationRequest(server, client, authentication, token, options());
    return oauth.processRevocationResponse(response);
}

async function beginDevice({ client, authentication }, parameters = { scope: "openid" }) {
    const response = await oauth.deviceAuthorizationRequest(server, client, authentication, parameters, options());
    return oauth.processDeviceAuthorizationResponse(server, client, response);
}

async function poll({ client, authentication }, { device_code }) {
    const response = await oauth.deviceCodeGrantRequest(server, client, authentication, device_code, options());
    return oauth.processDeviceCodeResponse(server, client, response);
}

const told = (error, status = 400) => ({ code: oauth.RESPONSE_BODY_ERROR, error, status });
const invalidGrant = told(INVALID_GRANT.error, INVALID_GRANT.status);
const challenged = { code: oauth.WWW_AUTHENTICATE_CHALLENGE, status: 401 };
const unrecognised = standard ? challenged : told("invalid_client", 401);

for (const [name, application] of Object.entries(applications)) {
    test(`${name}: code, UserInfo, refresh, introspection and revocation`, async () => {
        const tokens = await signIn(application);
        const claims = oauth.getValidatedIdTokenClaims(tokens);
        assert.deepEqual([claims.sub, claims.aud], [account, application.client.client_id]);
        assert.equal(claims.at_hash, accessTokenHash(tokens.access_token));
        assert.equal((await userInfo(application, tokens.access_token)).evm_address, account);

        const next = await refresh(application, tokens.refresh_token);
        assert.equal(oauth.getValidatedIdTokenClaims(next).sub, account);
        await refused(refresh(application, tokens.refresh_token), invalidGrant);
        assert.equal((await introspect(resourceServer, next.access_token)).active, true);

        await revoke(application, next.access_token);
        assert.deepEqual(await introspect(resourceServer, next.access_token), { active: false });
        await refused(userInfo(application, next.access_token), challenged);
        await refused(refresh(application, next.refresh_token), invalidGrant);
    });
}

test("what the metadata say is so", async () => {
    assert.deepEqual(server, await discovered("oauth2"));
    // What OpenID Connect Discovery section 3 and RFC 8414 section 2 require.
    for (const name of [
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "jwks_uri",
        "response_types_supported",
        "subject_types_supported",
        "id_token_signing_alg_values_supported",
    ]) {
        assert.ok(name in server, name);
    }
    assert.deepEqual(new Set(server.token_endpoint_auth_methods_supported), new Set(Object.keys(applications)));
    assert.deepEqual(server.id_token_signing_alg_values_supported, [algorithm]);
    assert.equal(server.authorization_response_iss_parameter_supported, standard);
    assert.equal(server.request_uri_parameter_supported, false, "nobody who says nothing");
    // Each is there, and none with another method.
    for (const [name, method] of [
        ["token_endpoint", "POST"],
        ["device_authorization_endpoint", "POST"],
        ["introspection_endpoint", "POST"],
        ["revocation_endpoint", "POST"],
        ["authorization_endpoint", "GET"],
        ["authorization_endpoint", "POST"],
        ["userinfo_endpoint", "GET"],
        ["userinfo_endpoint", "POST"],
        ["jwks_uri", "GET"],
    ]) {
        const { status } = await fetch(server[name], { method, ...options() });
        assert.ok([200, 400, 401].includes(status), `${method} ${name}: ${status}`);
        const other = await fetch(server[name], { method: "DELETE", ...options() });
        assert.equal(other.status, standard ? 405 : 404, name);
    }
    const { keys } = await (await fetch(server.jwks_uri, options())).json();
    for (const key of keys) {
        assert.deepEqual([key.use, key.alg], ["sig", algorithm]);
        for (const secret of ["d", "p", "q", "dp", "dq", "qi"]) assert.equal(secret in key, false, secret);
    }
    const [names, tokens] = [server.claims_supported, await signIn(app)];
    const claims = oauth.getValidatedIdTokenClaims(tokens);
    for (const name of names) assert.ok(name in claims, name);
    for (const name of Object.keys(await userInfo(app, tokens.access_token))) assert.ok(names.includes(name), name);
});

test("metadata of another issuer are not believed", async () => {
    await refused(discovered("oidc", issuer.replace("127.0.0.1", "localhost")), {
        code: oauth.JSON_ATTRIBUTE_COMPARISON,
    });
    await refused(discovered("oidc", issuer.replace("https:", "http:")), { code: oauth.HTTP_REQUEST_FORBIDDEN });
});

test("an answer from another server, or to another request, is not redeemed", async () => {
    const request = await begin(app);
    const answer = await allow(request.link);
    const changed = (name, value) => {
        const other = new URL(answer);
        other.searchParams.set(name, value);
        return redeem(app, request, other);
    };
    await refused(changed("iss", "https://evil.example"), { code: oauth.INVALID_RESPONSE });
    await refused(changed("state", "another"), { code: oauth.INVALID_RESPONSE });
    await refused(redeem(app, { ...request, state: oauth.expectNoState }, answer), { code: oauth.INVALID_RESPONSE });
    await refused(changed("code", "tgc_invented"), invalidGrant);
    await refused(redeem(app, { ...request, verifier: oauth.generateRandomCodeVerifier() }, answer), invalidGrant);
    await refused(redeem(app, { ...request, verifier: oauth.nopkce }, answer), told("invalid_request"));
    await refused(redeem(resourceServer, request, answer), standard ? invalidGrant : told("invalid_client", 401));
    const tokens = await redeem(app, request, answer);
    await refused(redeem(app, request, answer), invalidGrant);
    // RFC 6749 section 4.1.2: what the first use got is taken back.
    await refused(userInfo(app, tokens.access_token), challenged);
});

test("an ID token for another request is not believed", async () => {
    for (const nonce of ["another", oauth.expectNoNonce]) {
        const request = await begin(app);
        const answer = await allow(request.link);
        await refused(redeem(app, { ...request, nonce }, answer), { code: oauth.JWT_CLAIM_COMPARISON });
    }
    const tokens = await signIn(app);
    await refused(userInfo(app, tokens.access_token, "another"), { code: oauth.JSON_ATTRIBUTE_COMPARISON });
});

test("a client that is not recognised is told so", async () => {
    const { refresh_token } = await signIn(confidential);
    for (const wrong of [
        application(clients.confidential, oauth.ClientSecretBasic("wrong")),
        application(clients.confidential, oauth.ClientSecretPost("wrong")),
        application(clients.confidential, oauth.None()),
        application({ client_id: "nobody" }, oauth.None()),
    ]) {
        await refused(refresh(wrong, refresh_token), unrecognised);
        await refused(introspect(wrong, refresh_token), unrecognised);
        await refused(revoke(wrong, refresh_token), unrecognised);
        await refused(beginDevice(wrong), unrecognised);
    }
    await refused(introspect(app, refresh_token), unrecognised);
    // Two clients in one request (RFC 6749 section 2.3); the replaced server believed the header.
    const two = refresh(confidential, refresh_token, { client_id: clients.public.client_id });
    if (standard) await refused(two, told("invalid_request"));
    else assert.ok((await two).access_token);
});

test("the application is told that the user said no", async () => {
    const request = await begin(app);
    const answer = await deny(request.link);
    await refused(redeem(app, request, answer), { code: oauth.AUTHORIZATION_RESPONSE_ERROR, error: "access_denied" });
});

test("a device polls, is told to slow down, and gets tokens or a no", async () => {
    // What the device shows; the replaced server had no `verification_uri_complete`.
    const link = (device) =>
        device.verification_uri_complete ?? `${device.verification_uri}?user_code=${device.user_code}`;
    const device = await beginDevice(confidential);
    await refused(poll(confidential, device), told("authorization_pending"));
    await refused(poll(confidential, device), told("slow_down"));
    await refused(poll(app, device), standard ? invalidGrant : told("invalid_client", 401));
    await approve(link(device));
    const tokens = await poll(confidential, device);
    assert.equal(part(tokens.access_token, 1).sub, account);
    await refused(poll(confidential, device), standard ? invalidGrant : told("Not Found", 404));

    const denied = await beginDevice(confidential);
    await refuse(link(denied));
    await refused(poll(confidential, denied), told("access_denied"));
});

/** A resource server's check. */
function validate(token, { audience = "bittensor-apps", from = server, ...more } = {}) {
    const request = new Request("https://api.example/", { headers: { Authorization: `Bearer ${token}` } });
    return oauth.validateJwtAccessToken(from, request, audience, { signingAlgorithms: [algorithm], ...more });
}

test("an access token is a JWT for its audience, and nothing else is one", async () => {
    const tokens = await signIn(app);
    const claims = await validate(tokens.access_token);
    assert.deepEqual([claims.sub, claims.client_id, claims.scope], [account, clients.public.client_id, "openid"]);

    const { client_id } = clients.public;
    await refused(validate(tokens.id_token, { audience: client_id }), /unexpected JWT "typ"/u);
    await refused(validate(tokens.refresh_token), /Invalid JWT/u);
    await refused(validate(tokens.access_token, { audience: resources[0] }), { code: oauth.JWT_CLAIM_COMPARISON });
    const [another, { exp }] = [{ ...server, issuer: "https://evil.example" }, claims];
    await refused(validate(tokens.access_token, { from: another }), { code: oauth.JWT_CLAIM_COMPARISON });
    const expired = { [oauth.clockSkew]: exp - Math.floor(Date.now() / 1000) + 60 };
    await refused(validate(tokens.access_token, expired), { code: oauth.JWT_TIMESTAMP_CHECK });
    const wider = altered(tokens.access_token, { scope: "openid tao:holder" });
    await refused(validate(wider), { message: "JWT signature verification failed" });
    await refused(validate(tokens.access_token, { signingAlgorithms: ["PS256"] }), /unexpected JWT "alg"/u);
});

test("an access token is for the resource that was named, and for no other", async () => {
    const [first, second] = resources;
    const tokens = await signIn(confidential, { resource: first });
    assert.equal((await validate(tokens.access_token, { audience: first })).aud, first);
    await refused(validate(tokens.access_token, { audience: second }), { code: oauth.JWT_CLAIM_COMPARISON });
    await refused(validate(tokens.access_token), { code: oauth.JWT_CLAIM_COMPARISON });
    await refused(refresh(confidential, tokens.refresh_token, { resource: second }), told("invalid_target"));
    const next = await refresh(confidential, tokens.refresh_token, { resource: first });
    assert.equal((await validate(next.access_token, { audience: first })).aud, first);
});
