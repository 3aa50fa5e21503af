"""/openapi.json for programs; /docs (Swagger UI) and /redoc (Redoc) for people. Everything comes from this server."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, abort, current_app, jsonify, render_template, request, send_from_directory

from app.inference.served_models import served_models
from app.web.openapi import document, operations
from app.web.openapi.operations import CONDITION, UNCHANGED, Answer, a_page, describe
from app.web.policy import FILE_ROUTE, Access, RoutePolicy

MAX_AGE_SECONDS = 3600
# Scripts and style of the readers lie in packages that the lock files pin; their Python is never imported.
ASSETS = {
    "swagger-ui.css": ("flask_openapi3_swagger", "templates/swagger/css"),
    "swagger-ui-bundle.js": ("flask_openapi3_swagger", "templates/swagger/js"),
    "redoc.standalone.js": ("flask_openapi3_redoc", "templates/redoc/js"),
}
EXTENSION = "openapi_document"

openapi = Blueprint("openapi", __name__, template_folder="../templates")
operations.put(openapi, tag="This description")


@openapi.get("/openapi.json")
@describe(
    "This description",
    Answer("The OpenAPI 3.1 document.", {"type": "object"}, headers=("ETag",)),
    policy=RoutePolicy(access=Access.PUBLIC, is_conditional=True),
    answers={304: UNCHANGED},
    headers=(CONDITION,),
)
def specification() -> Response:
    """Every address with its options, bodies, answers and failures."""
    # Where it was asked for; a reader behind a proxy then calls the proxy.
    return jsonify({**_document(), "servers": [{"url": request.script_root or "/"}]})


@openapi.get("/docs")
@describe(
    "Swagger UI", a_page("The description as a page to try requests on."), policy=RoutePolicy(access=Access.PUBLIC)
)
def swagger() -> str:
    """Read the description, and try requests from the page."""
    return render_template("swagger.html")


@openapi.get("/redoc")
@describe("Redoc", a_page("The description as a page to read."), policy=RoutePolicy(access=Access.PUBLIC))
def redoc() -> str:
    """Read the description on one long page."""
    return render_template("redoc.html")


@openapi.get("/docs/assets/<name>")
@describe(policy=FILE_ROUTE)
def asset(name: str) -> Response:
    """A script or style sheet of the readers."""
    if name not in ASSETS:
        abort(404)
    package, folder = ASSETS[name]
    return send_from_directory(_folder(package) / folder, name, max_age=MAX_AGE_SECONDS)


def _document() -> dict[str, Any]:
    """Made anew in each process when another version of a model answers: it names their labels and parameters."""
    answering = tuple(manifest.digest for manifest in served_models().manifests)
    made_for, found = current_app.extensions.get(EXTENSION, ((), {}))
    if made_for != answering or not found:
        found = document.build(current_app)
        current_app.extensions[EXTENSION] = (answering, found)
    described: dict[str, Any] = found
    return described


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the package {package} is not installed; requirements/install.sh brings it")
    return Path(next(iter(spec.submodule_search_locations)))
