// openid-client, with all of its checks on: signatures of ID tokens are verified although TLS vouches for them.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as client from "openid-client";

import { account, allow, approve, deny, refuse } from "./user.mjs";
import {
    INVALID_GRANT,
    TIMEOUT_SECONDS,
    accessTokenHash,
    algorithm,
    clients,
    issuer,
    part,
    redirectUri,
    resources,
    standard,
} from "./world.mjs";

const DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code";

/** Every way in which a client may authenticate. */
const METHODS = [
    ["none", clients.public, client.None()],
    ["client_secret_basic", clients.confidential, client.ClientSecretBasic(clients.confidential.client_secret)],
    ["client_secret_post", clients.confidential, client.ClientSecretPost(clients.confidential.client_secret)],
];

function configured([, { client_id }, authentication], options = {}, metadata = {}) {
    return client.discovery(
        new URL(issuer),
        client_id,
        { id_token_signed_response_alg: algorithm, ...metadata },
        authentication,
        { timeout: TIMEOUT_SECONDS, execute: [client.enableNonRepudiationChecks], ...options },
    );
}

const publicClient = await configured(METHODS[0]);
const confidentialClient = await configured(METHODS[1]);
const otherClient = await configured(["", clients.other, client.ClientSecretBasic(clients.other.client_secret)]);

/** A link to the authorize page, and what must be true of the answer. */
async function link(config, parameters = {}) {
    const checks = {
        pkceCodeVerifier: client.randomPKCECodeVerifier(),
        expectedState: client.randomState(),
        expectedNonce: client.randomNonce(),
        idTokenExpected: true,
        maxAge: 600,
    };
    const url = client.buildAuthorizationUrl(config, {
        redirect_uri: redirectUri,
        scope: "openid",
        state: checks.expectedState,
        nonce: checks.expectedNonce,
        max_age: "600",
        code_challenge: await client.calculatePKCECodeChallenge(checks.pkceCodeVerifier),
        code_challenge_method: "S256",
        ...parameters,
    });
    return { url, checks };
}

async function signIn(config, parameters) {
    const { url, checks } = await link(config, parameters);
    return client.authorizationCodeGrant(config, await allow(url), checks);
}

const refused = assert.rejects;
/** The library's error for an answer that has one in its body. */
const told = (error, status = 400) => ({ name: "ResponseBodyError", error, status });
const invalidGrant = told(INVALID_GRANT.error, INVALID_GRANT.status);
/** What somebody else's code or token is; the replaced server blamed the client. */
const anothers = standard ? invalidGrant : told("invalid_client", 401);
/** Its error for an answer with a challenge, which it reads before the body. */
const challenged = (scheme, parameters) => (error) => {
    assert.deepEqual([error.name, error.status], ["WWWAuthenticateChallengeError", 401]);
    assert.deepEqual(error.cause, [{ scheme, parameters: { realm: "tollgate", ...parameters } }]);
    return true;
};
/** A client that is not recognised (RFC 6749 section 5.2). */
const unrecognised = standard ? challenged("basic") : told("invalid_client", 401);
/** Its error for an answer that it does not believe. */
const disbelieved = (code, why) => (error) => {
    assert.deepEqual([error.name, error.code], ["ClientError", code]);
    if (why) assert.match(error.cause.message, why);
    return true;
};

for (const method of METHODS) {
    const [name] = method;

    test(`${name}: code, UserInfo, refresh and revocation`, async () => {
        const config = await configured(method);
        const tokens = await signIn(config);
        assert.deepEqual([tokens.token_type, tokens.scope, tokens.expiresIn() > 0], ["bearer", "openid", true]);
        const claims = tokens.claims();
        assert.deepEqual([claims.iss, claims.sub, claims.aud], [issuer, account, method[1].client_id]);
        assert.equal(claims.at_hash, accessTokenHash(tokens.access_token));
        const user = await client.fetchUserInfo(config, tokens.access_token, claims.sub);
        assert.deepEqual([user.sub, user.evm_address, user.signer_type], [account, account, "evm"]);

        const next = await client.refreshTokenGrant(config, tokens.refresh_token);
        assert.notEqual(next.refresh_token, tokens.refresh_token);
        assert.notEqual(next.access_token, tokens.access_token);
        assert.deepEqual([next.claims().sub, next.claims().auth_time], [claims.sub, claims.auth_time]);
        assert.equal(next.claims().at_hash, accessTokenHash(next.access_token));
        assert.equal(next.claims().nonce, undefined);
        await refused(client.refreshTokenGrant(config, tokens.refresh_token), invalidGrant);

        await client.tokenRevocation(config, next.refresh_token, { token_type_hint: "refresh_token" });
        await refused(client.refreshTokenGrant(config, next.refresh_token), invalidGrant);
        const revoked = challenged("bearer", { error: "invalid_token" });
        await refused(client.fetchUserInfo(config, next.access_token, claims.sub), revoked);
        await client.tokenRevocation(config, next.refresh_token);
    });
}

