"""A Redis that a part of the service's state is in: nobody waits long for one that is away. A leaf.

For what may not be lost and is nowhere else. Counts and cached answers, which have a second place, use the circuit
breaker alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from app.errors import CaskError
from app.storage.circuit_breaker import CircuitBreaker
from app.storage.redis_connections import options
from app.texts import Text


class RedisState:
    """One Redis and one client of it. ``url`` has the password in it and is never shown. Thread-safe."""

    def __init__(
        self,
        url: str,
        timeout_seconds: float,
        breaker: CircuitBreaker,
        unusable: Callable[[str], CaskError],
        full: Callable[[], CaskError],
    ) -> None:
        """``timeout_seconds``: for each answer, and for a connection.

        ``unusable`` makes the error of a reason, ``full`` that of a memory without room.
        """
        self._url, self._timeout_seconds, self._breaker = url, timeout_seconds, breaker
        self._unusable, self._full = unusable, full

    @cached_property
    def client(self) -> Any:
        """Redis' own, for a probe; everybody else uses it by ``use``."""
        # Imported here: it takes longer than all else at the start, and only few have a Redis.
        from redis import Redis

        return Redis.from_url(self._url, **options(self._url, self._timeout_seconds))

    @contextlib.contextmanager
    def use(self) -> Iterator[Any]:
        """The client. Raises WatchError as it is, and what ``unusable`` and ``full`` make of any other failure.

        A ValueError within says that Redis answers, and what it answers is not what was left there.
        """
        from redis.exceptions import OutOfMemoryError, RedisError, ResponseError, WatchError

        if not self._breaker.allows():
            raise self._unusable(Text("it does not answer"))
        try:
            yield self.client
        except WatchError:
            # Somebody else wrote in between: no failure.
            raise
        except OutOfMemoryError as error:
            # It answers, and reading goes on.
            self._breaker.note_success()
            raise self._full() from error
        except (RedisError, OSError, ValueError) as error:
            self._breaker.note_failure(error)
            # Where it stands is not for callers; the log has it.
            reason = str(error).rstrip(".") if isinstance(error, ResponseError) else Text("it does not answer")
            raise self._unusable(reason) from error
        self._breaker.note_success()
