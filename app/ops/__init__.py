"""What operators and orchestrators ask: live, ready, started, status, version. Served by a daemon group of its own."""

from flask import Blueprint

ops = Blueprint("ops", __name__)

from app.ops import health, status, version  # noqa: E402, F401 - they add their views to the blueprint