test("both metadata documents are the issuer's", async () => {
    const metadata = publicClient.serverMetadata();
    assert.equal(metadata.issuer, issuer);
    assert.equal(metadata.supportsPKCE(), true);
    const oauth = await configured(METHODS[0], { algorithm: "oauth2" });
    assert.deepEqual({ ...oauth.serverMetadata() }, { ...metadata });
});

test("a document of another issuer is not believed", async () => {
    const elsewhere = new URL(issuer);
    elsewhere.hostname = "localhost";
    await refused(
        client.discovery(elsewhere, clients.public.client_id, undefined, client.None()),
        disbelieved("OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED"),
    );
});

test("an authorization answer that is not ours is not believed", async () => {
    const { url, checks } = await link(publicClient);
    const answer = await allow(url);
    const changed = (name, value) => {
        const other = new URL(answer);
        if (value === undefined) other.searchParams.delete(name);
        else other.searchParams.set(name, value);
        return client.authorizationCodeGrant(publicClient, other, checks);
    };
    const invalid = (why) => disbelieved("OAUTH_INVALID_RESPONSE", why);
    await refused(changed("iss", "https://evil.example"), invalid(/unexpected "iss"/u));
    if (standard) await refused(changed("iss"), invalid(/"iss" \(issuer\) missing/u));
    else assert.equal(answer.searchParams.has("iss"), false);
    await refused(changed("state", "another"), invalid(/unexpected "state"/u));
    await refused(changed("state"), invalid(/"state" missing/u));
    assert.ok((await client.authorizationCodeGrant(publicClient, answer, checks)).access_token);
});

test("an ID token for another request, or by another key or algorithm, is not believed", async () => {
    const once = async (config, change) => {
        const { url, checks } = await link(config);
        return client.authorizationCodeGrant(config, await allow(url), { ...checks, ...change });
    };
    const compared = disbelieved("OAUTH_JWT_CLAIM_COMPARISON_FAILED", /unexpected ID Token "nonce"/u);
    await refused(once(publicClient, { expectedNonce: "another" }), compared);
    await refused(once(publicClient, { expectedNonce: undefined }), compared);

    const strange = await configured(METHODS[0], {}, { id_token_signed_response_alg: "PS256" });
    await refused(once(strange), disbelieved("OAUTH_INVALID_RESPONSE", /unexpected JWT "alg"/u));

    const forged = await configured(METHODS[0]);
    forged[client.customFetch] = async (...request) => {
        const answer = await fetch(...request);
        if (!answer.url.endsWith("/jwks.json")) return answer;
        // The next key's public half under the current one's name.
        const [current, next] = (await answer.json()).keys;
        return Response.json({ keys: [{ ...next, kid: current.kid }] });
    };
    await refused(once(forged), disbelieved("OAUTH_INVALID_RESPONSE", /signature verification failed/u));
});

test("a user is not taken for another", async () => {
    const { access_token } = await signIn(publicClient);
    await refused(
        client.fetchUserInfo(publicClient, access_token, "0x0000000000000000000000000000000000000000"),
        disbelieved("OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED", /"sub"/u),
    );
});

