"""What operators ask: live, ready, started, status, version, metrics. Served by a daemon group of its own."""

from dataclasses import replace

from flask import Blueprint

from app.web import policy
from app.web.openapi import operations

ops = Blueprint("ops", __name__)
# A view that says nothing is for operators.
policy.put(ops, replace(policy.WATCHED_ROUTE, access=policy.Access.ADMIN))
operations.put(ops, tag="Health")

from app.web.ops import health, metrics, status, version  # noqa: E402, F401 - they add their views to the blueprint
