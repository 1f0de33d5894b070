// Every page in a real browser, with wallets that really sign.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import {
    APPLICATION,
    ORIGIN,
    atApplication,
    authorizeUrl,
    check,
    close,
    leave,
    photograph,
    post,
    proof,
    visit,
    world,
} from "./browser.mjs";
import { addBittensorWallet, addEthereumWallet, alice, bob, carol, onCommandLine } from "./wallets.mjs";

after(close);

const { clients } = world;
const problem = (page) => page.locator("#problem");
const DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code";

/** Connects the wallet, and not the demonstration's key behind it. */
async function connect(page) {
    await page.locator("#wallets button").first().click();
    await page.locator("#account").waitFor();
}

async function signWithWallet(page) {
    await connect(page);
    await page.getByRole("button", { name: "Sign and allow" }).click();
}

const payload = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

test("an Ethereum wallet that announces itself signs in, and the application gets its tokens", async () => {
    const page = await visit(addEthereumWallet);
    const { verifier, challenge } = proof();
    await page.goto(authorizeUrl(clients.evm, { code_challenge: challenge, nonce: "n-1" }));
    await page.getByText("Choose your Ethereum wallet:").waitFor();
    assert.equal(await page.locator("#wallets button").first().innerText(), "Test Wallet");
    await connect(page);
    assert.equal(await page.evaluate(() => document.activeElement.id), "account");
    await photograph(page, "authorize-ethereum");
    await page.getByRole("button", { name: "Sign and allow" }).click();
    const answer = await atApplication(page);
    assert.equal(answer.get("state"), "a state & more");
    assert.equal(answer.get("iss"), ORIGIN);
    const { status, body } = await post("/v1/oauth/token", {
        grant_type: "authorization_code",
        code: answer.get("code"),
        client_id: clients.evm,
        redirect_uri: `${APPLICATION}/callback`,
        code_verifier: verifier,
    });
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(payload(body.id_token).sub, carol.address);
    assert.equal(payload(body.id_token).nonce, "n-1");
    await leave(page);
});

test("an Ethereum wallet of the old kind signs in", async () => {
    const page = await visit((context) => addEthereumWallet(context, { announced: false }));
    await page.goto(authorizeUrl(clients.evm));
    await signWithWallet(page);
    assert.ok((await atApplication(page)).get("code"));
    await leave(page);
});

/** What comes of a right signature of a Bittensor wallet: a code, or the page's word that the chain is away. */
async function signedIn(page) {
    if (world.chain) {
        assert.ok((await atApplication(page)).get("code"));
        return;
    }
    await problem(page).waitFor();
    const text = await problem(page).innerText();
    assert.match(text, /chain cannot be asked/u);
    assert.match(text, /Wait a moment, then try again/u);
}

test("a Bittensor wallet signs in with the account that is chosen", async () => {
    const page = await visit((context) => addBittensorWallet(context, [alice, bob]));
    await page.goto(authorizeUrl(clients.bittensor));
    await photograph(page, "authorize-bittensor");
    await connect(page);
    assert.equal(await page.locator("#account option").count(), 2);
    await page.locator("#account").selectOption({ label: `bob: ${bob.address}` });
    const asked = page.waitForRequest("**/v1/oauth/callback");
    await page.getByRole("button", { name: "Sign and allow" }).click();
    assert.equal((await asked).postDataJSON().address, bob.address);
    await signedIn(page);
    await leave(page);
});

test("what goes wrong in a wallet is told with what to do next", async () => {
    for (const [setUp, client, expected] of [
        [(context) => addBittensorWallet(context, [alice], { locked: true }), clients.bittensor, /allow this site/u],
        [(context) => addBittensorWallet(context, [alice], { refuses: true }), clients.bittensor, /Try again, or deny/u],
        [(context) => addBittensorWallet(context, []), clients.bittensor, /Make or import an account/u],
        [(context) => addEthereumWallet(context, { mood: { refuses: true } }), clients.evm, /Try again, or deny/u],
    ]) {
        const page = await visit(setUp);
        await page.goto(authorizeUrl(client));
        await page.locator("#wallets button").first().click();
        await page.locator("#problem:not([hidden]), #account:visible").first().waitFor();
        if (await page.locator("#account").isVisible()) await page.getByRole("button", { name: "Sign and allow" }).click();
        await problem(page).waitFor();
        assert.match(await problem(page).innerText(), expected);
        assert.equal(await page.evaluate(() => document.activeElement.id), "problem");
        await leave(page);
    }
});

