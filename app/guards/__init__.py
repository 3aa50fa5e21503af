"""What stands before every view: admission, request id, host, token, size, deadline; behind: one shape of failure."""

import logging

from flask import Flask

from app import sizing
from app.budget import Budget
from app.config import Settings
from app.guards import (
    admission,
    asking,
    authentication,
    conditions,
    cors,
    deadlines,
    encodings,
    failures,
    finite_json,
    form_bodies,
    headers,
    hosts,
    memory,
    microcache,
    notices,
    rates,
    request_ids,
    sessions,
    sizes,
)
from app.guards.gate import Gate
from app.sizing import Sizes

log = logging.getLogger("cask.web")

# Of the engine's line, for all web processes together.
ENGINE_SHARE = 0.75


def init_app(app: Flask, settings: Settings, budget: Budget) -> None:
    """Put all guards in place, outermost first. ``budget``: the memory that requests may hold."""
    request_ids.init_app(app)
    headers.init_app(app)
    cors.init_app(app, settings)
    hosts.init_app(app, settings)
    authentication.init_app(app, settings)
    app.before_request(authentication.identify)
    rates.init_app(app, settings)
    app.before_request(authentication.authorize)
    finite_json.init_app(app)
    form_bodies.init_app(app)
    encodings.init_app(app)
    sizes.init_app(app, settings)
    deadlines.init_app(app, settings)
    asking.init_app(app)
    conditions.init_app(app)
    sessions.init_app(app)
    sizes_here = sizing.choose(settings)
    gate = _gate(settings, sizes_here, has_cache=app.extensions["predictor"].kept is not None)
    admission.init_app(app, gate, _notices(app, settings, sizes_here, gate))
    memory.init_app(app, budget)
    microcache.init_app(app, settings.request_microcache_ms)
    failures.init_app(app)


def _gate(settings: Settings, sizes: Sizes, *, has_cache: bool) -> Gate:
    """The places of this process, and its part of the engine."""
    workers, processes = sizes.engine_workers.value, sizes.web_processes.value
    return Gate(
        sizes.web_places.value,
        settings.request_max_wait_seconds,
        # Twice its workers keep the engine busy, however slow a model is.
        least_images=2 * workers,
        # The engine keeps the rest of its line for models that have little in it.
        most_images=max(1, int(sizes.engine_max_queue_size.value * ENGINE_SHARE / processes)),
        speed=workers / processes,
        has_cache=has_cache,
    )


def _notices(app: Flask, settings: Settings, sizes: Sizes, gate: Gate) -> notices.Notices | None:
    """Where Apache looks for whom to refuse. None behind a proxy: Apache knows callers by other addresses then."""
    if not app.extensions.get("is_under_apache") or app.extensions["role"] != "web" or settings.trusted_proxies:
        return None
    slot = notices.claim_slot(settings.state_dir, sizes.web_processes.value)
    if slot is None:
        log.warning("no folder for notices in %s is free; Apache asks the app about each refusal", settings.state_dir)
        return None
    folder, app.extensions["slot_lock"] = slot
    return notices.Notices(folder, gate.is_refused)
