"""The way to a Redis that keeps jobs: atomic scripts, and nobody waits long for one that is away. A leaf.

After a failure one caller at a time tries again, once a second; all others are told at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from app.errors import StateUnusableError, StorageFullError
from app.storage.circuit_breaker import CircuitBreaker
from app.storage.redis_state import RedisState

# For each answer of Redis, and for a connection.
TIMEOUT_SECONDS = 1.0
# So long nobody asks a Redis that has failed.
AWAY_SECONDS = 1.0
RETRY_AFTER_SECONDS = 1.0
# Memory comes back as jobs end.
FULL_RETRY_AFTER_SECONDS = 60.0
# So long this machine's own clock, which nobody can set, is trusted to go on from what Redis said.
CLOCK_SECONDS = 10.0
FOLDER = Path(__file__).parent / "lua"


class Link:
    """One Redis. ``url`` has the password in it and is never shown; ``place`` is what may be. Thread-safe."""

    def __init__(self, url: str, place: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        breaker = CircuitBreaker(f"the Redis of the jobs at {place}", pause_seconds=AWAY_SECONDS, clock=clock)
        self._redis = RedisState(url, TIMEOUT_SECONDS, breaker, _unusable, _full)
        # What Redis said of the time, less this machine's clock then, and until when that holds.
        self._offset = (0.0, float("-inf"))

    def now(self) -> float:
        """Seconds since 1970 as Redis has them: the same for all machines, however their clocks are set.

        Raises StateUnusableError.
        """
        offset, until = self._offset
        if self._clock() > until:
            seconds, microseconds = self.ask("TIME")
            clock = self._clock()
            offset = int(seconds) + int(microseconds) / 1e6 - clock
            self._offset = (offset, clock + CLOCK_SECONDS)
        return offset + self._clock()

    def ask(self, *command: Any) -> Any:
        """One command, one answer. Raises StateUnusableError, and StorageFullError where Redis has no memory left."""
        with self._redis.use() as client:
            return client.execute_command(*command)

    def run(self, script: str, prefix: str, *arguments: Any) -> Any:
        """One script of the folder ``lua``, as one step that is done whole or not at all. Raises as ``ask``."""
        with self._redis.use():
            return self._scripts[script](keys=[prefix], args=arguments)

    @cached_property
    def _scripts(self) -> dict[str, Any]:
        """By name, each behind what all have in common."""
        common = (FOLDER / "common.lua").read_text()
        return {
            each.stem: self._redis.client.register_script(common + each.read_text()) for each in FOLDER.glob("*.lua")
        }


def _unusable(reason: str) -> StateUnusableError:
    return StateUnusableError(
        "The Redis that keeps the jobs cannot be used: %(reason)s.",
        hint="Send it again after the time in Retry-After; if it stays so, tell the operator of this service.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        reason=reason,
    )


def _full() -> StorageFullError:
    return StorageFullError(
        "The Redis that keeps the jobs has no memory left.",
        hint="Remove jobs whose results you have (DELETE), or come later; the operator sets the limit.",
        retry_after_seconds=FULL_RETRY_AFTER_SECONDS,
    )
