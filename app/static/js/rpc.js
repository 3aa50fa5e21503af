// Sends the calls of the JSON-RPC page and shows the replies as they came.

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
    return text ? JSON.stringify(JSON.parse(text), null, 2) : `${answer.status}: nothing to answer`;
  } catch (error) {
    return `The service did not answer: ${error.message}`;
  }
}