test("without a wallet the page says how to get on", async () => {
    for (const [client, expected] of [
        [clients.bittensor, /Install one and load this page again, or sign on the command line/u],
        [clients.evm, /on a phone, open this page in the wallet’s own browser/u],
    ]) {
        const page = await visit();
        await page.goto(authorizeUrl(client));
        await page.getByText("No ").first().waitFor();
        assert.match(await page.locator("#wallets-hint").innerText(), expected);
        assert.equal(await page.locator("#on-command-line").isVisible(), client === clients.bittensor);
        await leave(page);
    }
});

test("on the command line: a command to copy, and a signature to paste", async () => {
    const page = await visit((context) => context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: ORIGIN }));
    await page.goto(authorizeUrl(clients.bittensor));
    await page.getByRole("button", { name: "Make the command" }).click();
    await page.getByText(/^Good for/u).waitFor();
    await photograph(page, "authorize-command-line");
    await page.getByRole("button", { name: "Copy the command" }).click();
    await page.getByText("Copied.").waitFor();
    const command = await page.evaluate(() => navigator.clipboard.readText());
    const message = unquoted(command, /^btcli wallet sign --message '(.*)'$/su);
    assert.match(message, /wants you to sign in with your Bittensor account/u);
    assert.ok(message.includes("Bob's"), message);
    const signature = onCommandLine(alice, message);
    await page.getByLabel("Signature that it prints").fill(` ${signature.slice(0, 40)}\n${signature.slice(40)} `);
    await page.getByLabel("Address of the key that signed").fill(` ${alice.address}\n`);
    await page.getByRole("button", { name: "Send and allow" }).click();
    await signedIn(page);
    await leave(page);
});

/** The message in a command, as a shell would read it. */
function unquoted(command, pattern) {
    const [, quoted] = pattern.exec(command) ?? assert.fail(command);
    return quoted.replaceAll("'\\''", "'");
}

test("for a scope of a hotkey the command names the hotkey, and so does the page", async () => {
    const page = await visit();
    await page.goto(authorizeUrl(clients.bittensor, { scope: "openid subnet:1:miner" }));
    await page.getByText("Sign with the hotkey").waitFor();
    await page.getByText("Miner on Subnet 1").waitFor();
    await page.getByRole("button", { name: "Make the command" }).click();
    await page.getByText(/^btcli wallet sign --use-hotkey --message '/u).waitFor();
    await page.goto(authorizeUrl(clients.bittensor, { scope: "openid tao:holder" }));
    await page.getByText("Sign with your coldkey").waitFor();
    await leave(page);
});

test("a wrong signature is refused, and the next try needs a new command", async () => {
    const page = await visit();
    await page.goto(authorizeUrl(clients.bittensor));
    await page.getByRole("button", { name: "Make the command" }).click();
    await page.getByLabel("Signature that it prints").fill(`0x${"00".repeat(64)}`);
    await page.getByRole("button", { name: "Send and allow" }).click();
    await problem(page).getByText("The address is missing.").waitFor();
    await page.getByLabel("Address of the key that signed").fill(alice.address);
    await page.getByRole("button", { name: "Send and allow" }).click();
    await problem(page).getByText("Invalid signature").waitFor();
    await photograph(page, "authorize-problem");
    await page.getByRole("button", { name: "Send and allow" }).click();
    await problem(page).getByText("Make a new one").waitFor();
    const again = page.getByRole("button", { name: "Make a new command" });
    await again.click();
    await page.getByText("The command is ready.").waitFor();
    assert.equal(await problem(page).isVisible(), false);
    await leave(page);
});

test("deny tells the application, and ends the session", async () => {
    const page = await visit(addEthereumWallet);
    const url = authorizeUrl(clients.evm);
    await page.goto(url);
    await page.getByRole("link", { name: "Deny and go back" }).click();
    const answer = await atApplication(page);
    assert.deepEqual(
        [answer.get("error"), answer.get("state"), answer.get("iss"), answer.get("code")],
        ["access_denied", "a state & more", ORIGIN, null],
    );
    await leave(page);
});

test("without script the page still says who asks, and deny works", async () => {
    const page = await visit(undefined, { javaScriptEnabled: false });
    await page.goto(authorizeUrl(clients.evm));
    await page.getByRole("heading", { name: "Sign in to" }).waitFor();
    assert.match(await page.locator("noscript").innerText(), /Switch it on for this page/u);
    await page.getByRole("link", { name: "Deny and go back" }).click();
    assert.equal((await atApplication(page)).get("error"), "access_denied");
    await leave(page);
});

test("all of it can be done with a keyboard, and one sees where one is", async () => {
    const page = await visit(addEthereumWallet);
    await page.goto(authorizeUrl(clients.evm));
    await page.locator("#wallets button").first().waitFor();
    const focused = () =>
        page.evaluate(() => {
            const { activeElement: now } = document;
            const { outlineStyle, outlineWidth } = getComputedStyle(now);
            return { name: now.id || now.textContent.trim(), seen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 };
        });
    const order = [];
    for (let steps = 0; steps < 10; steps += 1) {
        await page.keyboard.press("Tab");
        const { name, seen } = await focused();
        if (name === "deny" || order.includes(name)) {
            order.push(name);
            break;
        }
        assert.ok(seen, `${name} does not show that it has the focus`);
        order.push(name);
    }
    assert.deepEqual(order, ["Test Wallet", "Throw-away development key", "deny"]);
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Enter");
    await page.locator("#account").waitFor();
    await page.keyboard.press("Tab");
    assert.deepEqual(await focused(), { name: "sign", seen: true });
    await page.keyboard.press("Enter");
    assert.ok((await atApplication(page)).get("code"));
    await leave(page);
});

test("who wants less motion gets none", async () => {
    const page = await visit(undefined, { reducedMotion: "reduce" });
    await page.goto(authorizeUrl(clients.evm));
    const moving = await page.evaluate(() =>
        [...document.querySelectorAll("*")].filter((element) => {
            const { transitionDuration, animationName } = getComputedStyle(element);
            return transitionDuration !== "0s" || animationName !== "none";
        }).length,
    );
    assert.equal(moving, 0);
    await leave(page);
});

/** A device begins. */
async function device(client) {
    const { status, body } = await post("/v1/device/code", { client_id: client, scope: "openid" });
    assert.equal(status, 200, JSON.stringify(body));
    return body;
}

const poll = (client, { device_code }) =>
    post("/v1/oauth/token", { grant_type: DEVICE_GRANT, client_id: client, device_code });

test("a device is connected by its link", async () => {
    const page = await visit(addEthereumWallet);
    const asked = await device(clients.evm);
    await page.goto(asked.verification_uri_complete);
    await page.getByRole("heading", { name: "Who asks" }).waitFor();
    assert.match(await page.locator("#who-asks").innerText(), /^EVM <Application> asks/u);
    assert.equal(await page.locator("#shown-code").innerText(), asked.user_code);
    await photograph(page, "device-asks");
    await signWithWallet(page);
    await page.getByRole("heading", { name: "The device is connected" }).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.id), "done");
    await photograph(page, "device-done");
    const { status, body } = await poll(clients.evm, asked);
    assert.equal(status, 200, JSON.stringify(body));
    assert.equal(payload(body.access_token).sub, carol.address);
    await leave(page);
});

