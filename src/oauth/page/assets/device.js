// The device page: which device, what it asks for, a signature for it.

import { action, ask, element, Problem, say } from "./page.js";
import { offer } from "./sign.js";

const form = element("code-form");
const field = element("user-code");
const problems = element("code-problem");
let code = "";

/** Letters and digits with the dash where it belongs, however they were typed. */
function typed() {
    const bare = field.value.toUpperCase().replace(/[^A-Z0-9]/gu, "");
    return bare.length > 4 ? `${bare.slice(0, 4)}-${bare.slice(4)}` : bare;
}

async function look() {
    code = typed();
    field.value = code;
    field.setAttribute("aria-invalid", "false");
    const wrong = (message, next) => {
        field.setAttribute("aria-invalid", "true");
        return new Problem(message, next);
    };
    if (!/^[A-Z]{4}-\d{4}$/u.test(code)) {
        throw wrong("This is not a code.", "Enter the four letters and four digits that the device shows.");
    }
    let asked;
    try {
        asked = await ask(`/v1/device/scopes?user_code=${encodeURIComponent(code)}`);
    } catch (problem) {
        if (problem.status !== 404) throw problem;
        throw wrong(
            "No device waits with this code.",
            "Compare it with what the device shows. Codes expire: if it fits, start again on the device.",
        );
    }
    show(asked);
}

function show(asked) {
    const name = document.createElement("strong");
    name.className = "who";
    name.textContent = asked.client_name || "A program without a name";
    element("who-asks").replaceChildren(name, " asks you to prove something about your wallet, for a device that shows this code.");
    element("shown-code").textContent = code;
    const lines = asked.scopes.map((scope, index) => {
        const text = document.createElement("code");
        text.textContent = scope;
        const meaning = scope === "openid" ? "Your sign-in, as a signed statement" : asked.descriptions[index];
        return line(`${meaning} `, text);
    });
    element("scopes").replaceChildren(line("The address of the account that you sign with"), ...lines);
    const key = asked.sign_method === "evm" ? "evm" : (asked.signing_key ?? "any");
    for (const text of document.querySelectorAll("[data-key]")) text.hidden = text.dataset.key !== key;
    form.hidden = true;
    element("sign-in").hidden = false;
    offer({
        wallet: asked.sign_method,
        key,
        challenge: (address) => withCode("/v1/device/approve", { address }),
        finish: async (signed) => {
            await withCode("/v1/device/confirm", signed);
            end("The device is connected", "You can close this page and go back to the device. It goes on within a few seconds.");
        },
    });
    element("asks").focus();
}

function line(...parts) {
    const item = document.createElement("li");
    item.append(...parts);
    return item;
}

async function withCode(path, body) {
    try {
        return await ask(path, { user_code: code, ...body });
    } catch (problem) {
        if (problem.status !== 404 && problem.status !== 409) throw problem;
        throw new Problem("The code has expired or been used.", "Start again on the device, and enter its new code here.");
    }
}

function end(title, text) {
    say("");
    const heading = document.createElement("h2");
    heading.textContent = title;
    const next = document.createElement("p");
    next.textContent = text;
    const done = element("done");
    done.replaceChildren(heading, next);
    done.hidden = false;
    element("sign-in").hidden = true;
    done.focus();
}

form.addEventListener("submit", action(form.querySelector("button"), look, problems));
const deny = element("deny");
deny.addEventListener(
    "click",
    action(deny, async () => {
        await withCode("/v1/device/deny", {});
        end("Denied", "The device will be told. You can close this page.");
    }),
);

// From a link with the code in it: shown at once, and still to be compared with the device.
if (field.value !== "") form.requestSubmit();
