"""The head of a WebP (RFC 9649): size and orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from app.image_headers import orientation
from app.image_headers.header import CutOffError, Head, HeadError, TooComplexError

# Frames of an animation are chunks too.
MAX_CHUNKS = 10_000
PICTURES = (b"VP8 ", b"VP8L", b"ANMF")
# Its decoder holds two canvases and a copy beside the picture.
PIXEL_BYTES = 16.0
SECONDS_PER_PIXEL = 30e-9


def look(data: bytes) -> Head:
    """Read the head. Raises HeadError, struct.error and IndexError where it ends early."""
    size: tuple[int, int] | None = None
    exif = xmp = b""
    has_picture = False
    for kind, start, length in _chunks(data):
        size = size or _size(kind, data, start)
        has_picture |= kind in PICTURES
        if kind in (b"EXIF", b"XMP "):
            text = data[start : start + min(length, orientation.MAX_BYTES)]
            exif, xmp = (exif or text, xmp) if kind == b"EXIF" else (exif, xmp or text)
    if size is None or not has_picture:
        raise CutOffError("there are no pixels in it")
    width, height = size
    return Head(width, height, data, orientation.find(exif, xmp), PIXEL_BYTES, width * height * SECONDS_PER_PIXEL)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin of the content and length of each chunk."""
    at, most = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    if most > len(data):
        raise CutOffError("it says it has %(most)s bytes", most=most)
    for _ in range(MAX_CHUNKS):
        if at + 8 > most:
            return
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, length
        at += 8 + length + length % 2
    raise TooComplexError("has more than %(most)s chunks", most=MAX_CHUNKS)


def _size(kind: bytes, data: bytes, at: int) -> tuple[int, int] | None:
    """Width and height, where this chunk says them."""
    if kind == b"VP8X":
        across, down = data[at + 4 : at + 7], data[at + 7 : at + 10]
        if len(down) < 3:
            raise CutOffError("the size is missing")
        return int.from_bytes(across, "little") + 1, int.from_bytes(down, "little") + 1
    if kind == b"VP8L":
        signature, bits = struct.unpack_from("<BI", data, at)
        if signature != 0x2F:
            raise HeadError("its pixels do not begin as they must")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        across, down = struct.unpack_from("<HH", data, at + 6)
        if data[at + 3 : at + 6] != b"\x9d\x01\x2a" or not across & 0x3FFF or not down & 0x3FFF:
            raise HeadError("its pixels do not begin as they must")
        return across & 0x3FFF, down & 0x3FFF
    return None
