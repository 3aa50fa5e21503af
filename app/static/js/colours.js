// The switch for colours, without loading the page anew: what is on it stays.

const YEAR_SECONDS = 31_536_000;
const links = [...document.querySelectorAll("a[data-colours]")];

for (const link of links) link.addEventListener("click", (event) => choose(event, link));

function choose(event, link) {
  // With a key held, a person wants another tab or window.
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { colours } = link.dataset;
  const path = new URL(document.querySelector(".brand").href).pathname;
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `colours=${colours}; path=${path}; max-age=${YEAR_SECONDS}; samesite=lax${secure}`;
  if (colours === "auto") delete document.documentElement.dataset.colours;
  else document.documentElement.dataset.colours = colours;
  for (const each of links) each.toggleAttribute("aria-current", each === link);
  link.setAttribute("aria-current", "true");
}
