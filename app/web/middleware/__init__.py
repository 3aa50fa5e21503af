"""What stands before every view: admission, request id, host, token, size, deadline; behind: one shape of failure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.config import Settings
from app.host import machine, sizing
from app.host.sizing import Sizes
from app.web.middleware import cached_lengths, places
from app.web.middleware.admission_controller import AdmissionController

if TYPE_CHECKING:
    from flask import Flask

    from app.inference.memory_budget import Budget

log = logging.getLogger("cask.web")

# Of the engine's line, for all web processes together.
ENGINE_SHARE = 0.75
# While the engine computes one, the next is prepared.
TURNS_AT_ONCE = 2


def init_app(app: Flask, settings: Settings, budget: Budget) -> None:
    """Install all middleware, outermost first. ``budget``: the memory that requests may hold."""
    # Here and below, not above: Apache's configuration is written by a process that does without Flask.
    from app.web.middleware import body_memory, broken_streams, error_handlers, microcache, path_prefix

    _init_callers(app, settings)
    _init_requests(app, settings)
    _init_admission(app, settings)
    body_memory.init_app(app, budget)
    microcache.init_app(app, settings.request_microcache_ms)
    path_prefix.init_app(app, settings)
    error_handlers.init_app(app)
    broken_streams.init_app(app)


def _init_callers(app: Flask, settings: Settings) -> None:
    """Who asks, and whether they may."""
    from app.web.middleware import authentication, cors, rate_limits, request_ids, security_headers, trusted_hosts

    request_ids.init_app(app)
    security_headers.init_app(app)
    cors.init_app(app, settings)
    trusted_hosts.init_app(app, settings)
    authentication.init_app(app, settings)
    app.before_request(authentication.identify)
    rate_limits.init_app(app, settings)
    app.before_request(authentication.authorize)


def _init_requests(app: Flask, settings: Settings) -> None:
    """What they send, and how long it may take."""
    from app.web.middleware import (
        body_limits,
        conditional_requests,
        content_encoding,
        deadlines,
        finite_json,
        form_bodies,
        request_context,
        sessions,
    )

    finite_json.init_app(app)
    form_bodies.init_app(app)
    content_encoding.init_app(app)
    body_limits.init_app(app, settings)
    deadlines.init_app(app, settings)
    request_context.init_app(app)
    conditional_requests.init_app(app)
    sessions.init_app(app)


def _init_admission(app: Flask, settings: Settings) -> None:
    """Whether there is a place for it."""
    from app.web.middleware import admission

    sizes_here = sizing.choose(settings)
    has_cache = app.extensions["predictor"].kept is not None
    is_gpu = machine.device(settings.device) != machine.CPU
    apache = _places(app, settings)
    controller = _controller(settings, sizes_here, apache, has_cache=has_cache, is_gpu=is_gpu)
    admission.init_app(app, controller, cached_lengths.Lengths() if has_cache else None)


def _controller(
    settings: Settings, sizes: Sizes, apache: places.Places | None, *, has_cache: bool, is_gpu: bool
) -> AdmissionController:
    """The slots of this process, and its part of the engine."""
    workers, processes = sizes.engine_workers.value, sizes.web_processes.value
    # The engine keeps the rest of its line for models that have little in it.
    most = max(1, int(sizes.engine_max_queue_size.value * ENGINE_SHARE / processes))
    # On a GPU more at once are quicker, and all of them are soon done.
    a_turn = most if is_gpu else min(most, workers * sizes.engine_max_batch_size.value)
    return AdmissionController(
        sizes.web_places.value,
        settings.request_max_wait_seconds,
        # Twice its workers keep the engine busy, however slow a model is.
        least_images=2 * workers,
        # The next request waits behind all that is with the engine: as little as keeps it busy.
        most_images=most if is_gpu else min(most, max(a_turn, -(-TURNS_AT_ONCE * a_turn // processes))),
        images_a_turn=a_turn,
        speed=workers / processes,
        has_cache=has_cache,
        waits_for_threads=sizes.web_places.value == sizes.web_threads.value,
        places=apache,
    )


def _places(app: Flask, settings: Settings) -> places.Places | None:
    """Where Apache reads how many requests it may let in; None where Apache does not serve."""
    if not app.extensions.get("is_under_apache") or app.extensions["role"] != "web":
        return None
    try:
        found = places.claim(settings.state_dir / places.FILE)
    except (OSError, ValueError) as error:
        log.warning("Apache cannot be told how many requests may come (%s); it asks the app each time", error)
        return None
    if found is None:
        log.warning(
            "no free row in %s; Apache is not told how many requests may come", settings.state_dir / places.FILE
        )
    return found
