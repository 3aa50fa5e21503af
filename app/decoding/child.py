"""``python -m app.decoding.child``: decodes one image after the other, for a process that can end it.

Its socket is stdin. A frame is two lengths, JSON, and bytes: there the head of an image and its file, back a picture
or an error.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

from app.errors import ImageTooComplexError, ImageUndecodableError, RequestError
from app.image_headers.header import Head
from app.image_headers.inspection import Look
from app.inference import images
from app.models.manifests import InputSpec
from app.texts import packed

LENGTHS = struct.Struct("<II")
# What may take long steps back behind those who wait for less, the engine (ENGINE_NICE, 5) included.
NICE = 10
# What Python and libraries take beside the pixels.
SPARE_BYTES = 48 * 1024**2
# What ends us where an image takes more processor time than any may. By the clock the parent decides.
TOO_LONG = signal.SIGPROF


def main() -> None:
    """Work until the other side hangs up."""
    os.nice(NICE)
    # Where memory is short all the same, the kernel ends us before anybody else.
    Path("/proc/self/oom_score_adj").write_text("1000")
    base_bytes = _address_bytes()
    with socket.socket(fileno=0) as connection:
        while (frame := receive(connection)) is not None:
            asked, data = frame
            resource.setrlimit(
                resource.RLIMIT_AS, (base_bytes + asked["bytes"] + 2 * len(data) + SPARE_BYTES, resource.RLIM_INFINITY)
            )
            signal.setitimer(signal.ITIMER_PROF, asked["seconds"])
            answer, pixels = _decode(asked, data)
            signal.setitimer(signal.ITIMER_PROF, 0)
            del data, frame
            send(connection, answer, pixels)


def send(connection: socket.socket, about: dict[str, Any], data: bytes) -> None:
    """One frame. Raises OSError, TimeoutError after the socket's timeout."""
    head = json.dumps(about).encode()
    connection.sendall(LENGTHS.pack(len(head), len(data)) + head)
    connection.sendall(data)


def receive(connection: socket.socket, until: float | None = None) -> tuple[dict[str, Any], bytes] | None:
    """One frame, or None when the other side has hung up. ``until``: a moment of ``time.monotonic``.

    Raises OSError, TimeoutError at that moment, however many pieces it comes in.
    """
    lengths = _exactly(connection, LENGTHS.size, until)
    if lengths is None:
        return None
    head_bytes, data_bytes = LENGTHS.unpack(lengths)
    head, data = _exactly(connection, head_bytes, until), _exactly(connection, data_bytes, until)
    return None if head is None or data is None else (json.loads(head), bytes(data))


def _exactly(connection: socket.socket, count: int, until: float | None) -> bytearray | None:
    data, at = bytearray(count), 0
    with memoryview(data) as view:
        while at < count:
            if until is not None:
                limit(connection, until)
            got = connection.recv_into(view[at:])
            if not got:
                return None
            at += got
    return data


def limit(connection: socket.socket, until: float) -> None:
    """Let the next call wait no longer. Raises TimeoutError where no time is left."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    connection.settimeout(seconds)


def _decode(asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    head = Head(data=data, **asked["head"])
    try:
        picture = images.decode(Look(asked["kind"], head, asked["size"]), InputSpec(**asked["spec"]))
    except RequestError as error:
        return _told(error), b""
    except MemoryError:
        dear = ImageTooComplexError(
            "The %(format)s image needs more than %(count)s bytes of memory while it is decoded.",
            hint="Open it in another program and save it again.",
            format=asked["kind"],
            count=asked["bytes"],
        )
        return _told(dear), b""
    about = {"shape": picture.pixels.shape, "width": picture.width, "height": picture.height}
    return {**about, "scale_x": picture.scale_x, "scale_y": picture.scale_y}, picture.pixels.tobytes()


def _told(error: RequestError) -> dict[str, Any]:
    return {"code": error.code, "message": packed(error.message), "hint": packed(error.hint)}


def _address_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


ERRORS = {each.code: each for each in (ImageTooComplexError, ImageUndecodableError)}

if __name__ == "__main__":
    main()
