"""Connections to the Redis of the settings: each waits for so long and tries nothing twice. A leaf.

Redis' library reads the system's certificates anew for each connection, 60 ms of a processor: a burst of callers after
the start would take seconds and be taken for a Redis that is down. Here a process reads them once.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

CA_FILE = "ssl_ca_certs"

_contexts: dict[str, ssl.SSLContext] = {}
_lock = threading.Lock()


def opened(url: str, seconds: float, connect_seconds: float) -> Any:
    """An open connection. ``url``: as ``Settings.redis_address`` has it. Raises Redis' own errors and OSError."""
    # Imported here: it takes longer than all else at the start, and only few have a Redis.
    from redis.connection import Connection, parse_url

    given = parse_url(url)
    given.pop("connection_class", None)
    patience = {**options(url, seconds), "socket_connect_timeout": connect_seconds}
    kind = patience.pop("connection_class", Connection)
    connection = kind(**given, **patience)
    connection.connect()
    return connection


def options(url: str, seconds: float) -> dict[str, Any]:
    """What a client of Redis' library is made with besides the address, for those who want a client."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    patience: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        # One question less for each connection: which form of answers, and who asks.
        "protocol": 2,
        "driver_info": None,
    }
    address = urlsplit(url)
    if address.scheme == "rediss":
        patience["connection_class"] = _encrypted()
        # Read before anybody waits; what cannot be read now is told when a connection wants it.
        with contextlib.suppress(OSError):
            _trust(parse_qs(address.query).get(CA_FILE, [""])[0])
    return patience


@functools.cache
def _encrypted() -> Any:
    from redis.connection import SSLConnection

    class Encrypted(SSLConnection):
        """A connection that shares what its process believes with all others."""

        def _wrap_socket_with_ssl(self, sock: Any) -> ssl.SSLSocket:
            return _trust(self.ca_certs or "").wrap_socket(sock, server_hostname=self.host)

    return Encrypted


def _trust(ca_file: str) -> ssl.SSLContext:
    """Trusted certificates: the system's authorities, and those of a file. Names are compared. Raises OSError."""
    with _lock:
        if ca_file not in _contexts:
            context = ssl.create_default_context()
            if ca_file:
                context.load_verify_locations(ca_file)
            _contexts[ca_file] = context
        return _contexts[ca_file]
