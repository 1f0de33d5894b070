// Ethereum wallets in the browser: those that announce themselves (EIP-6963), else the one in `window.ethereum` (EIP-1193).

import { ask, Problem } from "./page.js";

const announced = new Map();

/** The id of the demonstration's key among wallets. */
export const THROWAWAY = "throwaway";

/** Wallets that are there by now. */
export function wallets() {
    return [...installed(), ...throwaway()];
}

function installed() {
    if (announced.size > 0) return [...announced.values()];
    const provider = window.ethereum;
    return provider ? [{ id: "injected", name: "Browser wallet", icon: null, connect: () => connect(provider) }] : [];
}

/** In a demonstration: a key that the server has, and that is nobody's. */
function throwaway() {
    const address = document.body.dataset.throwaway;
    if (address === undefined) return [];
    const sign = async (message) => (await ask("/v1/demo/sign", { message })).signature;
    const connect = async () => [{ address, name: "Development key", sign }];
    return [{ id: THROWAWAY, name: "Throw-away development key", icon: null, connect }];
}

/** Calls `changed` when there are more. */
export function watch(changed) {
    window.addEventListener("eip6963:announceProvider", ({ detail }) => {
        const { info, provider } = detail ?? {};
        if (typeof info?.uuid !== "string" || typeof provider?.request !== "function") return;
        // Anything else would be fetched from elsewhere; the policy of this page forbids that as well.
        const icon = typeof info.icon === "string" && info.icon.startsWith("data:image/") ? info.icon : null;
        const wallet = { id: info.uuid, name: String(info.name), icon, connect: () => connect(provider) };
        announced.set(info.uuid, wallet);
        changed();
    });
    window.dispatchEvent(new Event("eip6963:requestProvider"));
    window.addEventListener("ethereum#initialized", changed, { once: true });
    setTimeout(changed, 1000);
}

async function connect(provider) {
    const addresses = await request(provider, "eth_requestAccounts", []);
    if (!Array.isArray(addresses) || addresses.length === 0) {
        throw new Problem("The wallet shows this page no account.", "Unlock the wallet, allow this site, and try again.");
    }
    return addresses.map((address) => ({
        address,
        name: "",
        sign: (message) => request(provider, "personal_sign", [hex(message), address]),
    }));
}

async function request(provider, method, params) {
    try {
        return await provider.request({ method, params });
    } catch (error) {
        switch (error?.code) {
            case 4001:
                throw new Problem("You have refused in the wallet.", "Nothing has happened. Try again, or deny.");
            case -32002:
                throw new Problem("The wallet is asking already.", "Open the wallet, answer there, and try again.");
            default:
                throw new Problem("The wallet has failed.", "Unlock it, then try again; or use another wallet.");
        }
    }
}

/** The bytes that are signed, as the interface wants them. */
function hex(text) {
    const bytes = new TextEncoder().encode(text);
    return "0x" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
