// Sends the calls of the JSON-RPC page and shows the replies as they came.

import { _ } from "./words.js";

for (const form of document.querySelectorAll("form.call")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const reply = form.querySelector("output");
    reply.textContent = "…";
    reply.textContent = await send(form.dataset.address, form.querySelector("textarea").value);
  });
}

/** The reply to one call, laid out for reading; a failure of the connection in words. */
async function send(address, call) {
  try {
    const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: call });
    const text = await answer.text();
    return text ? JSON.stringify(JSON.parse(text), null, 2) : _("%(status)s: nothing to answer", { status: answer.status });
  } catch (error) {
    return _("The service did not answer: %(reason)s", { reason: error.message });
  }
}
