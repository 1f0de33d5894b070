// The examples that are programs: the command line gets a token with the help of a browser, the resource server takes it, and
// nothing else.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";

import { approve } from "../clients/user.mjs";
import { altered, close, examples, issuer, open, part, signWithThrowawayKey, state } from "./world.mjs";

const API = "http://localhost:8407/";
const CLIENT = "example-cli";

const running = [];
after(async () => {
    running.forEach((program) => program.kill());
    await close();
});

/** Starts the command line. */
function login(home) {
    const program = spawn("python3", [path.join(examples, "device-cli", "login.py"), issuer], {
        env: { PATH: process.env.PATH, HOME: home, PYTHONDONTWRITEBYTECODE: "1" },
        stdio: ["ignore", "pipe", "pipe"],
    });
    running.push(program);
    const [out, err] = [program.stdout, program.stderr].map((stream) => stream.setEncoding("utf8"));
    const ended = Promise.all([text(out), new Promise((resolve) => program.on("close", resolve))]);
    return { err, ended: async () => ({ out: (await ended)[0], code: (await ended)[1] }) };
}

async function text(stream) {
    let all = "";
    for await (const chunk of stream) all += chunk;
    return all;
}

/** The link in what it says to people. */
async function link(err) {
    for await (const line of createInterface({ input: err })) {
        const found = /(http\S*user_code=\S*)$/u.exec(line);
        if (found) return found[1];
    }
    return assert.fail("it has shown no link");
}

async function post(route, form) {
    const answer = await fetch(`${issuer}${route}`, { method: "POST", body: new URLSearchParams(form) });
    const body = await answer.text();
    assert.equal(answer.status, 200, body);
    return body === "" ? null : JSON.parse(body);
}

test("the command line", async (t) => {
    const home = mkdtempSync(path.join(state, "home-"));
    const kept = path.join(home, ".local/state/tollgate-example/refresh-token");
    const page = await open();
    let first;

    await t.test("signs in with the help of a browser, and keeps the refresh token for its user alone", async () => {
        const program = login(home);
        await page.goto(await link(program.err));
        await page.getByText("Example CLI").first().waitFor();
        await signWithThrowawayKey(page);
        await page.getByRole("heading", { name: "The device is connected" }).waitFor();
        const { out, code } = await program.ended();
        assert.equal(code, 0);
        first = part(out, 1);
        assert.deepEqual([first.iss, first.aud, first.client_id, first.scope], [issuer, API, CLIENT, "openid"]);
        assert.equal(statSync(kept).mode & 0o777, 0o600);
        assert.match(readFileSync(kept, "utf8"), /^tgr_/u);
    });

    await t.test("does not ask again", async () => {
        const before = readFileSync(kept, "utf8");
        const { out, code } = await login(home).ended();
        assert.equal(code, 0);
        assert.deepEqual([part(out, 1).sub, part(out, 1).jti === first.jti], [first.sub, false]);
        assert.notEqual(readFileSync(kept, "utf8"), before, "each is good for one use");
    });

    await t.test("asks again once the sign-in was taken back, and says that it was denied", async () => {
        await post("/v1/oauth/revoke", { client_id: CLIENT, token: readFileSync(kept, "utf8") });
        const program = login(home);
        await page.goto(await link(program.err));
        await page.getByRole("button", { name: "Deny" }).click();
        await page.getByRole("heading", { name: "Denied" }).waitFor();
        const { out, code } = await program.ended();
        assert.deepEqual([out, code], ["", 1]);
    });
    assert.deepEqual(page.failures, []);
});

/** All tokens of a sign-in with the command line's client. */
async function tokens(more = {}) {
    const device = await post("/v1/device/code", { client_id: CLIENT, scope: "openid", ...more });
    await approve(device.verification_uri_complete);
    return post("/v1/oauth/token", {
        grant_type: "urn:ietf:params:oauth:grant-type:device_code",
        client_id: CLIENT,
        device_code: device.device_code,
    });
}

