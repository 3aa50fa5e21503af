"""Mirrors answered calls of a model with code to its shadow version, inside the engine: the values are here already."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from app.engine.batcher import Work
from app.engine.changes import Changes
from app.engine.shadows import ShadowedCall, Shadows
from app.engine.worker import Reply, Workers

# Copies compete with callers for cores.
MOST_A_SECOND = 10.0
# Nobody waits for a copy.
PATIENCE_SECONDS = 60.0


class CodeShadows:
    """Thread-safe. ``clock``: monotonic, the pace of copies."""

    def __init__(
        self, workers: Workers, changes: Changes, shadows: Shadows, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers, self._changes, self._shadows, self._clock = workers, changes, shadows, clock
        self._lock = threading.Lock()
        # Model → when its next copy may be made.
        self._next: dict[str, float] = {}

    def offer(self, work: Work, reply: Reply) -> None:
        """Ask the shadow what was asked, once the caller has the answer. Costs a look where there is no shadow."""
        model, _, version = work.model_key.partition("@")
        roles = self._changes.roles.get(model)
        if roles is None or not roles.shadow or roles.active != version or not isinstance(reply.answer, bytes):
            return
        slot = self._workers.slots.get(f"{model}@{roles.shadow}")
        if slot is None or slot.manifest.code is None or not self._is_time(model):
            self._shadows.drop(model, roles.shadow)
            return
        asked = ShadowedCall(model, version, roles.shadow, reply.answer, slot.manifest.code.tolerance, work.request_id)
        now = self._workers.clock()
        copy = replace(
            work,
            model_key=slot.manifest.key,
            digest=slot.manifest.digest,
            arrived=now,
            deadline=now + PATIENCE_SECONDS,
            is_cancelled=False,
            reply=lambda shadowed: self._shadows.note_call(asked, shadowed),
        )
        if not self._workers.offer(copy):
            self._shadows.drop(model, roles.shadow)

    def _is_time(self, model: str) -> bool:
        now = self._clock()
        with self._lock:
            is_time = now >= self._next.get(model, 0.0)
            if is_time:
                self._next[model] = now + 1 / MOST_A_SECOND
        return is_time
