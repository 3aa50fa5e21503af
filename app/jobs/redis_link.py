"""The way to a Redis that keeps jobs: atomic scripts, and nobody waits long for one that is away. A leaf.

After a failure one caller at a time tries again, once a second; all others are told at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from app.errors import StateUnusableError, StorageFullError
from app.storage.circuit_breaker import CircuitBreaker
from app.storage.redis_connections import options
from app.texts import Text

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
        self._url = url
        self._clock = clock
        self._breaker = CircuitBreaker(f"the Redis of the jobs at {place}", pause_seconds=AWAY_SECONDS, clock=clock)
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
        with self._failures():
            return self._client.execute_command(*command)

    def run(self, script: str, prefix: str, *arguments: Any) -> Any:
        """One script of the folder ``lua``, as one step that is done whole or not at all. Raises as ``ask``."""
        with self._failures():
            return self._scripts[script](keys=[prefix], args=arguments)

    @cached_property
    def _client(self) -> Any:
        # Imported here: it takes longer than all else at the start, and only few have a Redis.
        from redis import Redis

        return Redis.from_url(self._url, **options(self._url, TIMEOUT_SECONDS))

    @cached_property
    def _scripts(self) -> dict[str, Any]:
        """By name, each behind what all have in common."""
        common = (FOLDER / "common.lua").read_text()
        return {each.stem: self._client.register_script(common + each.read_text()) for each in FOLDER.glob("*.lua")}

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

        if not self._breaker.allows():
            raise _unusable(Text("it does not answer"))
        try:
            yield
        except OutOfMemoryError as error:
            self._breaker.note_success()
            raise _full() from error
        except (RedisError, OSError) as error:
            self._breaker.note_failure(error)
            # Where it stands is not for callers; the log has it.
            reason = str(error).rstrip(".") if isinstance(error, ResponseError) else Text("it does not answer")
            raise _unusable(reason) from error
        self._breaker.note_success()


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
