"""What stands before every view: admission, request id, host, size, deadline; and behind it: one shape of failure."""

from flask import Flask

from app import sizing
from app.config import Settings
from app.guards import admission, deadlines, failures, headers, hosts, microcache, request_ids, sessions, sizes
from app.sizing import Sizes

# Asked often, by machines, and the same for everybody.
MICROCACHED = ("/livez", "/v1/models", "/version")


def init_app(app: Flask, settings: Settings) -> None:
    """Put all guards in place, outermost first."""
    request_ids.init_app(app)
    headers.init_app(app)
    hosts.init_app(app, settings)
    sizes.init_app(app, settings)
    deadlines.init_app(app, settings)
    sessions.init_app(app)
    admission.init_app(app, _gate(settings, sizing.choose(settings)))
    microcache.init_app(app, MICROCACHED, settings.request_microcache_ms)
    failures.init_app(app)


def _gate(settings: Settings, sizes: Sizes) -> admission.Gate:
    """The places of this process. Twice the engine's workers keep it busy, however slow a model is."""
    return admission.Gate(
        sizes.web_places.value, settings.request_max_wait_seconds, least_places=2 * sizes.engine_workers.value
    )
