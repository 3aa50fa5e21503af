"""Works jobs off: takes one image at a time, asks for its prediction, writes its result. Gives way to callers who wait.

Knows no Apache and no signals; ``service`` runs it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from app import errors, tasks
from app.errors import CaskError
from app.jobs.jobs import Claim
from app.jobs.pauses import JobPauses
from app.jobs.store import JobStore, problem
from app.models.manifests import CODE
from app.supervision import pulse
from app.telemetry import logs, metrics

if TYPE_CHECKING:
    from app.inference.pipeline import Outcome

log = logging.getLogger("cask.jobs")

# Nobody waits for an image of a job, but an engine that hangs must not be waited for either.
IMAGE_SECONDS = 60.0
# So often one image may end its worker or the engine before it is given up.
MAX_ATTEMPTS = 10
# An item that ends the process of its model ends that of nobody else, so it is known sooner what is at fault.
MAX_CRASHES = 3
# While callers wait, an image of a job waits too, for at most a second.
STEP_ASIDE_SECONDS, MOST_STEPS_ASIDE = 0.02, 50
# Each time the engine has no room, twice as long is waited.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 30.0


class PredictionService(Protocol):
    """What the worker needs of the predictor."""

    def predict(self, task: Any, data: Any, params: Any, *, deadline: float | None = None) -> Outcome: ...

    def answer_code(self, claim: Claim, deadline: float) -> dict[str, Any]: ...


class Worker:
    """Threads that live while there is work. Thread-safe."""

    def __init__(
        self,
        store: JobStore,
        predictor: PredictionService,
        threads: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        is_crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        """``is_crowded``: whether callers wait in the engine's line at the moment."""
        self._is_crowded = is_crowded
        self._store = store
        self._predictor = predictor
        self._most_threads = threads
        self._clock = clock
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._stopping = threading.Event()
        # Since when each thread has been at its image.
        self._busy_since: dict[int, float] = {}
        self._pauses = JobPauses(clock)
        self._pause_seconds = 0.0
        self._resume_at = 0.0

    def look(self) -> None:
        """Start threads when images wait. Called again and again by its owner; raises nothing."""
        with self._lock:
            missing = self._most_threads - len(self._threads)
        if missing and not self._stopping.is_set() and self._clock() >= self._resume_at and self._has_work():
            for _ in range(missing):
                thread = threading.Thread(target=self._run, name="jobs", daemon=True)
                with self._lock:
                    self._threads.add(thread)
                thread.start()

    @property
    def busy_seconds(self) -> float:
        """For how long the slowest thread has been at its image; 0 when none is."""
        now = self._clock()
        with self._lock:
            return max((now - since for since in self._busy_since.values()), default=0.0)

    def stop(self, patience_seconds: float) -> None:
        """Finish the images in hand, begin no others."""
        self._stopping.set()
        end = time.monotonic() + patience_seconds
        for thread in list(self._threads):
            thread.join(max(0.0, end - time.monotonic()))

    def step(self) -> bool:
        """Work at one image. False when there is none, or the engine has no room at the moment."""
        claim = self._store.claim(self._pauses.current())
        if claim is None:
            return False
        token = logs.request_id.set(claim.request_id)
        try:
            return self._work(claim)
        finally:
            logs.request_id.reset(token)

    def _give_way(self) -> None:
        """Callers who wait go first; but not for ever, so that a job goes on under any load."""
        for _ in range(MOST_STEPS_ASIDE):
            if self._stopping.is_set() or not self._is_crowded():
                return
            self._stopping.wait(STEP_ASIDE_SECONDS)

    def _work(self, claim: Claim) -> bool:
        self._give_way()
        head = {"number": claim.number, "name": claim.name}
        try:
            answer = self._predict(claim)
        except (errors.RequestError, errors.JobImageAbandonedError) as error:
            # Asked again, it would be the same.
            answer = {"error": problem(error)}
        except errors.ModelNotReadyError as error:
            if self._pauses.begin(claim.job_id):
                log.debug("job %s waits: %s", claim.job_id, error.message)
                self._store.release(claim, is_counted=False)
                return True
            answer = {"error": problem(error)}
        except CaskError as error:
            if not _is_of_the_item(error, claim):
                return self._put_back(claim, error)
            # The next image of the job is another one.
            self._pauses.end(claim.job_id)
            answer = {"error": problem(error)}
        except Exception:
            log.exception("job %s, image %d: an unexpected failure", claim.job_id, claim.number)
            self._store.release(claim, is_counted=True)
            self._pauses.begin(claim.job_id)
            return True
        else:
            self._pauses.end(claim.job_id)
        self._pause_seconds = 0.0
        ended = self._store.finish(claim, {**head, **answer})
        metrics.JOB_IMAGES.add()
        if "error" in answer:
            metrics.FAILED_PARTS.add(part="item", code=answer["error"]["code"])
        if ended is not None:
            metrics.JOBS.add(outcome=ended.state)
            metrics.JOB_SECONDS.observe((ended.ended_at or 0.0) - ended.created_at)
            log.info("job %s %s: %d images, %d failed", ended.id, ended.state, ended.total, ended.failed)
            self._store.sweep()
        return True

    def _put_back(self, claim: Claim, error: CaskError) -> bool:
        """Try the image again later. False where every job has to wait for that."""
        self._store.release(claim, is_counted=_may_be_at_fault(error))
        # That model or its process failed; nobody else has to wait for it.
        if isinstance(error, errors.ModelCrashedError) or type(error) is CaskError:
            self._pauses.begin(claim.job_id)
            return True
        self._pause(error)
        return False

    def _predict(self, claim: Claim) -> dict[str, Any]:
        if claim.attempt > MAX_ATTEMPTS:
            raise errors.JobImageAbandonedError(
                "The image was begun %(count)s times, and each time the engine or the worker ended.",
                hint="Try it alone; if it ends the engine again, tell the operator of this service.",
                count=claim.attempt - 1,
            )
        if claim.task == CODE:
            return self._predictor.answer_code(claim, time.monotonic() + IMAGE_SECONDS)
        outcome = self._predictor.predict(
            claim.task, [claim.data], claim.params, deadline=time.monotonic() + IMAGE_SECONDS
        )
        result = outcome.results[0]
        manifest = outcome.manifest
        return {
            "model": {"name": manifest.name, "version": manifest.version, "digest": manifest.digest},
            "width": result.width,
            "height": result.height,
            **tasks.BY_NAME[claim.task].result(result.answer),
        }

    def _pause(self, error: CaskError) -> None:
        """Nobody of us asks for a while: callers come first, and an engine that is away needs time."""
        with self._lock:
            self._pause_seconds = min(
                max(FIRST_PAUSE_SECONDS, self._pause_seconds * 2, error.retry_after_seconds or 0.0),
                LONGEST_PAUSE_SECONDS,
            )
            self._resume_at = self._clock() + self._pause_seconds
        level = logging.DEBUG if isinstance(error, errors.UnavailableError) else logging.WARNING
        log.log(level, "jobs wait %.1f s: %s", self._pause_seconds, error.message)

    def _run(self) -> None:
        # Behind all others it waits for a core nearly all the time; how long one image may last is looked at apart.
        with pulse.heat.exempt():
            self._work_off()

    def _work_off(self) -> None:
        me = threading.get_ident()
        try:
            while not self._stopping.is_set() and self._clock() >= self._resume_at:
                with self._lock:
                    self._busy_since[me] = self._clock()
                if not self.step():
                    return
        except errors.StateUnusableError as error:
            self._pause(error)
            log.warning("%s: %s", error.code, error.message)
        except Exception:
            log.exception("a thread of the jobs failed; another continues")
        finally:
            with self._lock:
                self._busy_since.pop(me, None)
                self._threads.discard(threading.current_thread())
            self._store.close()

    def _has_work(self) -> bool:
        try:
            return self._store.has_work(self._pauses.current())
        except errors.StateUnusableError as error:
            self._pause(error)
            log.warning("%s: %s", error.code, error.message)
            return False


def _is_of_the_item(error: CaskError, claim: Claim) -> bool:
    """Whether a model fails at this item, however often it is asked: code raised, or anything failed several times."""
    if claim.task == CODE and type(error) is CaskError:
        return True
    return type(error) in (CaskError, errors.ModelCrashedError) and claim.attempt >= MAX_CRASHES


def _may_be_at_fault(error: CaskError) -> bool:
    """Whether this attempt says something against the image: it may have ended the engine, or kept it busy for ever.

    An engine that was away before says nothing, however long it is away.
    """
    is_of_model = type(error) is CaskError or isinstance(error, errors.DeadlineExceededError | errors.ModelCrashedError)
    return is_of_model or (isinstance(error, errors.EngineAwayError) and error.was_working)
