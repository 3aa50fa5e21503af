// Start Swagger UI on the document that the page names, in the page's colours.

import { followScheme } from "./scheme.js";

const place = document.getElementById("reader");

followScheme((isDark) => document.documentElement.classList.toggle("dark-mode", isDark));
window.SwaggerUIBundle({ domNode: place, url: place.dataset.document, deepLinking: true, validatorUrl: null });
