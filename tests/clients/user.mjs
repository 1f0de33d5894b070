// The user, with an Ethereum wallet that really signs. Does what the pages' scripts do, without a browser.
//
//   node user.mjs allow|deny LINK       answers the authorize page
//   node user.mjs approve|refuse LINK   answers a device, LINK being its verification_uri with the code
//
// prints who the user is, and where the authorize page has sent the browser.

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

import { carol } from "../browser/ethereum.mjs";

/** Whose tokens they are. */
export const account = carol.address;

/** A request of our own page's, with the browser's cookie. */
async function send(origin, path, cookie, body) {
    const answer = await fetch(new URL(path, origin), {
        method: "POST",
        headers: { "Content-Type": "application/json", Origin: origin, Cookie: cookie },
        body: JSON.stringify(body),
    });
    const text = await answer.text();
    assert.ok(answer.ok, `${path}: ${answer.status} ${text}`);
    return JSON.parse(text);
}

async function signed(message) {
    return { nonce: message, address: carol.address, signature: await carol.signMessage({ message }) };
}

/** Opens the authorize page; `decide` answers it. Whoever is sent back at once is not asked. */
async function visit(link, decide) {
    const page = await fetch(link, { redirect: "manual", headers: { Accept: "text/html" } });
    if (page.status === 302) return new URL(page.headers.get("Location"));
    const text = await page.text();
    assert.equal(page.status, 200, text);
    const [, session] = /data-session="([^"]+)"/u.exec(text);
    const [cookie] = page.headers.get("Set-Cookie").split(";");
    const ask = (path, body) => send(new URL(link).origin, path, cookie, { session_id: session, ...body });
    return new URL((await decide(ask)).redirect_to);
}

/** Signs in: the link back, with a code. */
export const allow = (link) =>
    visit(link, async (ask) => {
        const { nonce } = await ask("/v1/oauth/challenge", { address: carol.address });
        return ask("/v1/oauth/callback", await signed(nonce));
    });

/** Says no: the link back, with an error. */
export const deny = (link) => visit(link, (ask) => ask("/v1/oauth/deny", {}));

function device(link) {
    const { origin, searchParams } = new URL(link);
    const code = { user_code: searchParams.get("user_code") };
    return (path, body) => send(origin, path, "", { ...code, ...body });
}

/** Signs for a device. */
export async function approve(link) {
    const ask = device(link);
    const { nonce } = await ask("/v1/device/approve", { address: carol.address });
    await ask("/v1/device/confirm", await signed(nonce));
}

/** Says no to a device. */
export const refuse = (link) => device(link)("/v1/device/deny", {});

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
    const [, , act, link] = process.argv;
    const answer = await { allow, deny, approve, refuse }[act](link);
    console.log(JSON.stringify({ account, sent_to: answer }));
}
