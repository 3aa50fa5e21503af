"""A store that may be down or slow: its trouble costs one request a moment, and no request an error."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.telemetry import metrics

log = logging.getLogger("cask.web")

# Slower than this is as bad as down.
SLOW_SECONDS = 0.1
# On a machine without a free core a store may look slow again and again, for a moment each.
LOG_PERIOD_SECONDS = 10.0


class Breaker:
    """Lets calls through to a store while it works. After a failure, or a slow answer, nobody asks it until ``probe``
    has found it well; that is done off the requests' way. Thread-safe.
    """

    def __init__(
        self,
        store: Any,
        probe: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        trouble: str = "",
    ) -> None:
        """``store``: as Flask-Caching has them. ``probe`` raises while it is not well; with ``trouble`` it is not asked
        before it was found well.
        """
        self._store = store
        self._probe = probe
        self._clock = clock
        self._lock = threading.Lock()
        self._logged = -math.inf
        self._is_told = False
        self.trouble = trouble
        self.failures_total = 0

    @property
    def is_open(self) -> bool:
        """Whether the store is left alone."""
        return bool(self.trouble)

    def get_many(self, keys: Sequence[str]) -> list[Any]:
        """What the store has for each key; None for all where it is left alone. Never raises."""
        found = self._try(lambda: self._store.get_many(*keys))
        return [None] * len(keys) if found is None else found

    def set_many(self, texts: Mapping[str, str]) -> bool:
        """Keep texts. False where it is left alone or could not. Never raises."""
        # Nobody waits for it, so that being slow is no reason to stop.
        return self._try(lambda: self._store.set_many(texts), slow_seconds=SLOW_SECONDS * 20) is not None

    def probe(self) -> None:
        """See whether it is well again. Never raises."""
        try:
            self._probe()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is still not well
            self._open(_words(error))
            return
        with self._lock:
            self.trouble, was_told, self._is_told = "", self._is_told, False
        if was_told:
            log.warning("kept answers can be used again")

    def _try(self, call: Callable[[], Any], slow_seconds: float = SLOW_SECONDS) -> Any:
        if self.trouble:
            return None
        began = self._clock()
        try:
            found = call()
        except Exception as error:  # noqa: BLE001 - a cache is never a reason to refuse anybody
            self._open(_words(error))
            return None
        seconds = self._clock() - began
        if seconds > slow_seconds:
            self._open(f"it took {seconds:.2f} s")
        return found

    def _open(self, trouble: str) -> None:
        with self._lock:
            is_news = not self._is_told and self._clock() - self._logged > LOG_PERIOD_SECONDS
            self.trouble = trouble
            self.failures_total += 1
            if is_news:
                self._logged, self._is_told = self._clock(), True
        metrics.CACHE_LOOKUPS.add(result="error")
        if is_news:
            log.warning("kept answers are left alone until they can be used again: %s", trouble)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
