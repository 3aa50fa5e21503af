"""HTML for people. One file per page; nothing here knows sockets, models or torch, only ``predictor()``."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Flask

from app.web import policy
from app.web.openapi import operations

pages = Blueprint("pages", __name__, template_folder="../templates")
policy.put(pages, policy.PAGE_ROUTE)
operations.put(pages, tag="The page")

# The views register themselves on `pages`, so they can only be imported once it exists.
from app.web.pages import capacity, jobs, languages, layout, models, samples, sign_in, try_image, try_model  # noqa: E402

pages.record_once(lambda state: languages.init_app(cast(Flask, state.app)))
pages.app_context_processor(layout.context)

__all__ = ["capacity", "jobs", "layout", "models", "pages", "samples", "sign_in", "try_image", "try_model"]
