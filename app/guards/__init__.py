"""What stands before every view: admission, request id, host, token, size, deadline; behind: one shape of failure."""

import logging

from flask import Flask

from app import machine, sizing
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
    lengths,
    memory,
    microcache,
    notices,
    prefixes,
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
# While the engine computes one, the next is prepared.
TURNS_AT_ONCE = 2


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
    has_cache = app.extensions["predictor"].kept is not None
    is_gpu = machine.device(settings.device) != machine.CPU
    gate = _gate(settings, sizes_here, has_cache=has_cache, is_gpu=is_gpu)
    known = _lengths(app, settings) if has_cache else None
    admission.init_app(app, gate, _notices(app, settings, sizes_here, gate), known)
    memory.init_app(app, budget)
    microcache.init_app(app, settings.request_microcache_ms)
    prefixes.init_app(app, settings)
    failures.init_app(app)


def _gate(settings: Settings, sizes: Sizes, *, has_cache: bool, is_gpu: bool) -> Gate:
    """The places of this process, and its part of the engine."""
    workers, processes = sizes.engine_workers.value, sizes.web_processes.value
    # The engine keeps the rest of its line for models that have little in it.
    most = max(1, int(sizes.engine_max_queue_size.value * ENGINE_SHARE / processes))
    # On a GPU more at once are quicker, and all of them are soon done.
    a_turn = most if is_gpu else min(most, workers * sizes.engine_max_batch_size.value)
    return Gate(
        sizes.web_places.value,
        settings.request_max_wait_seconds,
        # Twice its workers keep the engine busy, however slow a model is.
        least_images=2 * workers,
        # Whoever comes next waits behind all that is with the engine: as little as keeps it busy.
        most_images=most if is_gpu else min(most, max(a_turn, -(-TURNS_AT_ONCE * a_turn // processes))),
        images_a_turn=a_turn,
        speed=workers / processes,
        has_cache=has_cache,
    )


def _lengths(app: Flask, settings: Settings) -> lengths.Lengths:
    """The table that Apache has too; one of this process alone where there is no Apache."""
    if not app.extensions.get("is_under_apache") or app.extensions["role"] != "web":
        return lengths.Lengths()
    try:
        return lengths.Lengths(settings.state_dir / lengths.FILE)
    except (OSError, ValueError) as error:
        log.warning("the table of lengths cannot be shared (%s); Apache may refuse who has a kept answer", error)
        return lengths.Lengths()


def _notices(app: Flask, settings: Settings, sizes: Sizes, gate: Gate) -> notices.Notices | None:
    """Where Apache looks for whom to refuse; None where it is not Apache that serves."""
    if not app.extensions.get("is_under_apache") or app.extensions["role"] != "web":
        return None
    slot = notices.claim_slot(settings.state_dir, sizes.web_processes.value)
    if slot is None:
        log.warning("no folder for notices in %s is free; Apache asks the app about each refusal", settings.state_dir)
        return None
    folder, app.extensions["slot_lock"] = slot
    return notices.Notices(folder, gate.is_refused)
