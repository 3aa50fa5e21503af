"""Kept answers in a Redis that several machines share: JSON, with an age; how much it holds is Redis' own setting.

A backend of Flask-Caching, as far as it is asked: for many keys at once. Its own for Redis pickles, and waits for
seconds where Redis is down. Here a request never connects, so it never waits for a name server either: connections are
opened beside, by ``probe``, and a request borrows one for at most ``TIMEOUT_SECONDS``.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping
from typing import Any

from flask import Flask
from flask_caching.backends.base import BaseCache

from app.storage.redis_connections import opened

PREFIX = "cask:answer:"
# For each answer of Redis; a request that meets a hung one has lost so much, once.
TIMEOUT_SECONDS = 0.1
CONNECT_TIMEOUT_SECONDS = 1.0
# For each web process. One is in use for a tenth of a millisecond a request.
CONNECTIONS = 4
BORROW_SECONDS = 0.02


class RemoteStore(BaseCache):
    """The server. Values are texts. ``url`` has the password in it and is never shown."""

    def __init__(self, url: str, default_timeout: int) -> None:
        super().__init__(default_timeout)
        self._url = url
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> RemoteStore:
        """Called by Flask-Caching. ``kwargs``: ``url``, ``default_timeout``."""
        return cls(kwargs["url"], kwargs["default_timeout"])

    def get_many(self, *keys: str) -> list[bytes | None]:
        """A text for each key, or None. Raises ConnectionError, TimeoutError and Redis' own errors."""
        found: list[bytes | None] = self._ask([("MGET", *(PREFIX + key for key in keys))])[0]
        return found

    def set_many(self, mapping: Mapping[str, str], timeout: Any = None) -> list[str]:
        """Keep texts. Raises as ``get_many``."""
        seconds = self.default_timeout if timeout is None else timeout
        self._ask([("SET", PREFIX + key, text, "EX", seconds) for key, text in mapping.items()])
        return list(mapping)

    def probe(self) -> None:
        """Open the connections anew and ask whether all is well. Takes as long as it takes; raises as ``get_many``."""
        self._close()
        connections = [opened(self._url, TIMEOUT_SECONDS, CONNECT_TIMEOUT_SECONDS) for _ in range(CONNECTIONS)]
        for connection in connections:
            self._idle.put(connection)
        self._ask([("PING",)])

    def _ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Send commands together and read their answers. A connection that failed is not used again."""
        try:
            connection = self._idle.get(timeout=BORROW_SECONDS)
        except queue.Empty:
            raise ConnectionError("no connection is free") from None
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [connection.read_response() for _ in commands]
        except BaseException:
            connection.disconnect()
            raise
        self._idle.put(connection)
        return answers

    def _close(self) -> None:
        while True:
            try:
                self._idle.get_nowait().disconnect()
            except queue.Empty:
                return
