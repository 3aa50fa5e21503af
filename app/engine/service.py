"""The engine as a process: put together from the settings, run until told to stop. Started by ``apache/engine.py``."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from app import config
from app.config import Settings
from app.engine.batcher import Limits
from app.engine.builder import Builder
from app.engine.changes import Change, Changes
from app.engine.monitor import ModelMonitor
from app.engine.server import Server
from app.engine.shadows import Shadows
from app.engine.worker import Model, Workers
from app.errors import ModelLoadError
from app.host import first_start, machine, sizing
from app.models import builds, runtime_variant
from app.models.manifests import CODE, Manifest
from app.supervision import pulse, supervision
from app.telemetry import alerts, metrics

log = logging.getLogger("cask.engine")

SIGNAL_PERIOD_SECONDS = 0.5
# So long, at the start of the service, models are loaded before the engine steps back.
LOADING_SECONDS = 3.0
# OpenVINO does without it where it cannot be imported.
CONVERTERS = "openvino.tools.ovc"


def build(settings: Settings, load_model: Callable[[Manifest], Model] | None = None) -> Server:
    """The server with its workers, not started. Raises ManifestError when a chosen model is not in the store."""
    sizes = sizing.choose(settings)
    changes = Changes(
        Path(settings.models_dir),
        Path(settings.state_dir),
        settings.models,
        keep_seconds=settings.models_keep_previous_seconds,
        clock=time.monotonic,
    )
    workers = Workers(
        changes.manifests_to_load(),
        load_model or _loader(settings, sizes.engine_workers.value),
        threads=sizes.engine_workers.value,
        max_queue_size=sizes.engine_max_queue_size.value,
        limits=lambda manifest: limits(settings, manifest),
        form_of=lambda model: runtime_variant.digest(model.computed_by, model.device, model.processor),
        announce=lambda known: runtime_variant.write(settings.state_dir, known),
    )
    return Server(
        Path(settings.engine_socket),
        workers,
        changes,
        Shadows(Path(settings.state_dir)),
        _builder(settings, workers, changes),
        ModelMonitor(workers, Path(settings.state_dir), _samples, settings.engine_self_test_seconds),
    )


def limits(settings: Settings, manifest: Manifest) -> Limits:
    """How one model may be batched: its own size within the setting's, its own delay first."""
    delay = manifest.serve.max_queue_delay_ms
    most = settings.engine_max_batch_size or sizing.batch_size(machine.device(settings.device))
    return Limits(
        min(most, _own_limit(settings, manifest)),
        settings.engine_max_queue_delay_ms if delay is None else delay,
    )


def _own_limit(settings: Settings, manifest: Manifest) -> int:
    is_gpu = machine.device(settings.device) != machine.CPU
    return manifest.serve.max_gpu_batch_size if is_gpu else manifest.serve.max_batch_size


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in hand. Blocks; call it in the main thread."""
    # Half of OpenVINO's import, and 8 MB: only builds convert networks, in processes of their own.
    sys.modules.setdefault(CONVERTERS, None)  # type: ignore[arg-type]
    for name in config.removed():
        log.warning("the setting %s no longer has an effect", name)
    alerts.configure(settings, "engine")
    metrics.begin(settings.state_dir, "engine")
    metrics.watch_memory("engine")
    server = build(settings)
    # Callers wait for the first models. A process of a model with code would keep the level that it began with.
    comes_first = first_start.is_now() and not server.has_code
    if not comes_first:
        first_start.step_back(settings.engine_nice)
    pulse.start(server.stuck_seconds)
    supervision.of_engine(settings).start()
    stop = threading.Event()
    try:
        server.start()
        if comes_first:
            _wait_loaded(server)
            first_start.step_back(settings.engine_nice)
        while not stop.wait(SIGNAL_PERIOD_SECONDS):
            # A signal that arrives just before a wait does not end it; its handler runs here.
            pass
    except (SystemExit, KeyboardInterrupt):
        # mod_wsgi turns SIGTERM into SystemExit in a service script; standalone does so elsewhere.
        log.info("engine %d drains for at most %d s", os.getpid(), settings.engine_drain_seconds)
    pulse.stopping()
    server.stop(settings.engine_drain_seconds)
    metrics.end()


def _wait_loaded(server: Server) -> None:
    """Until the models of the start are there, at most for ``LOADING_SECONDS``."""
    until = time.monotonic() + LOADING_SECONDS
    while not server.wait_started(SIGNAL_PERIOD_SECONDS) and time.monotonic() < until:
        # As below: not too long at once, for the sake of signals.
        pass


def _builder(settings: Settings, workers: Workers, changes: Changes) -> Builder | None:
    """What builds in the background; None where that is off, torch is requested as it is, or it is not there."""
    if settings.model_build == "off" or settings.runtime == "torch" or not machine.has_torch():
        return None

    def held() -> list[Manifest]:
        workers.is_started.wait()
        return [slot.manifest for slot in list(workers.slots.values()) if slot.manifest.task != CODE]

    def reload(manifest: Manifest) -> None:
        changes.apply(Change("reload", manifest.name, manifest.version), log.info)

    return Builder(settings.state_dir, held, reload, processor=lambda: _processor(settings))


def _samples(manifest: Manifest) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """A model's sample pictures; imports what reads them only when somebody looks."""
    from app.runtimes.build import samples

    return samples.read_each(manifest)


def _processor(settings: Settings) -> str:
    """What reports call the device that computes here; the processor where a requested GPU cannot be used."""
    if machine.device(settings.device) == machine.CPU:
        return builds.processor()
    from app.runtimes.registry import processor

    try:
        return processor(settings.device)
    except ModelLoadError:
        return builds.processor()


def _loader(settings: Settings, workers: int) -> Callable[[Manifest], Model]:
    """What loads one model; imports the vision package only when it is asked to."""

    def load(manifest: Manifest) -> Model:
        if manifest.task == CODE:
            from app.model_code import served

            return served.load(manifest, settings.model_code == "on", settings.engine_torch_threads, workers)
        from app.runtimes.registry import Plan, load_model

        plan = Plan(
            settings.state_dir,
            workers,
            settings.engine_torch_threads,
            settings.runtime,
            settings.precision,
            settings.device,
            settings.engine_max_batch_size,
        )
        return load_model(manifest, plan)

    return load
