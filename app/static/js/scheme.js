// Whether the page is dark: by a person's choice, else by the system.

const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

const isDark = () => (root.dataset.colours ? root.dataset.colours === "dark" : system.matches);

// Call `show(isDark)` now and whenever that changes.
export function followScheme(show) {
  let shown = isDark();
  show(shown);
  const look = () => {
    if (isDark() !== shown) show((shown = isDark()));
  };
  system.addEventListener("change", look);
  new MutationObserver(look).observe(root, { attributeFilter: ["data-colours"] });
}
