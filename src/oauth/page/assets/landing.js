// The demonstration: this page is the application. It asks for a code with PKCE, exchanges it, and checks the ID token as any
// application must. The tokens stay in this module's memory.

import { action, ask, clear, element, Problem, say, tell } from "./page.js";

const { issuer, redirect, bittensor, ethereum } = element("demo").dataset;
const KEPT = "tollgate-demo";
const AGAIN = "Sign in once more.";

const base64url = (bytes) =>
    btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/gu, "-").replace(/\//gu, "_").replace(/=+$/u, "");
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/gu, "+").replace(/_/gu, "/")), (c) => c.charCodeAt(0));
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const sha256 = (text) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));

/** Away to the authorize page. What is needed at the return is kept for this tab alone. */
async function begin() {
    if (!crypto.subtle) {
        throw new Problem("This browser computes no digests on pages without https.", "Open this page with https or on localhost.");
    }
    const form = new FormData(element("demo-form"));
    const client = form.get("wallet") === "ethereum" ? ethereum : bittensor;
    const kept = { client, verifier: random(), state: random(), nonce: random() };
    sessionStorage.setItem(KEPT, JSON.stringify(kept));
    const metadata = await ask("/.well-known/oauth-authorization-server");
    const url = new URL(metadata.authorization_endpoint);
    url.search = new URLSearchParams({
        response_type: "code",
        client_id: client,
        redirect_uri: redirect,
        scope: form.get("scope").trim().replace(/\s+/gu, " "),
        state: kept.state,
        nonce: kept.nonce,
        code_challenge: base64url(await sha256(kept.verifier)),
        code_challenge_method: "S256",
    });
    window.location.assign(url);
}

/** Back again, with a code or an error. */
async function finish(answer) {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    sessionStorage.removeItem(KEPT);
    // A code in the address would be in the history.
    history.replaceState(null, "", window.location.pathname);
    if (kept === null || answer.get("state") !== kept.state) {
        throw new Problem("This answer belongs to no sign-in of this page.", AGAIN);
    }
    if (answer.has("iss") && answer.get("iss") !== issuer) throw new Problem("Somebody else has answered.", AGAIN);
    if (answer.get("error") === "access_denied") throw new Problem("You have denied it.", "Nobody was signed in. You can try again.");
    if (answer.has("error")) {
        throw new Problem(answer.get("error_description") ?? answer.get("error"), "Correct what you ask for, and try again.");
    }
    say("Exchanging the code for tokens…");
    const exchange = {
        grant_type: "authorization_code",
        code: answer.get("code") ?? "",
        redirect_uri: redirect,
        client_id: kept.client,
        code_verifier: kept.verifier,
    };
    const tokens = await ask("/v1/oauth/token", exchange, true).catch((problem) => {
        throw new Problem(problem.message, AGAIN);
    });
    await show(tokens, kept);
}

async function show(tokens, kept) {
    const access = claims(tokens.access_token);
    element("who").textContent = `As ${access.sub}.`;
    element("access-token").textContent = JSON.stringify(access, null, 2);
    element("id-token").textContent = "None, since openid was not asked for.";
    if (tokens.id_token) {
        const id = await verified(tokens, kept);
        element("id-token").textContent = JSON.stringify(id, null, 2);
    }
    say(tokens.id_token ? "Signature and claims of the ID token are right." : "");
    element("result").hidden = false;
    element("result").focus();
}

const claims = (token) => JSON.parse(new TextDecoder().decode(bytes(token.split(".")[1])));

const ALGORITHMS = {
    RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
    ES256: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
    EdDSA: { name: "Ed25519" },
};

/** The ID token's claims, once they are known to be the server's and for us (OpenID Connect Core section 3.1.3.7). */
async function verified({ id_token: token, access_token: access }, { client, nonce }) {
    const wrong = (what) => new Problem(`The ID token’s ${what} is wrong.`, "Tell the operator of this server.");
    const [head, body, signature] = token.split(".");
    const { kid, alg } = JSON.parse(new TextDecoder().decode(bytes(head)));
    const algorithm = ALGORITHMS[alg];
    const { keys } = await ask("/.well-known/jwks.json");
    const jwk = keys.find((key) => key.kid === kid);
    if (!algorithm || !jwk) throw wrong("key");
    const key = await crypto.subtle.importKey("jwk", jwk, algorithm, false, ["verify"]);
    const signed = new TextEncoder().encode(`${head}.${body}`);
    if (!(await crypto.subtle.verify(algorithm, key, bytes(signature), signed))) throw wrong("signature");
    const found = claims(token);
    const now = Date.now() / 1000;
    if (found.iss !== issuer) throw wrong("issuer");
    if (found.aud !== client) throw wrong("audience");
    if (!(found.exp > now - 5)) throw wrong("expiry");
    if (found.nonce !== nonce) throw wrong("nonce");
    if (found.at_hash !== base64url((await sha256(access)).slice(0, 16))) throw wrong("at_hash");
    return found;
}

const form = element("demo-form");
form.addEventListener("submit", action(form.querySelector("button"), begin));
element("forget").addEventListener("click", () => {
    for (const id of ["who", "id-token", "access-token"]) element(id).textContent = "";
    element("result").hidden = true;
    clear();
    say("Forgotten.");
    form.querySelector("button").focus();
});

const answer = new URLSearchParams(window.location.search);
if (answer.has("code") || answer.has("error")) {
    finish(answer).catch((problem) => {
        say("");
        tell(problem);
    });
}
