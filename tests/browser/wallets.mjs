// Wallets for the tests: what a page sees is an extension's interface, and the signatures are real.

import { Keyring } from "@polkadot/keyring";
import { stringToU8a, u8aConcat, u8aToHex } from "@polkadot/util";
import { cryptoWaitReady } from "@polkadot/util-crypto";

import { carol } from "./ethereum.mjs";

export { carol };

await cryptoWaitReady();

const keyring = new Keyring({ type: "sr25519", ss58Format: 42 });
export const alice = keyring.addFromUri("//Alice", { name: "alice" });
export const bob = keyring.addFromUri("//Bob", { name: "bob" });

/** What a command line prints: the signature over the message itself. */
export const onCommandLine = (pair, message) => u8aToHex(pair.sign(stringToU8a(message)));

/** An extension that holds these accounts and signs between `<Bytes>` and `</Bytes>`, as all of them do. */
export async function addBittensorWallet(context, accounts = [alice], mood = {}) {
    await context.exposeBinding("testSignRaw", (_, { address, data, type }) => {
        const pair = accounts.find((pair) => pair.address === address);
        if (!pair || type !== "bytes") throw new Error("Cancelled");
        const wrapped = u8aConcat("<Bytes>", stringToU8a(data), "</Bytes>");
        return u8aToHex(pair.sign(wrapped));
    });
    const known = accounts.map(({ address, meta }) => ({ address, name: meta.name, type: "sr25519" }));
    await context.addInitScript(
        ({ known, mood }) => {
            const signer = {
                signRaw: async (payload) => {
                    if (mood.refuses) throw new Error("Cancelled");
                    return { id: 1, signature: await window.testSignRaw(payload) };
                },
            };
            const enable = async () => {
                if (mood.locked) throw new Error("not allowed");
                return { name: "test-wallet", version: "1.0.0", accounts: { get: async () => known }, signer };
            };
            window.injectedWeb3 = { "polkadot-js": { version: "1.0.0", enable } };
        },
        { known, mood },
    );
}

const ICON =
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Ccircle cx='4' cy='4' r='4' fill='%23e07b39'/%3E%3C/svg%3E";

/** An Ethereum wallet, that announces itself, or that is just there. */
export async function addEthereumWallet(context, { announced = true, mood = {} } = {}) {
    await context.exposeBinding("testRequest", async (_, { method, params }) => {
        switch (method) {
            case "eth_requestAccounts":
                return [carol.address.toLowerCase()];
            case "personal_sign":
                return carol.signMessage({ message: { raw: params[0] } });
            default:
                throw new Error(`no such method: ${method}`);
        }
    });
    await context.addInitScript(
        ({ announced, mood, icon }) => {
            const provider = {
                request: async ({ method, params }) => {
                    if (mood.refuses && method === "personal_sign") throw Object.assign(new Error("no"), { code: 4001 });
                    return window.testRequest({ method, params });
                },
            };
            if (!announced) {
                window.ethereum = provider;
                return;
            }
            const info = { uuid: "6f3a2b9e-0000-4000-8000-000000000001", name: "Test Wallet", icon, rdns: "test.wallet" };
            const announce = () =>
                window.dispatchEvent(
                    new CustomEvent("eip6963:announceProvider", { detail: Object.freeze({ info, provider }) }),
                );
            window.addEventListener("eip6963:requestProvider", announce);
            announce();
        },
        { announced, mood, icon: ICON },
    );
}
