// The examples that are web pages, served as their README says, in a browser without a wallet.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";

import { altered, close, examples, ISSUER, issuer, open, signWithThrowawayKey, state } from "./world.mjs";

const servers = [];
after(async () => {
    servers.forEach((server) => server.kill());
    await close();
});

/** Serves an example, which names the demo's own port in this file, and says where. */
async function serve(name, file) {
    const folder = mkdtempSync(path.join(state, `${name}-`));
    const from = path.join(examples, name);
    cpSync(from, folder, { recursive: true, filter: (source) => path.basename(source) !== "node_modules" });
    const text = readFileSync(path.join(folder, file), "utf8");
    assert.ok(text.includes(`"${ISSUER}"`), `${file} names the issuer`);
    writeFileSync(path.join(folder, file), text.replaceAll(`"${ISSUER}"`, `"${issuer}"`));
    if (name === "oidc-client-ts") symlinkSync(path.join(from, "node_modules"), path.join(folder, "node_modules"));
    const server = spawn("python3", ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", folder], {
        stdio: ["ignore", "pipe", "ignore"],
    });
    servers.push(server);
    for await (const line of createInterface({ input: server.stdout })) {
        const [, port] = /port (\d+)/u.exec(line) ?? assert.fail(line);
        return Number(port);
    }
    return assert.fail("the server said nothing");
}

const status = (page) => page.locator("#status");

test("the web app", async (t) => {
    const home = "http://localhost:8405/";
    const page = await open([[8405, await serve("web-app", "index.html")]]);
    const begin = async () => {
        await page.goto(home);
        await page.getByRole("button", { name: "Sign in with a wallet" }).click();
        await page.getByRole("heading", { name: "Sign in to Example web app" }).waitFor();
    };

    await t.test("signs in", async () => {
        await begin();
        await signWithThrowawayKey(page);
        await status(page).getByText(/^Signed in as 0x[0-9a-fA-F]{40}$/u).waitFor();
        const user = JSON.parse(await page.locator("#user").innerText());
        assert.equal(await status(page).innerText(), `Signed in as ${user.sub}`);
        assert.equal(user.signer_type, "evm");
        assert.equal(page.url(), home);
        const kept = await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]);
        assert.deepEqual(kept, [0, 0, ""]);
    });

    await t.test("takes no for an answer", async () => {
        await begin();
        await page.getByRole("link", { name: "Deny and go back" }).click();
        await status(page).getByText("Not signed in: access_denied").waitFor();
    });

    await t.test("takes no answer that it did not ask for, and none of another server", async () => {
        const back = (parameters) => page.goto(`${home}?${new URLSearchParams({ code: "x", iss: issuer, ...parameters })}`);
        await back({ state: "x" });
        await status(page).getByText("not for a question of this tab").waitFor();
        for (const iss of ["https://evil.example", ""]) {
            await begin();
            const asked = new URL(page.url()).searchParams.get("state");
            await back({ state: asked, iss });
            await status(page).getByText("Another server has answered.").waitFor();
        }
    });

    await t.test("takes no ID token that is not for this sign-in", async () => {
        for (const claims of [{ nonce: "x" }, { aud: "x" }, { iss: "https://evil.example" }, { exp: 1 }, { sub: "0x0" }]) {
            await page.route("**/v1/oauth/token", async (route) => {
                const response = await route.fetch();
                const tokens = await response.json();
                await route.fulfill({ response, json: { ...tokens, id_token: altered(tokens.id_token, {}, claims) } });
            });
            await begin();
            await signWithThrowawayKey(page);
            await status(page).getByText(/^Not signed in: The (ID token is not for this sign-in|tokens belong to two)/u).waitFor();
            await page.unroute("**/v1/oauth/token");
        }
    });
    assert.deepEqual(page.failures, []);
});

test("the app with oidc-client-ts", async (t) => {
    const home = "http://localhost:8406/";
    const page = await open([[8406, await serve("oidc-client-ts", "app.js")]]);
    const begin = async () => {
        await page.goto(home);
        await page.getByRole("button", { name: "Sign in with a wallet" }).click();
        await page.getByRole("heading", { name: "Sign in to Example with oidc-client-ts" }).waitFor();
    };

    await t.test("signs in, renews and signs out", async () => {
        await begin();
        await signWithThrowawayKey(page);
        await status(page).getByText(/^Signed in as 0x/u).waitFor();
        assert.equal(JSON.parse(await page.locator("#user").innerText()).signer_type, "evm");
        assert.equal(page.url(), home);
        assert.equal(await page.evaluate(() => localStorage.length), 0);

        const renewed = page.waitForResponse("**/v1/oauth/token");
        await page.getByRole("button", { name: "Renew the tokens" }).click();
        assert.equal((await renewed).status(), 200);
        const tokens = await (await renewed).json();
        await status(page).getByText(/^Signed in as 0x/u).waitFor();

        const revoked = page.waitForResponse("**/v1/oauth/revoke");
        await page.getByRole("button", { name: "Sign out" }).click();
        assert.equal((await revoked).status(), 200);
        await status(page).getByText("You are not signed in.").waitFor();
        const user = { headers: { Authorization: `Bearer ${tokens.access_token}` } };
        assert.equal((await fetch(`${issuer}/v1/oauth/userinfo`, user)).status, 401, "it was taken back");
    });

    await t.test("takes no for an answer, and no answer that it did not ask for", async () => {
        await begin();
        await page.getByRole("link", { name: "Deny and go back" }).click();
        await status(page).getByText("access_denied").waitFor();
        await page.goto(`${home}?code=x&state=x`);
        await status(page).getByText("No matching state found in storage").waitFor();
        assert.equal(page.url(), home);
    });
    assert.deepEqual(page.failures, []);
});
