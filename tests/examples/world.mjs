// What tests/all/examples.rs has started, and a browser to look at it: `tollgate demo`, as anybody starts it.

import assert from "node:assert/strict";

import { launch } from "../browser/chromium.mjs";

const world = JSON.parse(process.env.TOLLGATE_TEST_WORLD ?? "null");
assert.ok(world, "this is run by tests/all/examples.rs");

/** Where the demo is. */
export const issuer = `http://localhost:${world.port}`;
/** What the examples call it. */
export const ISSUER = "http://localhost:8402";
/** The folder `examples`. */
export const examples = world.examples;
/** A folder for what they keep. */
export const state = world.state;

const browsers = [];

/** A page of a fresh browser. It finds the demo, and `localhost` at the ports that are mapped to others. */
export async function open(ports = []) {
    const mapped = [[world.port, world.port], ...ports];
    const browser = await launch(mapped.map(([known, real]) => `MAP localhost:${known} 127.0.0.1:${real}`));
    browsers.push(browser);
    const page = await browser.newPage();
    page.setDefaultTimeout(20_000);
    page.failures = [];
    page.on("pageerror", (error) => page.failures.push(String(error)));
    return page;
}

export const close = () => Promise.all(browsers.map((browser) => browser.close()));

/** Signs with the key of those who have no wallet, on the page that asks. */
export async function signWithThrowawayKey(page) {
    await page.getByText("is a throw-away key").waitFor();
    await page.getByRole("button", { name: "Throw-away development key" }).click();
    await page.getByRole("button", { name: "Sign and allow" }).click();
}

/** A part of a token, unverified: 0 is its header, 1 what it says. */
export const part = (token, number) => JSON.parse(Buffer.from(token.split(".")[number], "base64url"));

/** The same token with another header or other claims, under the old signature. */
export function altered(token, header, claims) {
    const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const [, , signature] = token.split(".");
    return [encode({ ...part(token, 0), ...header }), encode({ ...part(token, 1), ...claims }), signature].join(".");
}
