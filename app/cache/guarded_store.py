"""The store of kept answers behind a circuit breaker: its trouble is never a reason to refuse anybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.storage.circuit_breaker import CircuitBreaker
from app.telemetry import metrics

# Slower than this is as bad as down.
SLOW_SECONDS = 0.1
NAME = "the store of kept answers"


class GuardedStore:
    """Texts by key in a backend of Flask-Caching, as long as that works and is quick. Thread-safe."""

    def __init__(self, backend: Any, breaker: CircuitBreaker, may_hold: Callable[[str], bool] | None = None) -> None:
        """``may_hold``: says in a moment that a key is not there for sure, where the backend can; else None."""
        self._backend = backend
        self.breaker = breaker
        self._may_hold = may_hold

    def get_many(self, keys: Sequence[str]) -> list[Any]:
        """What the store has for each key; None for all where it is left alone. Never raises."""
        if self._may_hold and self.breaker.state == "closed" and not any(map(self._may_hold, keys)):
            # Nearly every new picture: no lock of Python's is given away for it, and no page is read.
            return [None] * len(keys)
        found = self.breaker.call(lambda: _counted(self._backend.get_many, *keys), SLOW_SECONDS)
        return [None] * len(keys) if found is None else found

    def set_many(self, texts: Mapping[str, str]) -> bool:
        """Keep texts. False where it is left alone or could not. Never raises."""
        # Nobody waits for it, so that being slow is no reason to stop.
        return self.breaker.call(lambda: _counted(self._backend.set_many, texts), SLOW_SECONDS * 20) is not None


def _counted(ask: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return ask(*arguments)
    except Exception:
        metrics.CACHE_LOOKUPS.add(result="error")
        raise
