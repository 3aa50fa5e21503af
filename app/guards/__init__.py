"""What stands before every view, in order: request id, host, size, deadline; and behind it: one shape of failure."""

from flask import Flask

from app.config import Settings
from app.guards import deadlines, failures, headers, hosts, request_ids, sizes


def init_app(app: Flask, settings: Settings) -> None:
    """Put all guards in place, outermost first."""
    request_ids.init_app(app)
    headers.init_app(app)
    hosts.init_app(app, settings)
    sizes.init_app(app, settings)
    deadlines.init_app(app, settings)
    failures.init_app(app)
