"""The head of a TIFF (6.0, and BigTIFF): its size. It is always decoded in a process of its own."""

from __future__ import annotations

import math
import struct

from app.image_headers import orientation
from app.image_headers.header import Head, TooComplexError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, BITS, SAMPLES = 256, 257, 258, 277
# Bytes of one value by type of an entry; others are texts and bytes.
VALUE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}
WHOLE = {3: "H", 4: "I", 16: "Q"}
MAX_ENTRIES = 1000
# All entries together name at most so many times the file's bytes: each may name the same ones again.
MOST_TIMES = 4
PIXEL_BYTES = 16.0


def look(data: bytes) -> Head:
    """Read the first directory. Raises HeadError, struct.error where it ends early."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = b"+" in data[:4]
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    if count > MAX_ENTRIES:
        raise TooComplexError(
            "has %(count)s entries in its directory; at most %(most)s are accepted",
            count=count,
            most=MAX_ENTRIES,
        )
    found, named = dict[int, int](), 0
    for number in range(count):
        at = start + (8 + 20 * number if is_big else 2 + 12 * number)
        tag, kind, length = struct.unpack_from(order + ("HHQ" if is_big else "HHI"), data, at)
        named += length * VALUE_BYTES.get(kind, 1)
        if tag in (WIDTH, HEIGHT, BITS, SAMPLES) and kind in WHOLE and length == 1:
            found[tag] = struct.unpack_from(order + WHOLE[kind], data, at + (12 if is_big else 8))[0]
    if named > MOST_TIMES * len(data) + 4096:
        raise TooComplexError(
            "of %(count)s bytes says that its directory names %(named)s", count=len(data), named=named
        )
    # Strips and tiles are read whole before they become pixels.
    stored = found.get(SAMPLES, 1) * max(found.get(BITS, 8), 8) / 8
    pixel_bytes = PIXEL_BYTES + min(stored, 32.0)
    return Head(found.get(WIDTH, 0), found.get(HEIGHT, 0), data, orientation.UPRIGHT, pixel_bytes, math.inf)
