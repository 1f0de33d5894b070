// Signing and verifying, with jose.
import { createPublicKey, randomUUID } from "node:crypto";

import { SignJWT, calculateJwkThumbprint, createLocalJWKSet, exportJWK, importPKCS8, jwtVerify } from "jose";

import { sha256 } from "./store.mjs";

export class Tokens {
    #key;
    #keySet;
    #settings;

    static async load(pem, settings) {
        const tokens = new Tokens();
        const jwk = await exportJWK(createPublicKey(pem));
        const kid = await calculateJwkThumbprint(jwk);
        tokens.jwks = { keys: [{ ...jwk, kid, use: "sig", alg: settings.algorithm }] };
        tokens.kid = kid;
        tokens.#key = await importPKCS8(pem, settings.algorithm);
        tokens.#keySet = createLocalJWKSet(tokens.jwks);
        tokens.#settings = settings;
        return tokens;
    }

    #sign(typ, claims) {
        return new SignJWT(claims)
            .setProtectedHeader({ alg: this.#settings.algorithm, typ, kid: this.kid })
            .sign(this.#key);
    }

    // What the token endpoint answers (RFC 6749 section 5.1).
    async answer(grant, refreshToken) {
        const { issuer, audience, lifetime } = this.#settings;
        const now = Math.floor(Date.now() / 1000);
        const both = {
            iss: issuer,
            sub: grant.account,
            exp: Math.min(now + lifetime, Math.floor(grant.ends_at / 1e6)),
            iat: now,
            client_id: grant.client_id,
            scope: grant.scope,
            hotkey: null,
            coldkey: null,
            evm_address: grant.account,
            signer_type: "evm",
            auth_time: grant.auth_time,
        };
        const access = { ...both, aud: audience, jti: randomUUID(), type: "access", grant_id: grant.id };
        const accessToken = await this.#sign("at+jwt", access);
        const answer = { access_token: accessToken, token_type: "Bearer", expires_in: both.exp - now, scope: grant.scope };
        if (grant.scope.split(" ").includes("openid")) {
            const at_hash = sha256(accessToken).subarray(0, 16).toString("base64url");
            answer.id_token = await this.#sign("JWT", { ...both, aud: grant.client_id, type: "id", at_hash });
        }
        return { ...answer, refresh_token: refreshToken };
    }

    // The claims of an access token. Undefined: it is none of ours, or its time is over.
    async accessToken(unverified, options = {}) {
        try {
            const { issuer, algorithm } = this.#settings;
            const checks = { issuer, typ: "at+jwt", algorithms: [algorithm], ...options };
            return (await jwtVerify(unverified, this.#keySet, checks)).payload;
        } catch {
            return undefined;
        }
    }
}
