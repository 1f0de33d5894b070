// What tests/all/oauth_libraries.rs has started, and what all libraries are asked about alike.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";

/** The gateway's issuer, the algorithm that it signs with, its clients; see `World` in tests/all/oauth_libraries.rs. */
export const world = JSON.parse(process.env.TOLLGATE_TEST_WORLD ?? "null");
assert.ok(world, "this is run by tests/all/oauth_libraries.rs");

export const { issuer, algorithm, clients, redirect_uri: redirectUri, resources } = world;
/** Whether the gateway answers as the RFCs have it, and not as the replaced server did. */
export const standard = world.compatibility === "standard";

/** Of one request. */
export const TIMEOUT_SECONDS = 30;

/** What the token endpoint says to a code or a refresh token that is of no use (RFC 6749 section 5.2). */
export const INVALID_GRANT = { error: "invalid_grant", status: standard ? 400 : 401 };

/** OpenID Connect Core section 3.1.3.6; Ed25519 hashes with SHA-512. */
export function accessTokenHash(accessToken) {
    const hash = createHash(algorithm === "EdDSA" ? "sha512" : "sha256").update(accessToken).digest();
    return hash.subarray(0, hash.length / 2).toString("base64url");
}

/** A part of a token, unverified: 0 is its header, 1 what it says. */
export const part = (token, number) => JSON.parse(Buffer.from(token.split(".")[number], "base64url"));

/** The same token with another claim, under the old signature. */
export function altered(token, claims) {
    const [header, , signature] = token.split(".");
    const payload = Buffer.from(JSON.stringify({ ...part(token, 1), ...claims })).toString("base64url");
    return [header, payload, signature].join(".");
}
