"""What every address promises, as an OpenAPI 3.1 document made from the types that validate, and pages to read it."""

from __future__ import annotations

from flask import Blueprint

from app.web.openapi import operations

openapi = Blueprint("openapi", __name__, template_folder="../templates")
operations.put(openapi, tag="This description")

# The views register themselves on `openapi`, so they can only be imported once it exists.
from app.web.openapi import readers  # noqa: E402

__all__ = ["openapi", "readers"]
