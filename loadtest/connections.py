"""Requests over kept connections, by geventhttpclient's pool and parser.

Its client merges and checks all headers twice for each request, for it can't know where they come from. Here they are
ours, and what a generator takes of a machine is missing to the server beside it.
"""

from __future__ import annotations

import re
import select
import ssl
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import gevent.ssl
from gevent.monkey import get_original
from geventhttpclient.connectionpool import ConnectionPool, SSLConnectionPool
from geventhttpclient.response import HTTPConnectionClosed, HTTPSocketPoolResponse
from geventhttpclient.url import URL

READABLE = select.POLLIN
PORTS = {"http": 80, "https": 443}
# An answer with some hundred boxes is read at once.
BLOCK_BYTES = 16384
# A connection that was idle so long may be closed by the server just when it is used again; that shows at once. One
# that is closed later, or was in use, is the server's failure.
IDLE_SECONDS = 0.5
RACE_SECONDS = 0.25
# Sent twice, they would be two.
NOT_REPEATED = "/v1/jobs"
# RFC 9112, section 3.2: no blank and no control character; a page could name an asset with one.
TARGET = re.compile(r"/[!-~]*")


class Fields(dict[str, str]):
    """The header fields of an answer, by their names in small letters; several of one name are one list (RFC 9110)."""

    def add(self, field: str, value: str) -> None:
        """Take a field as it comes from the wire."""
        name = field.lower()
        self[name] = f"{self[name]}, {value}" if name in self else value


def factory(ca_file: str) -> Callable[..., ssl.SSLContext]:
    """Makes contexts as geventhttpclient asks for them: with its own authorities, and those in the file."""

    def make(*arguments: Any, **named: Any) -> ssl.SSLContext:
        # gevent's, whose sockets let others run while they wait.
        context: ssl.SSLContext = gevent.ssl.create_default_context(*arguments, **named)
        if ca_file:
            context.load_verify_locations(ca_file)
        return context

    return make


# The kernel's own, not gevent's, which is for those who wait.
poll = get_original("select", "poll")


class _Polled:
    """Asks an idle connection by poll(2) whether it still is one: the pool's select(2) knows no file beyond 1 023.

    Beyond, each request would open a connection of its own, and the server would be measured by that.
    """

    def _is_socket_alive(self, sock: Any) -> bool:
        if sock.fileno() < 0:
            return False
        asked = poll()
        asked.register(sock, READABLE)
        return not asked.poll(0)


class PlainPool(_Polled, ConnectionPool):
    """Connections without TLS."""


class SecurePool(_Polled, SSLConnectionPool):
    """Connections with TLS."""


class Connections:
    """At most ``size`` connections to one address, kept open between requests. Certificates are checked.

    A path of the URL stands before each path that is asked for. ``ca_file``: authorities besides the system's.
    """

    def __init__(self, url: str, size: int, ca_file: str = "") -> None:
        address = URL(url)
        port = address.port or PORTS[address.scheme]
        place = (address.host, port, address.host, port)
        # The caller limits the time of the whole request; a limit of each read besides would be a timer a read.
        limits: dict[str, Any] = {"size": size, "connection_timeout": None, "network_timeout": None}
        self._prefix = address.path.rstrip("/")
        if address.scheme == "https":
            limits["ssl_context_factory"] = factory(ca_file)
        self._is_plain = address.scheme == "http"
        pool = PlainPool if self._is_plain else SecurePool
        self._pool = pool(*place, **limits)
        self._last: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self.repeated = 0
        host = f"[{address.host}]" if ":" in address.host else address.host
        self._host = host if port == PORTS[address.scheme] else f"{host}:{port}"

    def request(self, method: str, path: str, *, body: bytes, headers: dict[str, str]) -> HTTPSocketPoolResponse:
        """Send a request, and read the answer's head. Raises OSError, HTTPParseError, HTTPConnectionClosed.

        Whatever ends it, the connection is back in the pool or closed. It is sent again, once for each idle connection,
        where the server closed that while the request was on its way, as RFC 9112, section 9.3.1, has clients do.
        """
        data = self.head(method, path, headers, len(body)) + body
        while True:
            sock = self._pool.get_socket()
            sent_at = time.monotonic()
            was_idle = sent_at - self._last.get(sock, sent_at) >= IDLE_SECONDS
            try:
                self._send(sock, data)
                answer = HTTPSocketPoolResponse(
                    sock, self._pool, block_size=BLOCK_BYTES, method=method, headers_type=Fields
                )
            except HTTPConnectionClosed:
                is_race = was_idle and time.monotonic() - sent_at < RACE_SECONDS
                if not is_race or (method == "POST" and path.startswith(NOT_REPEATED)):
                    raise
                self.repeated += 1
                continue
            self._last[sock] = time.monotonic()
            return answer

    def _send(self, sock: Any, data: bytes) -> None:
        try:
            # Mostly all of it fits at once; sendall would ask for the size of the buffer first.
            sent = sock.send(data)
            if sent < len(data):
                sock.sendall(memoryview(data)[sent:])
            if self._is_plain:
                # Nothing is there yet; to read all the same would cost a call to the kernel and an exception.
                sock._wait(sock._read_event)
        except (ConnectionResetError, BrokenPipeError):
            # Refused before all of the body was read: the refusal may be there already.
            pass
        except BaseException:
            self._pool.release_socket(sock)
            raise

    def close(self) -> None:
        """Close those that are idle."""
        self._pool.close()

    def head(self, method: str, path: str, headers: dict[str, str], size: int) -> bytes:
        """What stands before the body. Raises ValueError for a path or a header that would be more than one line."""
        if not TARGET.fullmatch(path):
            raise ValueError(f"The path {path!r} can't be sent; expected one without blanks, from / on.")
        path = self._prefix + path
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if fields.count("\n") != len(headers) or fields.count("\r") != len(headers):
            raise ValueError(f"A header of {', '.join(headers)} has more than one line.")
        length = f"Content-Length: {size}\r\n" if size or method == "POST" else ""
        return f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{fields}{length}\r\n".encode("latin-1")
