// The browser, the gateway it looks at, and what is asked of every page.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";

import { launch } from "./chromium.mjs";

/** What `tests/all/oauth_pages.rs` says: the gateway's address, its clients, and where pictures go. */
export const world = JSON.parse(process.env.TOLLGATE_TEST_WORLD ?? "null");
assert.ok(world, "this is run by tests/all/oauth_pages.rs");

export const ORIGIN = "http://localhost:3000";
export const APPLICATION = "https://app.example";

const browser = await launch([`MAP localhost:3000 ${world.gateway}`]);
export const close = () => browser.close();

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
await mkdir(world.artifacts, { recursive: true });

/**
 * A fresh browser profile with one page. `page.complaints` collects what no page may do: load from elsewhere, break the
 * policy, throw, open a dialog. `setUp` adds wallets.
 */
export async function visit(setUp = async () => {}, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, ...options });
    await setUp(context);
    await context.route(`${APPLICATION}/**`, (route) =>
        route.fulfill({ contentType: "text/html", body: "<!doctype html><html lang=en><title>application</title>" }),
    );
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.complaints = [];
    page.on("request", (request) => {
        const url = request.url();
        const ours = url.startsWith(`${ORIGIN}/`) || url.startsWith("data:");
        const back = url.startsWith(`${APPLICATION}/`) && request.isNavigationRequest();
        if (!ours && !back) page.complaints.push(`loads ${url}`);
    });
    page.on("pageerror", (error) => page.complaints.push(String(error)));
    page.on("dialog", (dialog) => {
        page.complaints.push(`dialog: ${dialog.message()}`);
        dialog.dismiss();
    });
    page.on("console", (message) => {
        // Answers that are errors are logged by the browser itself; the page tells the user.
        if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) {
            page.complaints.push(message.text());
        }
    });
    return page;
}

/** Ends a visit: nothing must have been amiss. */
export async function leave(page) {
    const { complaints } = page;
    await page.context().close();
    assert.deepEqual(complaints, []);
}

/** A proof key (RFC 7636). */
export function proof() {
    const verifier = randomBytes(32).toString("base64url");
    return { verifier, challenge: createHash("sha256").update(verifier).digest("base64url") };
}

/** The address of the authorize page. */
export function authorizeUrl(client, parameters = {}) {
    const query = new URLSearchParams({
        response_type: "code",
        client_id: client,
        redirect_uri: `${APPLICATION}/callback`,
        scope: "openid",
        state: "a state & more",
        code_challenge: proof().challenge,
        code_challenge_method: "S256",
        ...parameters,
    });
    return `${ORIGIN}/v1/oauth/authorize?${query}`;
}

/** Waits for the application's page and gives back what it was told. */
export async function atApplication(page) {
    await page.waitForURL(`${APPLICATION}/**`);
    return new URL(page.url()).searchParams;
}

/** A request of a program, not of a page. */
export async function post(route, form) {
    const answer = await fetch(`http://${world.gateway}${route}`, { method: "POST", body: new URLSearchParams(form) });
    return { status: answer.status, body: await answer.json() };
}

/** axe-core finds nothing, and the page fits its window. */
export async function check(page, name) {
    // In a world of its own: the page's policy does not count there, and stays as it is.
    await page.evaluate(axe);
    const found = await page.evaluate(async () => {
        const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
        return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
    });
    assert.deepEqual(found, [], `axe-core on ${name}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(wide <= 0, `${name} is ${wide} pixels too wide`);
}

const LOOKS = [
    ["desktop-light", { width: 1100, height: 900 }, "light"],
    ["desktop-dark", { width: 1100, height: 900 }, "dark"],
    ["phone-light", { width: 320, height: 640 }, "light"],
    ["phone-dark", { width: 320, height: 640 }, "dark"],
];

/** Checks and photographs the page as it stands, on a desktop and a phone, light and dark. */
export async function photograph(page, name) {
    const before = page.viewportSize();
    for (const [look, size, colorScheme] of LOOKS) {
        await page.setViewportSize(size);
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        await check(page, `${name} (${look})`);
        await page.screenshot({ path: path.join(world.artifacts, `${name}-${look}.png`), fullPage: true });
    }
    await page.setViewportSize(before);
    await page.emulateMedia({ colorScheme: null, reducedMotion: null });
}
