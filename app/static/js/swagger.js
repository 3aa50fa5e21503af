// Start Swagger UI on the document that the page names.

const place = document.getElementById("swagger");

window.SwaggerUIBundle({ domNode: place, url: place.dataset.document, deepLinking: true, validatorUrl: null });
