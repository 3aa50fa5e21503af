"""One HTTP request and its answer on a non-blocking socket. Knows bytes; no clock, no waiting."""

from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple

from bench.requests import Request

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
RECEIVE_BYTES = 65536
# What connect() says while it is not done: EINPROGRESS of Linux.
IN_PROGRESS = 115


class PeerClosedError(Exception):
    """The connection ended before an answer was whole. ``is_silent``: not one byte of an answer had come."""

    def __init__(self, *, is_silent: bool) -> None:
        super().__init__("the connection ended before the answer was whole")
        self.is_silent = is_silent


class Response(NamedTuple):
    """One answer. ``can_stay``: whether the connection may carry another request.

    ``retry_after_seconds``: when the server asks to be asked again; 0 where it does not say.
    """

    status: int
    body: bytes
    can_stay: bool
    retry_after_seconds: float = 0.0


class Exchange:
    """Sends one request and collects its answer; the owner says when the socket can be written or read."""

    __slots__ = ("_length", "_out", "_received", "_response_head", "_retry_after", "is_sent", "sock")

    def __init__(self, sock: socket.socket, request: Request) -> None:
        self.sock = sock
        self.is_sent = False
        self._out: list[bytes | memoryview] = list(request.buffers)
        self._retry_after = 0.0
        self._received = bytearray()
        self._response_head: tuple[int, int, bool] | None = None  # status, where the body begins, can_stay
        self._length: int | None = None  # of the whole answer in bytes; None: not known before it ends

    def write(self) -> None:
        """Send as much as goes now. A server that refuses may have stopped reading; its answer is then to be read."""
        try:
            while self._out:
                self._drop(self.sock.sendmsg(self._out))
        except BlockingIOError:
            return
        except OSError:
            self._out = []
        self.is_sent = True

    def read(self) -> Response | None:
        """Take what has come; the answer once it is whole, None before. Raises PeerClosedError."""
        while True:
            try:
                data = self.sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:
                return self._at_end()
            self._received += data
            response = self._parse()
            if response is not None:
                return response

    def _drop(self, count: int) -> None:
        """Forget the first ``count`` bytes of what is to be sent."""
        while self._out and count >= len(self._out[0]):
            count -= len(self._out.pop(0))
        if count:
            self._out[0] = memoryview(self._out[0])[count:]

    def _parse(self) -> Response | None:
        if self._response_head is None and not self._parse_head():
            return None
        assert self._response_head is not None
        status, body_at, can_stay = self._response_head
        if self._length is not None:
            if len(self._received) < self._length:
                return None
            # What a server says while the request is still going out may be followed by a reset.
            return Response(
                status, bytes(self._received[body_at : self._length]), can_stay and self.is_sent, self._retry_after
            )
        if self._received.endswith(LAST_CHUNK):
            return Response(
                status, _dechunk(bytes(self._received[body_at:])), can_stay and self.is_sent, self._retry_after
            )
        return None

    def _parse_head(self) -> bool:
        end = self._received.find(HEAD_END)
        if end < 0:
            return False
        head = bytes(self._received[:end]).lower()
        body_at = end + len(HEAD_END)
        can_stay = b"close" not in _header(head, b"connection") and head.startswith(b"http/1.1")
        seconds = _header(head, b"retry-after")
        self._retry_after = float(seconds) if seconds.isdigit() else 0.0
        self._response_head = (int(head[9:12]), body_at, can_stay)
        length = _header(head, b"content-length")
        if length:
            self._length = body_at + int(length)
        return True

    def _at_end(self) -> Response:
        """The server closed: the whole answer where its length was not announced, an error otherwise."""
        is_whole = self._response_head is not None and self._length is None
        if not is_whole or self._response_head is None:
            raise PeerClosedError(is_silent=not self._received)
        status, body_at, _ = self._response_head
        return Response(status, bytes(self._received[body_at:]), False, self._retry_after)


def connect(port: int) -> socket.socket:
    """A non-blocking socket on its way to a port of loopback; bytes may be sent once it can be written."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    code = sock.connect_ex(("127.0.0.1", port))
    if code not in (0, IN_PROGRESS):
        sock.close()
        raise PeerClosedError(is_silent=True)
    return sock


def close(sock: socket.socket) -> None:
    """Close without a word, whatever state it is in."""
    with contextlib.suppress(OSError):
        sock.close()


def _header(head: bytes, name: bytes) -> bytes:
    """The value of one header of a head in small letters; empty where it has none."""
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b""


def _dechunk(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        body, data = body + rest[:length], rest[length + 2 :]
    return body