test("a device's code can be typed as one likes, and denied", async () => {
    const page = await visit();
    const asked = await device(clients.bittensor);
    await page.goto(`${ORIGIN}/v1/device/verify`);
    await photograph(page, "device-code");
    const code = page.getByLabel("Code", { exact: true });
    const go = page.getByRole("button", { name: "Continue" });
    for (const [typed, expected] of [
        ["ABC", /Enter the four letters and four digits/u],
        ["ZZZZ-0000", /start again on the device/u],
    ]) {
        await code.fill(typed);
        await go.click();
        await page.locator("#code-problem").waitFor();
        assert.match(await page.locator("#code-problem").innerText(), expected);
        assert.equal(await code.getAttribute("aria-invalid"), "true");
    }
    await photograph(page, "device-problem");
    await code.fill(asked.user_code.replace("-", " ").toLowerCase());
    await go.click();
    await page.getByText("any Bittensor account").waitFor();
    await page.getByRole("button", { name: "Deny" }).click();
    await page.getByRole("heading", { name: "Denied" }).waitFor();
    const { status, body } = await poll(clients.bittensor, asked);
    assert.deepEqual([status, body.error], [400, "access_denied"]);
    await leave(page);
});

test("on the device page a Bittensor wallet signs too", async () => {
    const page = await visit((context) => addBittensorWallet(context));
    const asked = await device(clients.bittensor);
    await page.goto(asked.verification_uri_complete);
    await signWithWallet(page);
    if (world.chain) await page.getByRole("heading", { name: "The device is connected" }).waitFor();
    else await signedIn(page);
    await leave(page);
});

