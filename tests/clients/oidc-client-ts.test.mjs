// oidc-client-ts in a browser, as an application's page uses it.

import assert from "node:assert/strict";
import { X509Certificate, createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:https";
import { createRequire } from "node:module";
import { after, test } from "node:test";

import { launch } from "../browser/chromium.mjs";
import { addEthereumWallet } from "../browser/wallets.mjs";
import { account } from "./user.mjs";
import { accessTokenHash, clients, issuer, part, redirectUri, resources, standard } from "./world.mjs";

const APPLICATION = new URL(redirectUri).origin;
const STRANGER = "https://evil.example";
const SILENT = `${APPLICATION}/silent`;

const library = await readFile(
    createRequire(import.meta.url).resolve("oidc-client-ts").replace(/umd.*$/u, "browser/oidc-client-ts.min.js"),
    "utf8",
);

/** What an application's page has before anything is asked of it; `silent` is the page for the hidden frame. */
function page(url) {
    const settings = {
        authority: issuer,
        client_id: clients.public.client_id,
        redirect_uri: redirectUri,
        silent_redirect_uri: SILENT,
        scope: "openid",
        loadUserInfo: true,
        automaticSilentRenew: false,
    };
    const script = `${library}
        const store = new oidc.WebStorageStateStore({ store: window.sessionStorage });
        window.managerWith = (more) => new oidc.UserManager({
            ...${JSON.stringify(settings)}, userStore: store, stateStore: store, ...more
        });
        window.manager = managerWith({});
        ${url === SILENT ? "manager.signinSilentCallback();" : ""}`;
    return `<!doctype html><html lang=en><title>application</title><script>${script}</script>`;
}

// The pages' server shows the development certificate too. The browser trusts its key, whatever name it is for, and no other
// besides those that the system trusts.
const certificate = process.env.NODE_EXTRA_CA_CERTS;
const identity = { cert: await readFile(certificate), key: await readFile(certificate.replace(/crt$/u, "key")) };
const applications = createServer(identity, ({ headers, url }, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end(page(`https://${headers.host}${url.split("?")[0]}`));
});
await new Promise((listening) => applications.listen(0, "127.0.0.1", listening));
const { publicKey } = new X509Certificate(identity.cert);
const trusted = createHash("sha256").update(publicKey.export({ type: "spki", format: "der" })).digest("base64");
const browser = await launch(
    [APPLICATION, STRANGER].map((origin) => `MAP ${new URL(origin).host}:443 127.0.0.1:${applications.address().port}`),
    [`--ignore-certificate-errors-spki-list=${trusted}`],
);
after(async () => {
    await browser.close();
    applications.close();
});

/** A browser of somebody who has a wallet, on the first page of an application. */
async function visit(at = APPLICATION) {
    const context = await browser.newContext();
    await addEthereumWallet(context);
    const tab = await context.newPage();
    tab.setDefaultTimeout(20_000);
    await tab.goto(`${at}/`);
    return tab;
}

/** The library sends the browser to the authorize page; `answer` is the button. Ends at the application's callback. */
async function answered(tab, answer, parameters = {}) {
    await Promise.all([
        tab.waitForURL(`${issuer}/v1/oauth/authorize?**`),
        tab.evaluate((parameters) => void manager.signinRedirect(parameters), parameters),
    ]);
    if (answer === "sign") {
        await tab.locator("#wallets button").first().click();
        await tab.getByRole("button", { name: "Sign and allow" }).click();
    } else {
        await tab.getByRole("link", { name: "Deny and go back" }).click();
    }
    await tab.waitForURL(`${redirectUri}?**`);
}

/** What the library makes of the callback: a user, or the error that it throws. */
const callback = (tab) =>
    tab.evaluate(() =>
        manager.signinCallback().then(
            (user) => ({ ...user, expires_in: user.expires_in }),
            ({ name, message, error }) => ({ name, message, error }),
        ),
    );

/** Any other act of the library's, told likewise. */
const told = (tab, act) =>
    tab.evaluate(
        (act) =>
            new Function(`return ${act}`)().then(
                (value) => value,
                ({ name, message, error }) => ({ name, message, error }),
            ),
        act,
    );

const stored = (tab) => tab.evaluate(() => Object.entries(sessionStorage));

async function signIn(tab, parameters) {
    await answered(tab, "sign", parameters);
    return callback(tab);
}

const userInfo = async (token) =>
    (await fetch(`${issuer}/v1/oauth/userinfo`, { headers: { Authorization: `Bearer ${token}` } })).status;

test("signs in, renews by refresh token, revokes and forgets", async () => {
    const tab = await visit();
    const user = await signIn(tab, { nonce: "n-1", state: { cart: 7 } });
    assert.deepEqual([user.profile.sub, user.profile.evm_address, user.state], [account, account, { cart: 7 }]);
    assert.ok(user.expires_in > 0 && user.expires_in <= 900, String(user.expires_in));
    assert.equal(part(user.id_token, 1).nonce, "n-1");
    assert.equal(part(user.id_token, 1).at_hash, accessTokenHash(user.access_token));
    // Of the sign-in itself nothing is left.
    const name = `oidc.user:${issuer}:${clients.public.client_id}`;
    assert.deepEqual((await stored(tab)).map(([key]) => key), [name]);
    assert.equal(await tab.evaluate(() => localStorage.length), 0);

    const renewed = await told(tab, "manager.signinSilent()");
    assert.notEqual(renewed.refresh_token, user.refresh_token);
    assert.equal(renewed.profile.sub, account);
    const [[, kept]] = await stored(tab);
    assert.equal(JSON.parse(kept).refresh_token, renewed.refresh_token);

    // By itself, before the token expires.
    const automatic = await tab.evaluate(async () => {
        const renewing = managerWith({ automaticSilentRenew: true, accessTokenExpiringNotificationTimeInSeconds: 1e6 });
        const loaded = new Promise((resolve) => renewing.events.addUserLoaded(resolve));
        await renewing.getUser();
        const { access_token, refresh_token } = await loaded;
        renewing.stopSilentRenew();
        return { access_token, refresh_token };
    });
    assert.notEqual(automatic.refresh_token, renewed.refresh_token);
    assert.equal(await userInfo(automatic.access_token), 200);

    await tab.evaluate(() => manager.revokeTokens(["refresh_token", "access_token"]));
    assert.equal(await userInfo(automatic.access_token), 401);
    const again = await tab.evaluate(
        (token) => manager.getUser().then((user) => manager.storeUser(Object.assign(user, { refresh_token: token }))),
        automatic.refresh_token,
    );
    assert.equal(again, undefined);
    assert.equal((await told(tab, "manager.signinSilent()")).error, "invalid_grant");
    await tab.evaluate(() => manager.removeUser());
    assert.deepEqual(await stored(tab), []);
    await tab.context().close();
});

test("a callback counts once", async () => {
    const tab = await visit();
    await answered(tab, "sign");
    const [address, before] = [tab.url(), await stored(tab)];
    const user = await callback(tab);
    assert.equal(await userInfo(user.access_token), 200);
    assert.match((await callback(tab)).message, /No matching state found/u);

    // Somebody who has the application's state as well: the server has seen the code before, and takes all of it back.
    await tab.evaluate((before) => before.forEach(([key, value]) => sessionStorage.setItem(key, value)), before);
    assert.equal(tab.url(), address);
    const replayed = await callback(tab);
    assert.deepEqual([replayed.name, replayed.error], ["ErrorResponse", "invalid_grant"]);
    assert.equal(await userInfo(user.access_token), 401);
    await tab.context().close();
});

test("what does not belong together is refused", async () => {
    const tab = await visit();
    for (const [member, value, expected] of [
        ["code_verifier", "x".repeat(43), /code_verifier does not match/u],
        ["redirect_uri", `${APPLICATION}/other`, /redirect_uri is not that/u],
        ["nonce", "another", /nonce in id_token does not match/u],
        ["id", "another", /State does not match/u],
        ["client_id", "another", /client_id mismatch/u],
        ["authority", "https://evil.example", /authority mismatch/u],
    ]) {
        await answered(tab, "sign", { nonce: "n-2" });
        await tab.evaluate(
            ([member, value]) => {
                const [key] = Object.keys(sessionStorage);
                const state = { ...JSON.parse(sessionStorage.getItem(key)), [member]: value };
                sessionStorage.setItem(key, JSON.stringify(state));
            },
            [member, value],
        );
        const { name, message } = await callback(tab);
        assert.match(`${name}: ${message}`, expected, member);
        assert.equal(await tab.evaluate(() => manager.getUser()), null, member);
        await tab.evaluate(() => sessionStorage.clear());
    }
    await tab.context().close();
});

test("the application is told that the user said no, and that nobody signs unseen", async () => {
    const tab = await visit();
    await answered(tab, "deny");
    const denied = await callback(tab);
    assert.deepEqual([denied.name, denied.error], ["ErrorResponse", "access_denied"]);
    assert.deepEqual(await stored(tab), []);
    // The replaced server showed a page, also in a hidden frame, which refuses to be in one.
    if (standard) {
        const unseen = await told(tab, "manager.signinSilent({ forceIframeAuth: true })");
        assert.deepEqual([unseen.name, unseen.error], ["ErrorResponse", "login_required"]);
    }
    await tab.context().close();
});

test("tokens are for the resource that the page names", async () => {
    const tab = await visit();
    const user = await signIn(tab, { resource: resources[0] });
    assert.equal(part(user.access_token, 1).aud, resources[0]);
    const renewed = await told(tab, `manager.signinSilent({ resource: ${JSON.stringify(resources[0])} })`);
    assert.equal(part(renewed.access_token, 1).aud, resources[0]);
    const other = await told(tab, `manager.signinSilent({ resource: ${JSON.stringify(resources[1])} })`);
    assert.equal(other.error, "invalid_target");
    await tab.context().close();
});

test("a page of nobody's application gets nothing", async () => {
    const tab = await visit(STRANGER);
    assert.equal((await told(tab, "manager.metadataService.getMetadata()")).message, "Failed to fetch");
    const stolen = await told(tab, `fetch(${JSON.stringify(`${issuer}/v1/oauth/token`)}, { method: "POST" })`);
    assert.equal(stolen.name, "TypeError");
    await tab.context().close();
});
