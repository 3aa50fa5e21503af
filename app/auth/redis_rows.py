"""Tokens in a Redis that several machines share, by their hashes as on disk. A leaf.

A request never waits long for Redis: after a failure a thread tries again beside the requests.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import uuid
from collections.abc import Callable
from typing import Any

from app.auth.rows import Change, Snapshot, Token, document, of_document, oldest_first
from app.errors import StateUnusableError
from app.storage.circuit_breaker import PAUSE_SECONDS, CircuitBreaker
from app.storage.redis_state import RedisState
from app.texts import Text

# The number is the form's: another one is another set of keys.
PREFIX = "cask:tokens:1:"
ROWS, USED, MARK, ENDED = (PREFIX + name for name in ("rows", "used", "mark", "ended"))
# For each answer: of requests, and of an operator's command.
TIMEOUT_SECONDS = 0.25
COMMAND_TIMEOUT_SECONDS = 5.0
RETRY_AFTER_SECONDS = math.ceil(PAUSE_SECONDS)


class RedisRows:
    """As ``TokenRows``. ``url`` has the password in it and is never shown; ``place`` is what may be. Thread-safe."""

    def __init__(
        self, url: str, place: str, *, grace_seconds: float = 0.0, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._grace_seconds = grace_seconds
        breaker = CircuitBreaker(f"the Redis of the tokens at {place}", self._probe)
        self._redis = RedisState(url, timeout_seconds, breaker, _unusable, _full)
        # Whether there were tokens in it: an empty one has then lost them, and nobody shall get 401 for that.
        self._had_any = False

    def change(self, decide: Callable[[list[Token]], Change]) -> None:
        """As ``TokenRows``."""
        from redis.exceptions import WatchError

        while True:
            with contextlib.suppress(WatchError), self._redis.use() as client, client.pipeline() as pipeline:
                pipeline.watch(MARK)
                change = decide(self._read(pipeline))
                if change.written or change.removed:
                    self._write(pipeline, change)
                return

    def all(self) -> list[Token]:
        """As ``TokenRows``."""
        with self._redis.use() as client:
            return self._read(client)

    def look(self, mark: str | None) -> Snapshot | None:
        """As ``TokenRows``."""
        with self._redis.use() as client:
            if mark is not None and self._text(client.get(MARK)) == mark:
                return None
            # No transaction: a Redis whose memory is full refuses to queue even what is read. The mark comes first, so
            # what is written in between is read once more.
            with client.pipeline(transaction=False) as pipeline:
                pipeline.get(MARK).hgetall(ROWS).zrangebyscore(ENDED, time.time(), "+inf")
                found, rows, ended = pipeline.execute()
            self._refuse_if_lost(found)
            tokens = (of_document(json.loads(each)) for each in rows.values())
            return Snapshot(self._text(found), {each.id: each for each in tokens}, frozenset(map(self._text, ended)))

    def end_session(self, session_id: str, until: float, now: float) -> None:
        """As ``TokenRows``."""
        with self._redis.use() as client, client.pipeline() as pipeline:
            pipeline.zremrangebyscore(ENDED, "-inf", now).zadd(ENDED, {session_id: until}).set(MARK, uuid.uuid4().hex)
            pipeline.execute()

    def note_use(self, token_id: str, moment: float) -> None:
        """As ``TokenRows``."""
        with self._redis.use() as client:
            client.hset(USED, token_id, moment)

    def grace_seconds(self, error: BaseException) -> float:
        """So long as the settings say: meanwhile nobody here hears of a revocation."""
        return self._grace_seconds

    def close(self) -> None:
        """As ``TokenRows``."""
        self._redis.client.close()

    def _read(self, client: Any) -> list[Token]:
        rows, used = client.hgetall(ROWS), client.hgetall(USED)
        moments = {self._text(key): float(value) for key, value in used.items()}
        return oldest_first(of_document(json.loads(row), moments.get(self._text(key))) for key, row in rows.items())

    def _write(self, pipeline: Any, change: Change) -> None:
        pipeline.multi()
        for known_as in change.removed:
            pipeline.hdel(ROWS, known_as).hdel(USED, known_as)
        for token in change.written:
            pipeline.hset(ROWS, token.id, json.dumps(document(token)))
        pipeline.set(MARK, uuid.uuid4().hex).execute()

    def _refuse_if_lost(self, mark: bytes | None) -> None:
        if mark is None and self._had_any:
            raise ValueError("it has lost the tokens that were in it")
        self._had_any = self._had_any or mark is not None

    def _probe(self) -> None:
        self._refuse_if_lost(self._redis.client.get(MARK))

    @staticmethod
    def _text(found: bytes | None) -> str:
        return "" if found is None else found.decode()


def _unusable(reason: str) -> StateUnusableError:
    return StateUnusableError(
        "The Redis that keeps the tokens cannot be used: %(reason)s.",
        hint="Send it again after the time in Retry-After; if it stays so, tell the operator of this service.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        reason=reason,
    )


def _full() -> StateUnusableError:
    return _unusable(Text("it has no memory left"))
