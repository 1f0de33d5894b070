// Both ways to sign, in the browser and on the command line: the part that all sign-ins have in common.

import * as bittensor from "./bittensor.js";
import { action, element, Problem, say, tell, wireCopies } from "./page.js";
import * as ethereum from "./ethereum.js";

/** What a challenge lasts where the server does not say. */
const DEFAULT_SECONDS = 120;

/**
 * Lets the user sign.
 *
 * `wallet`: `sr25519` or `evm`; `key`: which key is wanted; `challenge(address)`: gets `{ nonce, expires_in }`, the text to
 * be signed; `finish({ nonce, address, signature })`: hands the signature in.
 */
export function offer({ wallet, key, challenge, finish }) {
    offerWallets(wallet === "evm" ? ethereum : bittensor, wallet, challenge, finish);
    const commands = element("on-command-line");
    commands.hidden = wallet === "evm";
    if (!commands.hidden) offerCommand(key, challenge, finish);
    wireCopies();
}

function offerWallets(kind, wallet, challenge, finish) {
    let shown = "";
    let accounts = [];
    const list = element("wallets");
    const form = element("account-form");

    const show = () => {
        const found = kind.wallets();
        const now = JSON.stringify(found.map(({ id, name }) => [id, name]));
        const real = found.filter(({ id }) => id !== ethereum.THROWAWAY).length;
        element("wallets-hint").textContent = hint(real, wallet);
        const note = element("throwaway-note");
        if (note) note.hidden = real === found.length;
        const banner = element("get-wallet");
        if (banner) banner.hidden = real > 0 || wallet === "evm";
        // What has the focus is not taken away without need.
        if (now === shown) return;
        shown = now;
        list.replaceChildren(...found.map(entry));
    };

    const entry = (found) => {
        const button = document.createElement("button");
        button.type = "button";
        if (found.icon) {
            const icon = document.createElement("img");
            icon.src = found.icon;
            icon.alt = "";
            icon.width = icon.height = 28;
            button.append(icon);
        }
        const name = document.createElement("span");
        name.className = "who";
        name.textContent = found.name;
        button.append(name);
        button.addEventListener("click", action(button, () => choose(found)));
        const item = document.createElement("li");
        item.append(button);
        return item;
    };

    const choose = async (found) => {
        say(`Waiting for ${found.name}. Answer in the wallet.`);
        accounts = await found.connect();
        element("account").replaceChildren(
            ...accounts.map(({ address, name }, index) => new Option(name ? `${name}: ${address}` : address, String(index))),
        );
        form.hidden = false;
        say(accounts.length === 1 ? "One account. Sign with it?" : `${accounts.length} accounts. Choose one.`);
        element("account").focus();
    };

    const sign = async () => {
        const account = accounts[Number(element("account").value)];
        say("Getting the message…");
        const { nonce } = await challenge(account.address);
        say("Waiting for your signature. Read the message in the wallet, and sign it there.");
        const signature = await account.sign(nonce);
        say("Checking the signature…");
        await finish({ nonce, address: account.address, signature });
    };

    form.addEventListener("submit", action(element("sign"), sign));
    kind.watch(show);
    show();
}

function hint(count, wallet) {
    const kind = wallet === "evm" ? "Ethereum" : "Bittensor";
    if (count > 0) return `Choose your ${kind} wallet:`;
    return wallet === "evm"
        ? `No ${kind} wallet is to be seen here. Install one and load this page again; on a phone, open this page in the wallet’s own browser.`
        : `No ${kind} wallet is to be seen here. Install one and load this page again, or sign on the command line.`;
}

function offerCommand(key, challenge, finish) {
    const make = element("make-command");
    const send = element("send-signature");
    let message = null;
    let clock = 0;

    const expire = () => {
        clearInterval(clock);
        message = null;
        element("command-time").textContent = "";
    };

    const begin = async () => {
        say("Getting the message…");
        const { nonce, expires_in: seconds = DEFAULT_SECONDS } = await challenge();
        expire();
        message = nonce;
        const hotkey = key === "hotkey" ? " --use-hotkey" : "";
        element("command").textContent = `btcli wallet sign${hotkey} --message ${quoted(nonce)}`;
        element("command-note").textContent = hotkey
            ? "It asks for the wallet’s name and signs with its hotkey; add -H and a name for another hotkey than “default”."
            : "It asks for the wallet’s name, and for the password of its key.";
        element("command-steps").hidden = false;
        make.textContent = "Make a new command";
        const ends = Date.now() + seconds * 1000;
        const tick = () => {
            const left = Math.ceil((ends - Date.now()) / 1000);
            if (left <= 0) {
                expire();
                tell(new Problem("The command has expired.", "Make a new one, and sign it a little sooner."));
                return;
            }
            const rest = String(left % 60).padStart(2, "0");
            element("command-time").textContent = `Good for ${Math.floor(left / 60)}:${rest} more.`;
        };
        clock = setInterval(tick, 1000);
        tick();
        say("The command is ready.");
        element("command").focus();
    };

    const hand = async () => {
        if (message === null) {
            throw new Problem("The command has expired or been used.", "Make a new one, run it, and enter what it prints.");
        }
        const signature = bare("signature");
        const address = bare("address");
        for (const [id, value, what] of [
            ["signature", signature, "The signature is missing."],
            ["address", address, "The address is missing."],
        ]) {
            element(id).setAttribute("aria-invalid", String(value === ""));
            if (value === "") throw new Problem(what, "Enter both lines that the command prints.");
        }
        say("Checking the signature…");
        const nonce = message;
        try {
            await finish({ nonce, address, signature });
        } catch (problem) {
            // A challenge is good for one try: of a used one the server knows nothing more.
            if (problem.status === 401) expire();
            throw problem.status === 401
                ? new Problem(problem.message, "Make a new command, run it, and enter the new signature with the address of the key.")
                : problem;
        }
    };

    make.addEventListener("click", action(make, begin));
    element("command-form").addEventListener("submit", action(send, hand));
}

/** What was entered, without the blanks and line ends of a terminal. */
const bare = (id) => element(id).value.replace(/\s/gu, "");

/** A word for a shell: everything means itself between single quotes, but they themselves. */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
