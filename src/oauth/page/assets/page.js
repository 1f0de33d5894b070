// What every page needs: finding elements, asking the server, telling the user.

/** The element of this id, which the template has. */
export const element = (id) => document.getElementById(id);

/** Where our endpoints are. */
export const at = (path) => (document.body.dataset.base ?? "") + path;

/** Something went wrong, and `next` is what the user can do about it. */
export class Problem extends Error {
    constructor(message, next, options = {}) {
        super(message);
        this.next = next;
        this.status = options.status ?? 0;
    }
}

/** What is going on, for eyes and screen readers. */
export function say(text) {
    element("status").textContent = text;
}

/** Shows what went wrong, and moves the focus there, since what was focused may be of no use now. */
export function tell(problem, box = element("problem")) {
    const known = problem instanceof Problem;
    const what = document.createElement("p");
    const next = document.createElement("p");
    const strong = document.createElement("strong");
    strong.textContent = known ? problem.message : "Something in this page failed.";
    what.append(strong);
    next.textContent = known ? problem.next : "Load the page again. If that does not help, try another browser or wallet.";
    if (!known) console.error(problem);
    box.replaceChildren(what, next);
    box.hidden = false;
    box.focus();
}

/** Takes back what was told. */
export function clear(box = element("problem")) {
    box.hidden = true;
    box.replaceChildren();
}

let busy = false;

/**
 * A listener that does one thing at a time, and tells what went wrong. The button stays focusable meanwhile, so that nobody
 * loses his place.
 */
export function action(button, work, box) {
    return async (event) => {
        event.preventDefault();
        if (busy) return;
        busy = true;
        button?.setAttribute("aria-disabled", "true");
        clear(box);
        try {
            await work(event);
        } catch (problem) {
            if (element("status")) say("");
            tell(problem, box);
        } finally {
            busy = false;
            button?.removeAttribute("aria-disabled");
        }
    };
}

const PATIENCE_MS = 30_000;

/** Asks the server, and gives back its JSON. */
export async function ask(path, body, form = false) {
    const request = { method: "GET", cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
    if (body !== undefined) {
        request.method = "POST";
        request.headers = { "Content-Type": form ? "application/x-www-form-urlencoded" : "application/json" };
        request.body = form ? new URLSearchParams(body) : JSON.stringify(body);
    }
    let answer;
    try {
        answer = await fetch(at(path), request);
    } catch {
        throw new Problem("The server could not be reached.", "Check your connection, then try again.");
    }
    const document = await answer.json().catch(() => ({}));
    if (answer.ok) return document;
    const said = document.error_description ?? document.message ?? document.error;
    throw new Problem(typeof said === "string" ? said : `The server answered ${answer.status}.`, advice(answer), {
        status: answer.status,
    });
}

/** What to do about an answer, where a page knows no better. */
function advice(answer) {
    switch (answer.status) {
        case 401:
            return "Try again: choose the account that signs, and sign the newest message within two minutes.";
        case 403:
            return "Choose another account, or deny and ask the application for less.";
        case 404:
            return "Check what you entered, and try again.";
        case 409:
            return "Start again from the beginning.";
        case 429: {
            const seconds = Number(answer.headers.get("Retry-After")) || 60;
            return `Wait ${seconds} seconds, then try again.`;
        }
        case 400:
            return "Go back to where you came from and start again.";
        default:
            return "This is not your fault. Wait a moment, then try again.";
    }
}

/** Buttons with `data-copies` copy the text of the element they name. */
export function wireCopies() {
    for (const button of document.querySelectorAll("[data-copies]")) {
        button.addEventListener("click", async () => {
            const source = element(button.dataset.copies);
            try {
                await navigator.clipboard.writeText(source.textContent);
                say("Copied.");
                // Where the eyes are, for a moment.
                const label = button.firstChild;
                label.data = "Copied";
                setTimeout(() => (label.data = "Copy"), 3000);
            } catch {
                // Without the right to write to the clipboard: selected, so that the keyboard can.
                getSelection().selectAllChildren(source);
                say("Selected. Copy it with your keyboard or the menu.");
            }
        });
    }
}
