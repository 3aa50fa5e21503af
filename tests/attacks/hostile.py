"""Callers who mean ill: many requests at once from addresses of their own, and pictures that are dear to read."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tests import bad_input
from tests.servers import Server

# One that the service does not end by itself counts as never ended.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Shot:
    """One hostile request: where to, with what, and by when it wants its answer."""

    path: str
    body: bytes
    content_type: str
    timeout_seconds: float = 2.0
    is_computed: bool = True


@dataclass(frozen=True)
class End:
    """How one ended: status (0 without an answer), problem code and seconds."""

    path: str
    status: int
    code: str
    seconds: float


def shoot(server: Server, shots: list[Shot], at_once: int) -> list[End]:
    """Send all, so many at the same time, each number from an address of its own."""
    with ThreadPoolExecutor(at_once) as pool:
        addresses = (f"127.0.2.{number % at_once + 1}" for number in range(len(shots)))
        return list(pool.map(lambda shot, address: _shoot(server, shot, address), shots, addresses))


def shoot_for(server: Server, shots: list[Shot], at_once: int, seconds: float) -> list[End]:
    """All of them, and again, for at least so long."""
    ends, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        ends += shoot(server, shots, at_once)
    return ends


def _shoot(server: Server, shot: Shot, address: str) -> End:
    began = time.monotonic()
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=PATIENCE_SECONDS, source_address=(address, 0)
    )
    headers = {
        "Content-Type": shot.content_type,
        "X-Request-Timeout": f"{shot.timeout_seconds:g}",
        **({"Cache-Control": "no-store, no-cache"} if shot.is_computed else {}),
        "Connection": "close",
    }
    try:
        connection.request("POST", shot.path, shot.body, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return End(shot.path, 0, type(error).__name__, time.monotonic() - began)
    finally:
        connection.close()
    return End(shot.path, answer.status, _code(body), time.monotonic() - began)


def _code(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    if isinstance(document, dict):
        return str(document.get("code") or document.get("error", {}) or "")[:200]
    return ""


@contextmanager
def unfinished(server: Server, count: int, length: int, *, is_chunked: bool = False) -> Iterator[list[socket.socket]]:
    """So many uploads that send all but their last bytes, and then wait."""
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % length
    head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n" + framing + b"\r\n\r\n"
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        lines = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5, (f"127.0.2.{number + 1}", 0)))
            for number in range(count)
        ]
        list(pool.map(lambda line: _fill(line, head, length, is_chunked), lines))
        yield lines


def _fill(line: socket.socket, head: bytes, length: int, is_chunked: bool) -> None:
    piece = b"\xff" * 65536
    try:
        line.sendall(head)
        for _ in range(length // len(piece) - 1):
            line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
    except OSError:
        # It was refused, or is not read: as much as will be has arrived.
        return


# ── every way in ──────────────────────────────────────────────────────────────────────────────────────────────────────


def every_way(image: bytes, timeout_seconds: float = 2.0) -> list[Shot]:
    """The same image by every address that predicts."""
    text = base64.b64encode(image).decode()
    form, form_type = bad_input.multipart(image)
    page, page_type = bad_input.multipart(image, field_name="image_upload")
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}
    bodies: list[tuple[str, Any, str]] = [
        ("/v1/classify", image, "image/jpeg"),
        ("/v1/detect", form, form_type),
        ("/v1/classify", {"images": [text]}, "application/json"),
        ("/v1/ensemble", image, "image/jpeg"),
        ("/upload", page, page_type),
        ("/predict", {"image": text}, "application/json"),
        ("/", {"requests": [{"image": {"content": text}}]}, "application/json"),
        (
            "/api",
            {"jsonrpc": "2.0", "id": 1, "method": "Image.classify", "params": {"image": text}},
            "application/json",
        ),
        ("/v2/models/site-safety-classifier/infer", {"inputs": [tensor]}, "application/json"),
    ]
    return [
        Shot(path, body if isinstance(body, bytes) else json.dumps(body).encode(), kind, timeout_seconds)
        for path, body, kind in bodies
    ]


# ── pictures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def many_scans(count: int, side: int = 7000, *, baseline: bool = False) -> bytes:
    """A JPEG whose last scan is said so often; 75 bytes and some 30 ms of work each."""
    image = Image.new("L" if not baseline else "RGB", (side, side))
    whole = encoded(image, "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    return whole[:at] + whole[at:-2] * count + b"\xff\xd9"


def png_of_rows(width: int, height: int, depth: int, colours: int, rows: bytes) -> bytes:
    """A PNG that says it is so large, with these rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def grey_with_alpha(side: int = 7000) -> bytes:
    """49 megapixels in less than 500 kB; 400 MB and more while it is decoded."""
    return png_of_rows(side, side, 8, 4, (b"\0" + b"\x64\xc8" * side) * side)


SLOW: dict[str, Callable[[], bytes]] = {
    "JPEG of 90 scans": lambda: many_scans(84),
    "WebP of 49 megapixels": lambda: encoded(Image.new("RGB", (7000, 7000), "red"), "WEBP", quality=1, method=0),
    "PNG of 49 megapixels, grey+alpha": grey_with_alpha,
}
REFUSED: dict[str, Callable[[], bytes]] = {
    "JPEG of 6000 scans": lambda: many_scans(6000),
    "line of 50 megapixels": lambda: png_of_rows(1, 50_000_000, 1, 0, bytes(100_000_000)),
    "line of 50 megapixels, lying": lambda: png_of_rows(50_000_000, 1, 1, 0, bytes(6_250_001)),
    "80 bytes, cut off": lambda: png_of_rows(1, 50_000_000, 1, 0, bytes(99_999))[:80],
    "JPEG of a million segments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + bad_input.good_image()[2:],
    "JPEG of fill bytes": lambda: b"\xff\xd8" + b"\xff" * 8_000_000 + bad_input.good_image()[2:],
}
