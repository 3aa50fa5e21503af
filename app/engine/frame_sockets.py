"""Frames over sockets: all bytes of one, however many pieces they come in. A leaf beside ``protocol``."""

from __future__ import annotations

import socket
import time

from app.engine import protocol
from app.engine.protocol import Frame


def receive(sock: socket.socket, until: float | None = None) -> Frame:
    """The next frame. ``until``: a moment of ``time.monotonic``; without it the socket's own timeout holds.

    Raises EOFError when the other side has hung up, TimeoutError at that moment, ProtocolError and OSError.
    """
    return protocol.read_frame(lambda count: _exactly(sock, count, until))


def send(sock: socket.socket, frame: Frame) -> None:
    """Send one frame. Raises ProtocolError, OSError, TimeoutError after the socket's timeout."""
    buffers = [memoryview(buffer) for buffer in protocol.encode(frame)]
    # At once: who reads would wake up for the head, and go to sleep again.
    sent = sock.sendmsg(buffers)
    for buffer in buffers:
        if sent < buffer.nbytes:
            sock.sendall(buffer[sent:])
        sent = max(0, sent - buffer.nbytes)


def _exactly(sock: socket.socket, count: int, until: float | None) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        if until is not None:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
        received = sock.recv_into(view)
        if not received:
            raise EOFError
        view = view[received:]
    return data
