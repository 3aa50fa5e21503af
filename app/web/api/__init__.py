"""The JSON API, one file a resource. Views parse, call and answer; failures travel to ``middleware.error_handlers``."""

from flask import Blueprint

api = Blueprint("api", __name__, url_prefix="/v1")

from app.web.api import code_models, ensemble, jobs, models, predict  # noqa: E402, F401 - they add their views to the blueprint