test("what is wrong with a request for tokens is told in the RFC's words", async () => {
    const begin = async (config) => {
        const { url, checks } = await link(config);
        return { answer: await allow(url), checks };
    };
    const { answer, checks } = await begin(publicClient);
    const exchange = (config, change, callback = answer) =>
        client.authorizationCodeGrant(config, callback, { ...checks, ...change });
    await refused(exchange(publicClient, { pkceCodeVerifier: client.randomPKCECodeVerifier() }), invalidGrant);
    await refused(exchange(publicClient, { pkceCodeVerifier: undefined }), told("invalid_request"));
    await refused(exchange(publicClient, { pkceCodeVerifier: "short" }), told("invalid_request"));
    const elsewhere = new URL(`https://app.example/other${answer.search}`);
    await refused(exchange(publicClient, {}, elsewhere), standard ? invalidGrant : told("invalid_request"));
    await refused(exchange(otherClient, {}), anothers);
    const invented = new URL(answer);
    invented.searchParams.set("code", "tgc_invented");
    await refused(exchange(publicClient, {}, invented), invalidGrant);

    const tokens = await exchange(publicClient, {});
    await refused(exchange(publicClient, {}), invalidGrant);
    await refused(client.refreshTokenGrant(publicClient, tokens.refresh_token), invalidGrant);
    await refused(client.refreshTokenGrant(publicClient, "tgr_invented"), invalidGrant);
    await refused(client.refreshTokenGrant(publicClient, tokens.access_token), invalidGrant);

    const { refresh_token } = await signIn(confidentialClient);
    await refused(client.refreshTokenGrant(otherClient, refresh_token), anothers);
    const wider = client.refreshTokenGrant(confidentialClient, refresh_token, { scope: "openid tao:holder" });
    if (standard) await refused(wider, told("invalid_scope"));
    else assert.equal((await wider).scope, "openid");
    await refused(
        client.genericGrantRequest(confidentialClient, "client_credentials", {}),
        told("unsupported_grant_type"),
    );
});

test("a client that is not recognised is told so", async () => {
    const { refresh_token } = await signIn(confidentialClient);
    for (const [client_id, authentication] of [
        [clients.confidential.client_id, client.ClientSecretBasic("wrong")],
        [clients.confidential.client_id, client.ClientSecretPost("wrong")],
        [clients.confidential.client_id, client.None()],
        ["nobody", client.ClientSecretBasic("wrong")],
        ["nobody", client.None()],
    ]) {
        const config = await configured(["", { client_id }, authentication]);
        await refused(client.refreshTokenGrant(config, refresh_token), unrecognised);
        await refused(client.tokenIntrospection(config, refresh_token), unrecognised);
        await refused(client.tokenRevocation(config, refresh_token), unrecognised);
        await refused(client.initiateDeviceAuthorization(config, { scope: "openid" }), unrecognised);
    }
    assert.ok((await client.refreshTokenGrant(confidentialClient, refresh_token)).access_token);
});

test("what is wrong with a request for the user is told to the application", async () => {
    const { url: denied, checks } = await link(publicClient);
    const answer = await deny(denied);
    await refused(client.authorizationCodeGrant(publicClient, answer, checks), {
        name: "AuthorizationResponseError",
        error: "access_denied",
    });
    // The replaced server told the user instead.
    if (!standard) return;
    for (const [parameters, error] of [
        [{ prompt: "none" }, "login_required"],
        [{ scope: "openid nonsense" }, "invalid_scope"],
        [{ scope: "openid tao:holder" }, "invalid_scope"],
        [{ response_type: "token" }, "unsupported_response_type"],
        [{ response_mode: "form_post" }, "invalid_request"],
        [{ code_challenge_method: "plain" }, "invalid_request"],
        [{ code_challenge: "" }, "invalid_request"],
        [{ resource: "https://nobody.example/" }, "invalid_target"],
        [{ request: "e30.e30." }, "request_not_supported"],
        [{ request_uri: "https://app.example/request" }, "request_uri_not_supported"],
        [{ registration: "{}" }, "registration_not_supported"],
    ]) {
        const { url, checks } = await link(publicClient, parameters);
        const refusal = await allow(url);
        await refused(
            client.authorizationCodeGrant(publicClient, refusal, checks),
            { name: "AuthorizationResponseError", error },
            JSON.stringify(parameters),
        );
    }
});

test("introspection tells what a token is, to those who have a secret", async () => {
    const tokens = await signIn(publicClient);
    const claims = part(tokens.access_token, 1);
    const found = await client.tokenIntrospection(otherClient, tokens.access_token);
    assert.equal(found.active, true);
    for (const name of ["iss", "sub", "aud", "client_id", "jti", "exp", "iat", "scope", "auth_time"]) {
        assert.deepEqual(found[name], claims[name], name);
    }
    // A refresh token is its own client's business.
    assert.deepEqual(await client.tokenIntrospection(otherClient, tokens.refresh_token), { active: false });
    assert.deepEqual(await client.tokenIntrospection(otherClient, tokens.id_token), { active: false });
    assert.deepEqual(await client.tokenIntrospection(otherClient, "nonsense"), { active: false });
    await refused(client.tokenIntrospection(publicClient, tokens.access_token), unrecognised);
    await refused(client.tokenRevocation(otherClient, tokens.access_token), told("unauthorized_client"));
    await client.tokenRevocation(publicClient, tokens.access_token);
    assert.deepEqual(await client.tokenIntrospection(otherClient, tokens.access_token), { active: false });
    await client.tokenRevocation(publicClient, "nonsense");
});

