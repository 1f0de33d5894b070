// `tollgate demo` in a browser that has no wallet, from the first look to the tokens.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { close, issuer, open, signWithThrowawayKey } from "./world.mjs";

after(close);

test("whoever just clicks is signed in, and sees the tokens", async () => {
    const page = await open();
    await page.goto(`${issuer}/`);
    await page.getByText("This is a demonstration.").waitFor();
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Sign in to Demo EVM Web App" }).waitFor();
    await signWithThrowawayKey(page);
    await page.getByRole("heading", { name: "You are signed in" }).waitFor();
    await page.getByText("Signature and claims of the ID token are right.").waitFor();
    const [, account] = /^As (0x[0-9a-fA-F]{40})\.$/u.exec(await page.locator("#who").innerText());
    const [id, access] = await Promise.all(
        ["#id-token", "#access-token"].map(async (token) => JSON.parse(await page.locator(token).innerText())),
    );
    for (const token of [id, access]) {
        assert.deepEqual([token.iss, token.sub, token.evm_address, token.client_id], [issuer, account, account, "demo-evm-web"]);
        assert.ok(token.exp > Date.now() / 1000);
    }
    assert.deepEqual(page.failures, []);
});

test("whoever chooses what cannot work here has been told so, and gets back", async () => {
    const page = await open();
    await page.goto(`${issuer}/`);
    await page.getByText("Bittensor wallets cannot sign in here").waitFor();
    await page.getByLabel("Bittensor", { exact: true }).check();
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("No Bittensor wallet is to be seen here.").waitFor();
    await page.getByRole("link", { name: "Deny and go back" }).click();
    await page.getByText("You have denied it.").waitFor();
    assert.deepEqual(page.failures, []);
});
