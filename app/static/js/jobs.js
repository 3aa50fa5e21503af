// Keeps the pages of jobs alive: fetches the page again and puts in what has changed. The server draws; nothing is
// drawn twice, and a bar moves because its element stays.

import { _ } from "./words.js";

const OFTEN_MILLISECONDS = 700;
const SELDOM_MILLISECONDS = 15_000;
// Each time that nothing has changed, or no answer came, it is asked a little later.
const PATIENCE = 1.5;

const live = document.getElementById("live");
let pause = OFTEN_MILLISECONDS;
let timer = null;

schedule();
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

async function look() {
  clearTimeout(timer);
  if (document.hidden) return;
  const isChanged = await renewed().catch(() => false);
  pause = isChanged ? OFTEN_MILLISECONDS : Math.min(pause * PATIENCE, SELDOM_MILLISECONDS);
  schedule();
}

/** A page without an open job changes by what others do, and of one job that has ended nothing changes any more. */
function schedule() {
  const isOpen = live.querySelector("[data-open]") !== null;
  if (!isOpen && live.querySelector(".job-list") === null) return;
  timer = setTimeout(look, isOpen ? pause : SELDOM_MILLISECONDS);
}

/** Fetch the page and take over what differs; whether anything did. */
async function renewed() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (!answer.ok || answer.redirected) return false;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
  if (fresh === null || fresh.innerHTML === live.innerHTML) return false;
  takeOver(live, fresh);
  return true;
}

/** Make an element like another one, without touching what is the same: focus, bars and the pointer stay. */
function takeOver(element, fresh) {
  if (element.nodeType !== fresh.nodeType || element.nodeName !== fresh.nodeName || element.id !== fresh.id) {
    element.replaceWith(document.importNode(fresh, true));
    return;
  }
  if (element.nodeType === Node.TEXT_NODE) {
    if (element.data !== fresh.data) element.data = fresh.data;
    return;
  }
  if (element.nodeType !== Node.ELEMENT_NODE) return;
  for (const { name } of [...element.attributes]) if (!fresh.hasAttribute(name)) element.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  takeOverChildren(element, [...fresh.childNodes]);
}

function takeOverChildren(element, wanted) {
  const named = new Map([...element.children].filter((child) => child.id).map((child) => [child.id, child]));
  wanted.forEach((fresh, place) => {
    const known = fresh.id ? named.get(fresh.id) : undefined;
    const there = element.childNodes[place];
    if (known && known !== there) element.insertBefore(known, there ?? null);
    else if (!known && fresh.id) element.insertBefore(document.importNode(fresh, true), there ?? null);
    else if (!there) element.append(document.importNode(fresh, true));
    takeOver(element.childNodes[place], fresh);
  });
  while (element.childNodes.length > wanted.length) element.lastChild.remove();
}

/** Ask before a job is lost, and say that a form is on its way: pictures take a while. */
document.addEventListener("submit", (event) => {
  const form = event.target;
  const button = form.querySelector("button[type=submit]");
  if (button.dataset.confirm && !confirm(button.dataset.confirm)) {
    event.preventDefault();
  } else if (form.classList.contains("job-form")) {
    button.textContent = _("Sending…");
    button.disabled = true;
  }
});

// Back from the page of the job: the form is ready again.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
