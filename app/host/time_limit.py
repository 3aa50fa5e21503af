"""A time limit for all that goes through a connection; a socket's own timeout begins anew with each byte. A leaf."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ending(connection: socket.socket, seconds: float) -> Iterator[None]:
    """End a connection so long after now, whatever comes through it. The block then raises TimeoutError."""
    is_cut = threading.Event()
    # Its own descriptor: TLS takes the other one over.
    with socket.socket(fileno=os.dup(connection.fileno())) as own:

        def cut() -> None:
            is_cut.set()
            with contextlib.suppress(OSError):
                own.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        late = TimeoutError(f"no whole answer within {seconds:g} s")
        try:
            yield
        except (OSError, http.client.HTTPException):
            if is_cut.is_set():
                raise late from None
            raise
        finally:
            timer.cancel()
            timer.join()
        # What ends early may look whole.
        if is_cut.is_set():
            raise late
