"""A PNG from an array of bytes, without a library: the environment of a model need not have one."""

from __future__ import annotations

import struct
import zlib
from typing import Any

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Fast: an answer is sent once.
LEVEL = 3


def encode(pixels: Any) -> bytes:
    """``pixels``: uint8 array, height × width, or height × width × 3 (RGB). Raises ValueError for another."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or channels not in (1, 3) or str(pixels.dtype) != "uint8" or not pixels.size:
        raise ValueError(
            f"a {pixels.dtype} array of {pixels.shape}; uint8, height × width or height × width × 3 is meant"
        )
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + pixels[row].tobytes() for row in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, LEVEL)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
