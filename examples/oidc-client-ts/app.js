// Sign in with a wallet, with a library that does the work: PKCE, state, tokens, and their renewal.

import { InMemoryWebStorage, UserManager, WebStorageStateStore } from "oidc-client-ts";

const users = new UserManager({
    authority: "http://localhost:8402",
    client_id: "example-oidc-client-ts",
    // Registered for the client, letter by letter.
    redirect_uri: "http://localhost:8406/",
    scope: "openid",
    // Who signed, from the server.
    loadUserInfo: true,
    // Tokens stay in memory, out of reach of what may once get into the page's storage. The price: they are gone with
    // the page, and the user signs again.
    userStore: new WebStorageStateStore({ store: new InMemoryWebStorage() }),
    // What must outlive the way to the server and back, for this tab alone.
    stateStore: new WebStorageStateStore({ store: sessionStorage }),
    // Signing out takes back what we were given (RFC 7009).
    revokeTokensOnSignout: true,
    revokeTokenTypes: ["refresh_token"],
});

const element = (id) => document.getElementById(id);

function show(user) {
    element("status").textContent = user ? `Signed in as ${user.profile.sub}` : "You are not signed in.";
    element("user").textContent = user ? JSON.stringify(user.profile, null, 2) : "";
    element("sign-in").hidden = user !== null;
    element("renew").hidden = element("sign-out").hidden = user === null;
}

/** A listener that says what went wrong. */
const action = (work) => async () => {
    try {
        await work();
    } catch (error) {
        element("status").textContent = error.message;
    }
};

// The nonce ties the ID token to this sign-in.
element("sign-in").addEventListener("click", action(() => users.signinRedirect({ nonce: crypto.randomUUID() })));
// The library does so by itself, a minute before the access token ends.
element("renew").addEventListener("click", action(() => users.signinSilent()));
element("sign-out").addEventListener(
    "click",
    action(async () => {
        await users.revokeTokens();
        await users.removeUser();
    }),
);
users.events.addUserLoaded(show);
users.events.addUserUnloaded(() => show(null));
users.events.addSilentRenewError((error) => (element("status").textContent = error.message));

if (new URLSearchParams(location.search).has("state")) {
    await action(async () => {
        try {
            await users.signinRedirectCallback();
        } finally {
            // A code shall not stay in the history.
            history.replaceState(null, "", location.pathname);
        }
    })();
}
