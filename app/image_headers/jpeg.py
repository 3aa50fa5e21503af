"""The head of a JPEG (ITU T.81): size, how many scans, orientation; and the file without its metadata."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from app.image_headers import orientation
from app.image_headers.header import CutOffError, Head, HeadError, TooComplexError
from app.texts import Text

FILL = 0xFF
START_OF_SCAN, END_OF_IMAGE, COMMENT, RESTART_INTERVAL = 0xDA, 0xD9, 0xFE, 0xDD
# Segments that only we read, or nobody. JFIF (E0) and Adobe's (EE) say what the colours are.
APPLICATIONS = range(0xE0, 0xF0)
COLOURS = (0xE0, 0xEE)
EXIF = 0xE1
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
# Start of frame; the four gaps are tables and an extension.
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
HUFFMAN = {0xC0, 0xC1, 0xC2}
# Within compressed data they stand where decoding begins anew, numbered from 0 to 7 over and over.
RESTARTS = bytes(range(0xD0, 0xD8))
RESTART = re.compile(b"\xff([\xd0-\xd7])")
WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD8)}
# A camera writes some twenty; a profile of 16 MB takes 256.
MAX_SEGMENTS = 4096
# Encoders write about ten; the finest split into bits that one could think of for three colours stays below.
MAX_SCANS = 100
# On one core of 2020, at full size. A scan that says nothing still walks over all blocks.
SECONDS_PER_BYTE, SECONDS_PER_PIXEL, SECONDS_PER_SCANNED_PIXEL = 10e-9, 3e-9, 0.8e-9


def look(data: bytes) -> Head:
    """Read the head. Raises HeadError, struct.error and IndexError where it ends early."""
    exif, xmp, frame, interval = b"", b"", b"", 0
    kind, at, kept_from = 0, 2, 0
    kept: list[bytes] = []
    for _ in range(MAX_SEGMENTS):
        if data[at] != FILL or data[at + 1] == FILL:
            at = _next_marker(data, at)
        marker = data[at + 1]
        if marker in WITHOUT_LENGTH:
            at += 2
            continue
        if marker == END_OF_IMAGE:
            raise HeadError("it ends before its pixels begin")
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise CutOffError("a segment of %(length)s bytes goes on behind its end", length=length)
        if marker == START_OF_SCAN:
            break
        if marker in FRAMES:
            kind, frame = marker, data[at + 4 : end]
        if marker == RESTART_INTERVAL:
            (interval,) = struct.unpack_from(">H", data, at + 4)
        if marker == COMMENT or (marker in APPLICATIONS and marker not in COLOURS):
            body = data[at + 4 : end] if marker == EXIF else b""
            exif = exif or (body if body.startswith(orientation.EXIF_PREFIX) else b"")
            xmp = xmp or body.removeprefix(XMP_PREFIX) if body.startswith(XMP_PREFIX) else xmp
            kept.append(data[kept_from:at])
            kept_from = end
        at = end
    else:
        raise TooComplexError("has more than %(most)s segments before its pixels", most=MAX_SEGMENTS)
    plain = b"".join((*kept, data[kept_from:])) if kept else data
    return _head(plain, kind, frame, _Scan(data[at + 4], len(data) - at, interval), orientation.find(exif, xmp))


def _next_marker(data: bytes, at: int) -> int:
    """Where the next marker begins, if not here; what lies between segments is skipped, as readers do."""
    if data[at] != FILL:
        at = data.find(b"\xff", at)
        if at < 0:
            raise CutOffError("there is no further marker")
    if data[at + 1] != FILL:
        return at
    rest = data[at : at + MAX_SEGMENTS].lstrip(b"\xff")
    if not rest:
        raise TooComplexError("has more than %(most)s fill bytes in a row", most=MAX_SEGMENTS)
    return at + len(data[at : at + MAX_SEGMENTS]) - len(rest) - 1


class _Scan(NamedTuple):
    """The first scan: how many colours it has, bytes from its head on, blocks between two restart markers (0: none)."""

    colours: int
    entropy_bytes: int
    interval: int


def _head(data: bytes, kind: int, frame: bytes, scan: _Scan, turned: int) -> Head:
    """``frame``: the segment that says the size."""
    if not frame:
        raise HeadError("it does not say its size before its pixels")
    _, height, width, count = struct.unpack_from(">BHHB", frame)
    factors = [(frame[7 + 3 * each] >> 4, frame[7 + 3 * each] & 15) for each in range(count)]
    if not width or not height or not all(map(all, factors)):
        raise HeadError(
            "it says it is %(width)s×%(height)s pixels of %(count)s colours", width=width, height=height, count=count
        )
    scans = 1
    if kind in PROGRESSIVE or scan.colours < count:
        # Within compressed data, 0xFF is never followed by this byte.
        scans = data.count(b"\xff\xda", len(data) - scan.entropy_bytes)
        if scans > MAX_SCANS:
            raise TooComplexError("has %(scans)s scans; at most %(most)s are accepted", scans=scans, most=MAX_SCANS)
    full = max([across for across, _ in factors]) * max([down for _, down in factors])
    lacks = ""
    # Each block has at least one bit.
    if kind in HUFFMAN and scan.entropy_bytes * 8 < width * height / 64 * factors[0][0] * factors[0][1] / full:
        lacks = Text(
            "%(count)s bytes cannot hold %(width)s×%(height)s pixels",
            count=scan.entropy_bytes,
            width=width,
            height=height,
        )
    elif scan.interval and scans == 1 and kind in HUFFMAN - PROGRESSIVE:
        lacks = _missing_restarts(
            data[len(data) - scan.entropy_bytes :], _blocks(width, height, factors) // scan.interval
        )
    # More than one scan: all coefficients are kept, 2 bytes each.
    coefficients = 2 * sum(across * down for across, down in factors) / full if scans > 1 else 0.0
    pixels = width * height
    seconds = (
        scan.entropy_bytes * SECONDS_PER_BYTE + pixels * SECONDS_PER_PIXEL + scans * pixels * SECONDS_PER_SCANNED_PIXEL
    )
    pixel_bytes = 8.0 if count != 3 or turned != orientation.UPRIGHT else 4.0
    return Head(width, height, data, turned, pixel_bytes, seconds, coefficients, shrinks=True, lacks=lacks)


def _blocks(width: int, height: int, factors: list[tuple[int, int]]) -> int:
    """How many there are besides the last one, with all colours of a place in one (ITU T.81, A.2)."""
    single = len(factors) == 1
    across = 8 * (1 if single else max(across for across, _ in factors))
    down = 8 * (1 if single else max(down for _, down in factors))
    return -(-width // across) * -(-height // down) - 1


def _missing_restarts(entropy: bytes, wanted: int) -> Text | str:
    """What to say where a restart marker is missing: all after it would be decoded for another place."""
    found = b"".join(RESTART.findall(entropy))[:wanted]
    if found == (RESTARTS * (wanted // len(RESTARTS) + 1))[:wanted]:
        return ""
    return Text("some of its %(count)s restart markers are missing", count=wanted)
