// Bittensor wallets in the browser: extensions with the interface of the polkadot{.js} extension, which announce themselves
// in `window.injectedWeb3`.

import { Problem } from "./page.js";

const NAMES = new Map([
    ["bittensor-wallet", "Bittensor Wallet"],
    ["fearless-wallet", "Fearless Wallet"],
    ["nova-wallet", "Nova Wallet"],
    ["polkadot-js", "polkadot{.js}"],
    ["subwallet-js", "SubWallet"],
    ["talisman", "Talisman"],
    ["taostats-wallet", "Taostats Wallet"],
]);

/** Wallets that are there by now. */
export function wallets() {
    return Object.entries(window.injectedWeb3 ?? {}).map(([id, provider]) => ({
        id,
        name: NAMES.get(id) ?? id,
        icon: null,
        connect: () => connect(provider),
    }));
}

/** Calls `changed` when there may be more. There is no event for it: extensions are there from the beginning or soon. */
export function watch(changed) {
    for (const delay of [200, 1000, 3000]) setTimeout(changed, delay);
    window.addEventListener("focus", changed);
}

async function connect(provider) {
    let extension;
    try {
        extension = await provider.enable("Tollgate");
    } catch {
        throw new Problem(
            "The wallet has not let this page in.",
            "Open the wallet’s settings, allow this site, and try again; or sign on the command line.",
        );
    }
    const known = await extension.accounts.get();
    // Accounts of other chains' kinds cannot sign here.
    const accounts = known.filter(({ type }) => type === undefined || ["sr25519", "ed25519", "ecdsa"].includes(type));
    if (accounts.length === 0) {
        throw new Problem(
            "The wallet shows this page no account.",
            "Make or import an account in the wallet, allow this site to see it, and try again.",
        );
    }
    return accounts.map(({ address, name }) => ({
        address,
        name: name ?? "",
        sign: (message) => sign(extension, address, message),
    }));
}

async function sign(extension, address, message) {
    if (typeof extension.signer?.signRaw !== "function") {
        throw new Problem("This wallet cannot sign texts.", "Use another wallet, or sign on the command line.");
    }
    try {
        const { signature } = await extension.signer.signRaw({ address, data: message, type: "bytes" });
        return signature;
    } catch {
        throw new Problem("The wallet has not signed.", "Nothing has happened. Try again, or deny.");
    }
}