/** Starts the resource server, and says how to ask it. */
async function resourceServer(settings = {}) {
    const program = spawn(process.execPath, [path.join(examples, "resource-server", "server.mjs")], {
        env: { PATH: process.env.PATH, ISSUER: issuer, PORT: "0", ...settings },
        stdio: ["ignore", "pipe", "inherit"],
    });
    running.push(program);
    for await (const line of createInterface({ input: program.stdout })) {
        const [, address] = /^listening on (\S+)$/u.exec(line) ?? assert.fail(line);
        return async (authorization, query = "") => {
            const headers = authorization === undefined ? {} : { Authorization: authorization };
            const answer = await fetch(`${address}${query}`, { headers });
            const challenge = answer.headers.get("WWW-Authenticate");
            return { status: answer.status, challenge, body: await answer.json(), retry: answer.headers.get("Retry-After") };
        };
    }
    return assert.fail("the resource server has ended");
}

const refused = ({ status, challenge }) => [status, /error="([^"]*)"/u.exec(challenge)?.[1]];

test("the resource server", async (t) => {
    const own = await tokens({ resource: API });
    const ask = await resourceServer();

    await t.test("serves whoever has a token for it", async () => {
        const { status, body } = await ask(`Bearer ${own.access_token}`);
        const { sub } = part(own.access_token, 1);
        assert.deepEqual([status, body], [200, { hello: sub, signer_type: "evm", scope: "openid" }]);
        assert.equal((await ask(`bearer ${own.access_token}`)).status, 200, "schemes are not case-sensitive");
    });

    await t.test("asks whoever has none for one, and says no more", async () => {
        for (const nothing of [undefined, "", "Bearer", "Basic eDp5", `Bearer ${own.access_token} x`]) {
            assert.deepEqual(refused(await ask(nothing)), [401, undefined], nothing);
        }
        assert.deepEqual(refused(await ask(undefined, `?access_token=${own.access_token}`)), [401, undefined]);
    });

    await t.test("takes no other token for one", async () => {
        const everybodys = await tokens();
        const [head, body] = own.access_token.split(".");
        for (const [what, token] of Object.entries({
            "an ID token": own.id_token,
            "a refresh token": own.refresh_token,
            "one for others": everybodys.access_token,
            "one with another header": altered(own.access_token, { typ: "JWT" }, {}),
            "one that is longer good": altered(own.access_token, {}, { exp: 9_999_999_999 }),
            "one without a signature": `${head}.${body}.`,
            "one that wants none": `${altered(own.access_token, { alg: "none" }, {}).split(".").slice(0, 2).join(".")}.`,
            "one of an unknown key": altered(own.access_token, { kid: "x" }, {}),
            nonsense: "nonsense",
        })) {
            assert.deepEqual(refused(await ask(`Bearer ${token}`)), [401, "invalid_token"], what);
        }
    });

    await t.test("asks for whom the token is, whose it is and what it may", async () => {
        for (const [settings, expected] of [
            [{ AUDIENCE: "http://localhost:8407" }, [401, "invalid_token"]],
            [{ CLIENTS: "example-web,another" }, [401, "invalid_token"]],
            [{ SCOPE: "subnet:1:miner" }, [403, "insufficient_scope"]],
        ]) {
            const strict = await resourceServer(settings);
            assert.deepEqual(refused(await strict(`Bearer ${own.access_token}`)), expected, JSON.stringify(settings));
        }
    });

    await t.test("blames no token while there are no keys to check it with", async () => {
        const broken = createServer((request, response) => {
            const metadata = request.url.startsWith("/.well-known/oauth-authorization-server");
            response.writeHead(metadata ? 200 : 500, { "Content-Type": "application/json" });
            const here = `http://127.0.0.1:${broken.address().port}`;
            response.end(metadata ? JSON.stringify({ issuer: here, jwks_uri: `${here}/keys` }) : "{}");
        });
        await new Promise((resolve) => broken.listen(0, "127.0.0.1", resolve));
        try {
            const lost = await resourceServer({ ISSUER: `http://127.0.0.1:${broken.address().port}` });
            const { status, challenge, retry } = await lost(`Bearer ${own.access_token}`);
            assert.deepEqual([status, challenge, retry], [503, null, "5"]);
        } finally {
            broken.closeAllConnections();
            broken.close();
        }
    });
});
