"""HTML for people. One file per page; nothing here knows sockets, models or torch, only ``predictor()``."""

from __future__ import annotations

from flask import Blueprint

pages = Blueprint("pages", __name__, template_folder="../templates")

# The views register themselves on `pages`, so they can only be imported once it exists.
from app.pages import models, samples, try_image  # noqa: E402

__all__ = ["models", "pages", "samples", "try_image"]
