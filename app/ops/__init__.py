"""What operators ask: live, ready, started, status, version, metrics. Served by a daemon group of its own."""

from flask import Blueprint

ops = Blueprint("ops", __name__)

from app.ops import health, metrics, status, version  # noqa: E402, F401 - they add their views to the blueprint
