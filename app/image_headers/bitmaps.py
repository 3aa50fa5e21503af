"""The heads of BMP and GIF: their sizes. Both are always decoded in a process of its own."""

from __future__ import annotations

import math
import struct

from app.image_headers import orientation
from app.image_headers.header import Head

# Lengths of the second head that there have been; text that begins with BM has none of them.
BMP_HEADS = (12, 16, 40, 52, 56, 64, 108, 124)
PIXEL_BYTES = 16.0


def is_bmp(data: bytes) -> bool:
    """Whether this is a BMP, or its beginning."""
    return data[:2] == b"BM" and (len(data) < 18 or struct.unpack_from("<I", data, 14)[0] in BMP_HEADS)


def look_at_bmp(data: bytes) -> Head:
    """Read the head. Raises HeadError, struct.error where it ends early."""
    (length,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    return _head(data, width, abs(height))


def look_at_gif(data: bytes) -> Head:
    """Read the head. Raises HeadError, struct.error where it ends early."""
    return _head(data, *struct.unpack_from("<HH", data, 6))


def _head(data: bytes, width: int, height: int) -> Head:
    return Head(width, height, data, orientation.UPRIGHT, PIXEL_BYTES, math.inf)
