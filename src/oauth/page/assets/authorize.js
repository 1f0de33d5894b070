// The authorize page: a signature for a code, and back to the application.

import { action, ask, element, Problem, say } from "./page.js";
import { offer } from "./sign.js";

const { session, wallet, wants, client } = element("sign-in").dataset;

/** A session that is over cannot be taken up again from here. */
async function inSession(path, body) {
    try {
        return await ask(path, { session_id: session, ...body });
    } catch (problem) {
        if (problem.status !== 400) throw problem;
        throw new Problem(problem.message, `Try another account, or go back to ${client} and start the sign-in again.`);
    }
}

function leave(url) {
    say(`Going back to ${client}…`);
    window.location.replace(url);
}

offer({
    wallet,
    key: wants,
    challenge: (address) => inSession("/v1/oauth/challenge", { address }),
    finish: async (signed) => leave((await inSession("/v1/oauth/callback", signed)).redirect_to),
});

// The link works without this; with it, the session ends at once, and nobody can go on with it.
const deny = element("deny");
deny.addEventListener(
    "click",
    action(deny, async () => {
        const plain = deny.href;
        const ended = await ask("/v1/oauth/deny", { session_id: session }).catch(() => ({ redirect_to: plain }));
        leave(ended.redirect_to);
    }),
);
