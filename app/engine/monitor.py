"""Looks after the models while they serve: are their stored answers still given, and what did their samples look like?

One thread of least priority. A self-test runs each stored question through the network that serves, every so often; the
first one is the check at loading. The reference for drift is made of a model's sample pictures once enough images have
come for a comparison, and kept in ``STATE_DIR/drift``: who never sends any pays nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app import tasks
from app.engine.drift import LEAST_IMAGES, Summary, from_json
from app.engine.worker import Slot, Workers
from app.errors import CaskError, ModelNotReadyError
from app.models.manifests import Manifest
from app.storage import json_files
from app.supervision import pulse

log = logging.getLogger("cask.engine")

FOLDER = "drift"
# How often to look whether there is something to do.
PERIOD_SECONDS = 5.0
LEAST_PRIORITY = 19
# So much of a worker's time the samples may take: a runtime computes in threads of its own, whose priority is that of
# callers' work (docs/decisions/0119-the-way-of-a-prediction.md).
SAMPLES_SHARE = 0.1

# Sample pictures of a model as it gets them, with the originals' width and height.
Samples = Callable[[Manifest], Iterator[tuple[np.ndarray, tuple[int, int]]]]


class ModelMonitor:
    """Begins and ends with the engine's server."""

    def __init__(
        self,
        workers: Workers,
        state_dir: Path,
        samples: Samples,
        self_test_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``self_test_seconds``: between two self-tests of a model; 0 makes none."""
        self._workers = workers
        self._folder = state_dir / FOLDER
        self._samples = samples
        self._self_test_seconds = self_test_seconds
        self._clock = clock
        self._is_stopped = threading.Event()
        self._without_samples: set[str] = set()

    def start(self) -> None:
        """Look after the models in a thread."""
        threading.Thread(target=self._run, name="inspector", daemon=True).start()

    def stop(self) -> None:
        """No further look is begun."""
        self._is_stopped.set()

    def look(self, now: float | None = None) -> None:
        """Do what is due at this moment of ``time.time``. Never raises."""
        moment = time.time() if now is None else now
        for slot in list(self._workers.slots.values()):
            if slot.state == "ready" and not self._is_stopped.is_set():
                self._test(slot, moment)
                self._compare(slot)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_PRIORITY)
        with pulse.heat.exempt():
            self._look_for_ever()

    def _look_for_ever(self) -> None:
        while not self._is_stopped.wait(PERIOD_SECONDS):
            self.look()

    def _test(self, slot: Slot, moment: float) -> None:
        last = slot.watch.golden.get("at", moment)
        # The time of day may have been set back: what lies ahead then says nothing.
        if not self._self_test_seconds or slot.model is None or 0 <= moment - last < self._self_test_seconds:
            return
        error = ""
        try:
            slot.model.golden_check()
        except ModelNotReadyError:
            # Its process is being started again: asked the next time.
            return
        except CaskError as failure:
            error = failure.message
            # Not its trace: what differs stands in the message.
            log.error("self-test of %s: %s", slot.manifest.key, error)  # noqa: TRY400
        except (Exception, SystemExit) as failure:
            error = f"{type(failure).__name__}: {failure}"
            log.exception("self-test of %s failed in an unexpected way", slot.manifest.key)
        slot.watch.golden = {"at": round(moment, 3), "is_passed": not error, "error": error}

    def _compare(self, slot: Slot) -> None:
        watch, digest = slot.watch, slot.manifest.digest
        if (
            slot.manifest.code is not None
            or watch.reference
            or watch.summary.images < LEAST_IMAGES
            or digest in self._without_samples
        ):
            return
        watch.reference = self._kept(slot) or self._made(slot)
        if watch.reference is None:
            self._without_samples.add(digest)

    def _path(self, slot: Slot) -> Path:
        form = slot.form or "as-it-is"
        return self._folder / f"{slot.manifest.digest.removeprefix('sha256:')[:16]}-{form[:16]}.json"

    def _kept(self, slot: Slot) -> Summary | None:
        try:
            return from_json(slot.manifest.labels, json.loads(self._path(slot).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _made(self, slot: Slot) -> Summary | None:
        """What the model answers to its samples, picture by picture, so that callers hardly wait."""
        summary, options = Summary(slot.manifest.labels, growth=1.0), slot.manifest.default_options()
        try:
            for image, size in self._samples(slot.manifest):
                is_held = self._workers.slots.get(slot.manifest.key) is slot
                if self._is_stopped.is_set() or slot.model is None or not is_held:
                    return None
                began = self._clock()
                (answer,) = slot.model.predict([image], [options])
                self._is_stopped.wait((self._clock() - began) * (1 / SAMPLES_SHARE - 1))
                if not isinstance(answer, CaskError):
                    summary.note(image, size, *tasks.BY_NAME[slot.manifest.task].seen(answer))
            if summary.images:
                self._keep(slot, summary.to_json())
        except (CaskError, OSError) as error:
            log.warning("there is no reference for the drift of %s: %s", slot.manifest.key, error)
        except (Exception, SystemExit):
            log.exception("the reference for the drift of %s could not be made", slot.manifest.key)
        return summary if summary.images else None

    def _keep(self, slot: Slot, table: dict[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        json_files.replace(self._path(slot), table)
