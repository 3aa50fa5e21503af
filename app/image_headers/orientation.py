"""The tag Orientation, out of Exif or XMP: the only piece of metadata that pixels depend on.

Pillow would read all of Exif for it, and each entry may name the same megabytes again.
"""

from __future__ import annotations

import re
import struct

TAG = 0x0112
SHORT, LONG = 3, 4
UPRIGHT = 1
# As many entries as a directory of Exif has in practice, and more.
MAX_ENTRIES = 1024
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# Beyond it nobody looks for an orientation.
MAX_BYTES = 256 * 1024
EXIF_PREFIX = b"Exif\0\0"


def find(exif: bytes, xmp: bytes = b"") -> int:
    """1 to 8 from a block of Exif, else from XMP; 1 where neither says, or what it says cannot be read."""
    found = _in_exif(exif[:MAX_BYTES].removeprefix(EXIF_PREFIX))
    if found is None and (match := XMP_ORIENTATION.search(xmp[:MAX_BYTES])):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else UPRIGHT


def _in_exif(block: bytes) -> int | None:
    """None where there is no such tag."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for number in range(min(count, MAX_ENTRIES)):
            at = start + 2 + 12 * number
            tag, kind = struct.unpack_from(order + "HH", block, at)
            if tag == TAG and kind in (SHORT, LONG):
                value: int = struct.unpack_from(order + ("H" if kind == SHORT else "I"), block, at + 8)[0]
                return value
    except struct.error:
        # It ends before it says so; the pixels are not affected.
        return None
    return None