test("the demonstration signs in, checks the tokens, keeps them in the page, and forgets them", async () => {
    const page = await visit(addEthereumWallet);
    await page.goto(`${ORIGIN}/`);
    await photograph(page, "landing");
    await page.getByLabel("Ethereum", { exact: true }).check();
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Sign in to Demo EVM Web App" }).waitFor();
    await signWithWallet(page);
    await page.getByRole("heading", { name: "You are signed in" }).waitFor();
    await page.getByText("Signature and claims of the ID token are right.").waitFor();
    assert.ok((await page.locator("#who").innerText()).includes(carol.address));
    assert.equal(page.url(), `${ORIGIN}/`);
    await photograph(page, "landing-signed-in");
    const kept = await page.evaluate(() => [sessionStorage.length, localStorage.length]);
    assert.deepEqual(kept, [0, 0]);
    await page.getByRole("button", { name: "Forget the tokens" }).click();
    await page.getByText("Forgotten.").waitFor();
    assert.equal(await page.locator("#access-token").textContent(), "");
    await leave(page);
});

test("without any wallet the demonstration signs in with a key that the page says is thrown away", async () => {
    const page = await visit();
    await page.goto(`${ORIGIN}/`);
    await page.getByLabel("Ethereum", { exact: true }).check();
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("The development key is a throw-away key").waitFor();
    await photograph(page, "authorize-development-key");
    await page.getByRole("button", { name: "Throw-away development key" }).click();
    await page.getByRole("button", { name: "Sign and allow" }).click();
    await page.getByRole("heading", { name: "You are signed in" }).waitFor();
    await leave(page);
});

test("the demonstration takes no for an answer, and no answer to somebody else's question", async () => {
    const page = await visit();
    await page.goto(`${ORIGIN}/`);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("link", { name: "Deny and go back" }).click();
    await problem(page).getByText("You have denied it.").waitFor();
    await page.goto(`${ORIGIN}/?code=stolen&state=x`);
    await problem(page).getByText("belongs to no sign-in of this page").waitFor();
    await page.getByLabel("What to ask for").fill("nonsense");
    await page.getByRole("button", { name: "Sign in" }).click();
    await problem(page).getByText("Invalid scope format: nonsense").waitFor();
    await leave(page);
});

test("failures say what to do next", async () => {
    const page = await visit();
    for (const [name, url, expected] of [
        ["unknown", authorizeUrl("nobody"), /not registered/u],
        ["redirect", authorizeUrl(clients.evm, { redirect_uri: "https://evil.example/" }), /not registered/u],
        ["nothing", `${ORIGIN}/nothing`, /no page/u],
    ]) {
        await page.goto(url);
        assert.match(await page.locator("#failure").innerText(), expected);
        assert.ok((await page.locator("#next").innerText()).length > 30);
        if (name === "unknown") await photograph(page, "failure");
        else await check(page, name);
    }
    await leave(page);
});

test("a session that is over says so, and where to begin again", async () => {
    const page = await visit(addEthereumWallet);
    await page.goto(authorizeUrl(clients.evm));
    await page.locator("#wallets button").first().waitFor();
    // Another browser has no cookie of ours.
    await page.context().clearCookies();
    await signWithWallet(page);
    await problem(page).waitFor();
    assert.match(await problem(page).innerText(), /go back to EVM <Application> and start the sign-in again/u);
    await leave(page);
});

test("what strangers write is text and nothing else", async () => {
    const nasty = `"'></script><script>alert(1)</script><img src=x onerror=alert(2)>`;
    const page = await visit(addEthereumWallet);
    await page.goto(authorizeUrl(clients.nasty, { state: nasty }));
    const heading = await page.getByRole("heading", { level: 1 }).innerText();
    assert.equal(heading, `Sign in to ${nasty}`);
    assert.equal(await page.locator("img[src=x], main script").count(), 0);
    await check(page, "a nasty name");
    await signWithWallet(page);
    assert.equal((await atApplication(page)).get("state"), nasty);

    await page.goto(`${ORIGIN}/v1/device/verify?user_code=${encodeURIComponent(nasty)}`);
    await page.locator("#code-problem").waitFor();
    const asked = await device(clients.nasty);
    await page.goto(asked.verification_uri_complete);
    await page.getByRole("heading", { name: "Who asks" }).waitFor();
    assert.ok((await page.locator("#who-asks").innerText()).startsWith(nasty));
    await page.goto(authorizeUrl(nasty));
    await page.getByRole("heading", { name: "What to do next" }).waitFor();
    await leave(page);
});

test("the policy lets no script in that is not ours", async () => {
    const page = await visit();
    await page.goto(authorizeUrl(clients.evm));
    await page.evaluate(() => {
        const script = document.createElement("script");
        script.textContent = "window.intruder = true";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "https://evil.example/x.png";
        document.body.append(image);
    });
    assert.equal(await page.evaluate(() => window.intruder), undefined);
    await assert.rejects(page.evaluate(() => fetch("https://evil.example/")));
    const refused = page.complaints.filter((text) => /Content Security Policy/u.test(text));
    assert.ok(refused.length >= 3, page.complaints.join("\n"));
    await page.context().close();
});
