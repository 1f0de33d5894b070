// Asks the server for the message to sign, and hands in its signature.
"use strict";
const main = document.querySelector("main");
const form = document.getElementById("sign-in");
const field = (id) => document.getElementById(id);
const device = () => main.dataset.flow === "device";
const code = () => field("user-code").value.trim().toUpperCase();
let message = "";

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.message || "The server did not answer as expected");
  return document;
}

function attempt(work) {
  return async (event) => {
    event.preventDefault();
    field("status").textContent = "";
    try {
      await work();
    } catch (error) {
      field("status").textContent = error.message;
    }
  };
}

if (form) {
  field("ask").addEventListener("click", attempt(async () => {
    const address = field("address").value.trim();
    const asked = device()
      ? await post("/v1/device/approve", { user_code: code(), address })
      : await post("/v1/oauth/challenge", { session_id: main.dataset.session, address });
    message = asked.nonce;
    field("message").textContent = message;
    field("signature").focus();
  }));

  form.addEventListener("submit", attempt(async () => {
    const answer = {
      nonce: message,
      address: field("address").value.trim(),
      signature: field("signature").value.trim(),
    };
    if (device()) {
      await post("/v1/device/confirm", { user_code: code(), ...answer });
      field("status").textContent = "Signed in. You can close this page and go back to the device.";
    } else {
      const done = await post("/v1/oauth/callback", { session_id: main.dataset.session, ...answer });
      window.location.assign(done.redirect_to);
    }
  }));

  field("deny").addEventListener("click", attempt(async () => {
    if (device()) {
      await post("/v1/device/deny", { user_code: code() });
      field("status").textContent = "Denied. The device will be told.";
    } else {
      const done = await post("/v1/oauth/deny", { session_id: main.dataset.session });
      window.location.assign(done.redirect_to);
    }
  }));
}

if (form && device()) {
  field("look").addEventListener("click", attempt(async () => {
    const answer = await fetch(`/v1/device/scopes?user_code=${encodeURIComponent(code())}`);
    const asked = await answer.json();
    if (!answer.ok) throw new Error(asked.error);
    const list = document.createElement("ul");
    for (const text of asked.descriptions) {
      const line = document.createElement("li");
      line.textContent = text;
      list.append(line);
    }
    const who = document.createElement("p");
    who.textContent = `${asked.client_name} asks you to prove:`;
    field("asked").replaceChildren(who, list);
  }));
}