test("access tokens are for the resources that were named", async () => {
    const { url, checks } = await link(publicClient);
    for (const resource of resources) url.searchParams.append("resource", resource);
    const tokens = await client.authorizationCodeGrant(publicClient, await allow(url), checks);
    assert.deepEqual(part(tokens.access_token, 1).aud, resources);
    const fewer = await client.refreshTokenGrant(publicClient, tokens.refresh_token, { resource: resources[1] });
    assert.equal(part(fewer.access_token, 1).aud, resources[1]);
    const other = { resource: "https://nobody.example/" };
    await refused(client.refreshTokenGrant(publicClient, fewer.refresh_token, other), told("invalid_target"));
    const again = await client.refreshTokenGrant(publicClient, fewer.refresh_token);
    assert.deepEqual(part(again.access_token, 1).aud, resources);
});

/** Where the user goes; the replaced server had no `verification_uri_complete`. */
function verificationLink(answer) {
    assert.equal("verification_uri_complete" in answer, standard);
    return answer.verification_uri_complete ?? `${answer.verification_uri}?user_code=${answer.user_code}`;
}

test("a device polls until somebody has signed", async () => {
    const answer = await client.initiateDeviceAuthorization(publicClient, { scope: "openid" });
    const poll = () => client.genericGrantRequest(publicClient, DEVICE_GRANT, { device_code: answer.device_code });
    await refused(poll(), told("authorization_pending"));
    await refused(poll(), told("slow_down"));
    const patient = client.pollDeviceAuthorizationGrant(publicClient, answer);
    await approve(verificationLink(answer));
    const tokens = await patient;
    assert.equal(part(tokens.access_token, 1).sub, account);
    // The replaced server knew no `scope` here.
    assert.equal(tokens.claims()?.sub, standard ? account : undefined);
    await refused(poll(), standard ? invalidGrant : told("Not Found", 404));
    assert.ok((await client.refreshTokenGrant(publicClient, tokens.refresh_token)).access_token);
});

// It takes seven seconds and has nothing to do with signatures. The replaced server lengthened nothing.
test("a device that is told to slow down does so", { skip: algorithm !== "RS256" || !standard }, async () => {
    const config = await configured(METHODS[0]);
    const answer = await client.initiateDeviceAuthorization(config, { scope: "openid" });
    const parameters = { device_code: answer.device_code };
    await refused(client.genericGrantRequest(config, DEVICE_GRANT, parameters), told("authorization_pending"));
    await refused(client.genericGrantRequest(config, DEVICE_GRANT, parameters), told("slow_down"));
    const heard = [];
    config[client.customFetch] = async (...request) => {
        const poll = await fetch(...request);
        if (poll.url !== config.serverMetadata().token_endpoint) return poll;
        const { error } = await poll.clone().json();
        heard.push(error);
        // Now that it has heard so, it may have its tokens.
        if (error === "slow_down") await approve(verificationLink(answer));
        return poll;
    };
    // It begins with the interval that it was first told, and so it comes too soon.
    const tokens = await client.pollDeviceAuthorizationGrant(config, answer);
    assert.equal(tokens.claims().sub, account);
    assert.deepEqual(heard, ["slow_down", undefined]);
});

test("a device is told that the user said no", async () => {
    const answer = await client.initiateDeviceAuthorization(confidentialClient, { scope: "openid" });
    await refuse(verificationLink(answer));
    await refused(client.pollDeviceAuthorizationGrant(confidentialClient, answer), told("access_denied"));
    await refused(client.pollDeviceAuthorizationGrant(publicClient, answer), anothers);
    if (!standard) return;
    const wrong = (parameters) => client.initiateDeviceAuthorization(publicClient, parameters);
    await refused(wrong({ scope: "nonsense" }), told("invalid_scope"));
    await refused(wrong({ scope: "openid", resource: "https://nobody.example/" }), told("invalid_target"));
});
