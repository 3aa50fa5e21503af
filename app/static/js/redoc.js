// Start Redoc on the document that the page names, in the page's colours. Its search would need a worker made from a blob,
// which our Content-Security-Policy forbids; the browser's own search finds everything, because it is one page.

import { followScheme } from "./scheme.js";

const place = document.getElementById("reader");
// Its right column is dark in either scheme.
const ON_DARK = { good: "#6ecb97", bad: "#ff9a8d" };
let isShown = false;

followScheme(() => {
  // Redoc takes its colours once.
  if (isShown) location.reload();
  else window.Redoc.init(place.dataset.document, { disableSearch: true, nativeScrollbars: true, theme: theme() }, place);
  isShown = true;
});

function theme() {
  const [ink, soft, line, sunken, surface, accent] = ["ink", "ink-soft", "line", "sunken", "surface", "accent"].map(colour);
  const fontFamily = getComputedStyle(document.body).fontFamily;
  return {
    colors: {
      primary: { main: accent },
      success: { main: colour("good") },
      error: { main: colour("bad") },
      text: { primary: ink, secondary: soft },
      border: { dark: line, light: line },
      responses: { success: { color: colour("good"), tabTextColor: ON_DARK.good }, error: { color: colour("bad"), tabTextColor: ON_DARK.bad } },
    },
    schema: { linesColor: line, typeNameColor: soft, typeTitleColor: soft, nestedBackground: sunken },
    typography: { fontFamily, headings: { fontFamily }, code: { color: accent, backgroundColor: sunken }, links: { color: accent } },
    sidebar: { backgroundColor: surface, textColor: ink },
  };
}

// Redoc computes with colours, so it needs what a variable comes to.
function colour(name) {
  place.style.color = `var(--${name})`;
  const found = getComputedStyle(place).color;
  place.style.color = "";
  return found;
}
