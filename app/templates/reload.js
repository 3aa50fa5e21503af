// A browser drops what is under way when the machine's network changes, and a page without one of its scripts is dead.
let isWhole = true;
addEventListener("error", ({ target }) => {
  if (!(target instanceof HTMLScriptElement || target instanceof HTMLLinkElement)) return;
  isWhole = false;
  const times = Number(sessionStorage.getItem("reloads"));
  if (times >= 3) return;
  sessionStorage.setItem("reloads", times + 1);
  setTimeout(() => location.replace(location.pathname + location.search), 1000);
}, { capture: true });
addEventListener("load", () => { if (isWhole) sessionStorage.removeItem("reloads"); });
