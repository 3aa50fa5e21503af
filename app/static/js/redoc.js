// Start Redoc on the document that the page names. Its search would need a worker made from a blob, which our
// Content-Security-Policy forbids; the browser's own search finds everything, because it is one page.

const place = document.getElementById("redoc");

window.Redoc.init(place.dataset.document, { disableSearch: true, nativeScrollbars: true }, place);
