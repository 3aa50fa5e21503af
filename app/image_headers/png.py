"""The head of a PNG (ISO 15948): size, colours, orientation; and the file without the chunks that no pixel needs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from app.image_headers import orientation
from app.image_headers.header import CutOffError, Head, HeadError, TooComplexError
from app.texts import Text

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Beside these, every chunk tells something else: profiles, texts, times, further frames of an animation.
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
# With the least chunks that are usual, 8 kB, a picture of 16 MB has two thousand.
MAX_CHUNKS = 50_000
# DEFLATE makes at most so many bytes of one.
MOST_INFLATION = 1032
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
GREY, TRUE_COLOUR, PALETTE = 0, 2, 3
# Of each pass: where it begins from the left and the top, and its steps across and down.
ADAM7 = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
PIECE_BYTES = 1 << 20
# How ImageMagick keeps Exif: as hexadecimal text behind a name, a number and line breaks.
RAW_EXIF = b"Raw profile type exif\0", b"Raw profile type APP1\0"
XMP_TEXT = b"XML:com.adobe.xmp\0"
SECONDS_PER_BYTE, SECONDS_PER_PIXEL = 5e-9, 3e-9


def look(data: bytes) -> Head:
    """Read the head. Raises HeadError, struct.error where it ends early."""
    if data[:8] != SIGNATURE:
        raise HeadError("its first eight bytes were altered, as by a transfer as text")
    exif = xmp = b""
    head, compressed, has_transparency, has_palette = b"", 0, False, False
    kept, kept_from = list[bytes](), 0
    for kind, start, end in _chunks(data):
        if not head and kind != b"IHDR":
            raise HeadError("it begins with %(kind)s instead of its size", kind=ascii(kind))
        if kind == b"IHDR":
            head = data[start + 8 : end - 4]
        compressed += end - start - 12 if kind == b"IDAT" else 0
        is_needed = kind in NEEDED and (kind != b"tRNS" or _is_whole(data, start, end))
        has_transparency |= is_needed and kind == b"tRNS"
        has_palette |= kind == b"PLTE" and not compressed
        if is_needed:
            continue
        kept.append(data[kept_from:start])
        kept_from = end
        if kind == b"eXIf":
            exif = exif or data[start + 8 : min(end - 4, start + 8 + orientation.MAX_BYTES)]
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            text = data[start + 8 : min(end - 4, start + 8 + orientation.MAX_BYTES)]
            exif, xmp = exif or _raw_exif(kind, text), xmp or _xmp(text)
    if not compressed:
        raise CutOffError("there are no pixels in it")
    if head[9] == PALETTE and not has_palette:
        raise HeadError("its pixels are numbers of a palette, which is missing")
    plain = b"".join((*kept, data[kept_from:])) if kept else data
    return _head(plain, head, compressed, has_transparency, orientation.find(exif, xmp))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each chunk up to the end of the image; what follows it is not looked at."""
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if at == len(data):
            # Without an end, but nothing that was begun is missing; whether the pixels are all there, others tell.
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind == b"IEND":
            yield kind, at, min(end, len(data))
            return
        if end > len(data) and kind != b"IDAT":
            raise CutOffError(
                "the chunk %(kind)s of %(length)s bytes goes on behind its end", kind=ascii(kind), length=length
            )
        yield kind, at, min(end, len(data))
        if end >= len(data):
            return
        at = end
    raise TooComplexError("has more than %(most)s chunks", most=MAX_CHUNKS)


def ends_early(data: bytes) -> bool:
    """Whether the pixels are fewer than the head says, though what is compressed has an end. Inflates all of them."""
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    left = sum(_row_bytes(across, depth, colours) * down for across, down in _passes(width, height, interlaced))
    inflating = zlib.decompressobj()
    for kind, start, end in _chunks(data):
        piece = data[start + 8 : end - 4] if kind == b"IDAT" else b""
        while piece and left > 0:
            left -= len(inflating.decompress(piece, PIECE_BYTES))
            piece = inflating.unconsumed_tail
    # What zlib has read and not told yet.
    return left > len(inflating.flush())


def _passes(width: int, height: int, interlaced: int) -> list[tuple[int, int]]:
    """Width and height of each pass (ISO 15948, 8.2); passes without pixels are left out."""
    steps = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - left) // across), -(-(height - top) // down)) for left, top, across, down in steps]
    return [(across, down) for across, down in sizes if across > 0 and down > 0]


def _row_bytes(width: int, depth: int, colours: int) -> int:
    return -(-width * depth * SAMPLES[colours] // 8) + 1


def _is_whole(data: bytes, start: int, end: int) -> bool:
    """Whether a chunk's checksum is right."""
    found: int = struct.unpack_from(">I", data, end - 4)[0]
    return zlib.crc32(data[start + 4 : end - 4]) == found


def _raw_exif(kind: bytes, text: bytes) -> bytes:
    name, _, rest = text.partition(b"\0")
    if name + b"\0" not in RAW_EXIF:
        return b""
    try:
        body = zlib.decompressobj().decompress(rest[1:], orientation.MAX_BYTES) if kind == b"zTXt" else rest
        return bytes.fromhex(b"".join(body.split(b"\n")[3:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b""


def _xmp(text: bytes) -> bytes:
    if not text.startswith(XMP_TEXT):
        return b""
    is_compressed = text[len(XMP_TEXT) : len(XMP_TEXT) + 1] == b"\1"
    # Behind the name: two numbers, and two texts that are mostly empty.
    body = text[len(XMP_TEXT) + 2 :]
    if not is_compressed:
        return body
    try:
        return zlib.decompressobj().decompress(body.split(b"\0", 2)[-1], orientation.MAX_BYTES)
    except zlib.error:
        return b""


def _head(data: bytes, head: bytes, compressed: int, has_transparency: bool, turned: int) -> Head:
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", head)
    if depth not in DEPTHS.get(colours, ()) or interlaced > 1:
        raise HeadError("it says it has %(depth)s bits of the colour type %(colours)s", depth=depth, colours=colours)
    row_bytes = _row_bytes(width, depth, colours)
    is_cut = compressed * MOST_INFLATION < row_bytes * height
    lacks = (
        Text("%(count)s bytes cannot hold %(width)s×%(height)s pixels", count=compressed, width=width, height=height)
        if is_cut
        else ""
    )
    is_clear = has_transparency or colours > PALETTE
    seconds = row_bytes * height * SECONDS_PER_BYTE + width * height * SECONDS_PER_PIXEL * (3 if is_clear else 1)
    if is_clear:
        # As RGBA, or as grey with alpha, which takes as much; as stored, where that is another form; strips of it.
        pixel_bytes = 4.2 if colours > PALETTE else 10.0 if depth == 16 else 5.2
    else:
        pixel_bytes = 4.0 if colours == TRUE_COLOUR else 10.0 if depth == 16 else 5.0
    pixel_bytes += 4.0 if turned != orientation.UPRIGHT else 0.0
    return Head(width, height, data, turned, pixel_bytes, seconds, lacks=lacks)
