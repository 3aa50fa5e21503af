"""The jobs' worker as a process: put together from the settings, run until told to stop; see ``apache/jobs.py``."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.config import Settings
from app.engine.client import EngineClient
from app.errors import CaskError
from app.jobs import stores
from app.jobs.jobs import Claim
from app.jobs.store import JobStore
from app.jobs.webhooks import Messenger
from app.jobs.worker import IMAGE_SECONDS, Worker
from app.supervision import pulse
from app.telemetry import alerts, metrics

if TYPE_CHECKING:
    from app.inference.pipeline import Outcome, Predictor

log = logging.getLogger("cask.jobs")

# Behind the engine itself: what callers wait for comes first.
NICE = 10
LOOK_SECONDS = 0.2
TIDY_SECONDS = 30.0
TELL_SECONDS = 1.0
RENEW_SECONDS = 1.0
# One round lasts milliseconds, with a slow disk or Redis some seconds.
TURN_SECONDS = 30.0
DRAIN_SECONDS = 5.0


class DeferredPredictor:
    """The predictor, made when the first image comes: a worker that has never had work does without half its memory.

    Thread-safe. Its making is that of ``Predictor``: it raises what that raises, and is tried again.
    """

    def __init__(self, settings: Settings, engine: EngineClient) -> None:
        self._settings = settings
        self._engine = engine
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None

    def predict(self, task: Any, data: Any, params: Any, *, deadline: float | None = None) -> Outcome:
        """As ``Predictor.predict``."""
        return self._made().predict(task, data, params, deadline=deadline)

    def answer_code(self, claim: Claim, deadline: float) -> dict[str, Any]:
        """As ``code_items.answer``."""
        from app.jobs import code_items

        return code_items.answer(self._made(), claim, deadline)

    def _made(self) -> Predictor:
        with self._lock:
            if self._predictor is None:
                from app.inference.pipeline import Predictor

                self._predictor = Predictor(self._settings, self._engine)
            return self._predictor


class Service:
    """What one process does: look for work, beat, tidy up, tell of ends. Each ``turn`` does what is due."""

    def __init__(
        self,
        store: JobStore,
        worker: Worker,
        messenger: Messenger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._worker = worker
        self._messenger = messenger
        self._clock = clock
        self._turned_at = clock()
        self._renew_at = 0.0
        self._tidy_at = 0.0
        self._tell_at = 0.0
        self._is_recovered = False
        self._trouble = ""

    def turn(self) -> None:
        """One round. Raises nothing: what cannot be done now is tried again."""
        now = self._turned_at = self._clock()
        try:
            if now >= self._renew_at:
                self._renew_at = now + RENEW_SECONDS
                self._recover()
            if now >= self._tidy_at:
                self._tidy_at = now + TIDY_SECONDS
                self._store.sweep()
                if expired := self._store.expire():
                    metrics.JOBS.add(expired, outcome="expired")
                    log.info("the results of %d jobs have expired and were deleted", expired)
            # Not before: what is put back must not be of this worker.
            if self._is_recovered:
                self._worker.look()
            if now >= self._tell_at:
                self._tell_at = now + TELL_SECONDS
                self._messenger.look()
        except CaskError as error:
            if self._is_news(error.message):
                log.warning("%s: %s", error.code, error.message)
        except OSError as error:
            if self._is_news(str(error)):
                log.warning("the folder of jobs cannot be used: %s", error)

    def stuck_seconds(self) -> float:
        """For how long an image, or a round, has lasted beyond what it may."""
        # Each image has its deadline; what lasts longer than that hangs.
        return max(self._worker.busy_seconds - IMAGE_SECONDS, self._clock() - self._turned_at - TURN_SECONDS, 0.0)

    def _recover(self) -> None:
        """Put back what workers began that are dead: at first this machine's own, then those of others."""
        again = self._store.renew() if self._is_recovered else self._store.recover()
        self._is_recovered = True
        self._trouble = ""
        if again:
            log.info("%d images were in progress in a worker that ended; they are predicted again", again)

    def _is_news(self, trouble: str) -> bool:
        """Told once, until it is over or another one."""
        before, self._trouble = self._trouble, trouble
        return trouble != before


def run(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT. Waits while another process is the worker. Blocks; call it in the main thread."""
    # apache/jobs.py does so before its imports already.
    os.nice(max(0, NICE - os.nice(0)))
    alerts.configure(settings, "jobs")
    metrics.begin(Path(settings.state_dir), "jobs")
    metrics.watch_memory("jobs")
    stop = threading.Event()
    store = stores.of(settings)
    worker: Worker | None = None
    try:
        lock = _wait_for_lock(store, stop)
        engine = EngineClient(settings.engine_socket)
        worker = Worker(
            store,
            DeferredPredictor(settings, engine),
            settings.jobs_in_flight,
            is_crowded=lambda: _is_crowded(engine),
        )
        service = Service(store, worker, Messenger(store, settings, clock=store.now))
        pulse.start(service.stuck_seconds)
        log.info("process %d runs the jobs, lock %d", os.getpid(), lock)
        while not stop.wait(LOOK_SECONDS):
            service.turn()
    except (SystemExit, KeyboardInterrupt):
        # mod_wsgi turns SIGTERM into SystemExit in a service script; standalone does so elsewhere.
        log.info("jobs stop: images in progress are finished, the others wait for the next start")
    pulse.stopping()
    if worker is not None:
        worker.stop(DRAIN_SECONDS)
    metrics.end()


def _is_crowded(engine: EngineClient) -> bool:
    try:
        return bool(engine.status()["waiting"])
    except CaskError:
        # The prediction will tell what is wrong.
        return False


def _wait_for_lock(store: JobStore, stop: threading.Event) -> int:
    while (lock := store.lock()) is None:
        stop.wait(LOOK_SECONDS)
    return lock
