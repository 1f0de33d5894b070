// The browser.

import assert from "node:assert/strict";

import { chromium } from "playwright-core";

const executablePath = process.env.TOLLGATE_TEST_CHROMIUM;
assert.ok(executablePath, "TOLLGATE_TEST_CHROMIUM must be the path of chromium");

/** Starts it. It finds nobody but this machine, and what `rules` (of --host-resolver-rules) say. */
export function launch(rules = [], options = []) {
    // Chromium's sandbox wants what root in a container does not have; it sees our own pages alone.
    const asRoot = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
    const only = [...rules, "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1"].join(",");
    const args = [...asRoot, `--host-resolver-rules=${only}`, "--disable-dev-shm-usage", ...options];
    return chromium.launch({ executablePath, args });
}
