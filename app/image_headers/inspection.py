"""What can be known of an image before anything is decoded: its format by the first bytes, its size, what it takes.

No Pillow here: its own readers work at the caller's pace, on metadata that no pixel needs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import ImageEmptyError, ImageTooComplexError, ImageUndecodableError, ImageUnsupportedError
from app.image_headers import bitmaps, jpeg, png, tiff, webp
from app.image_headers.header import Head, HeadError, TooComplexError
from app.texts import Text, gettext_noop

MOST_BYTES_SHOWN = 12
DAMAGED = gettext_noop("It is cut off or damaged; open it in another program and save it again.")
# By Pillow's name: how a file begins, and who reads its head.
FORMATS: dict[str, tuple[Callable[[bytes], bool], Callable[[bytes], Head]]] = {
    "JPEG": (lambda data: data[:2] == b"\xff\xd8", jpeg.look),
    "PNG": (lambda data: data[:4] == b"\x89PNG" or (1 < len(data) < 4 and b"\x89PNG".startswith(data)), png.look),
    "WEBP": (lambda data: data[:4] == b"RIFF" and (data[8:12] == b"WEBP" or len(data) < 12), webp.look),
    "GIF": (lambda data: data[:4] == b"GIF8", bitmaps.look_at_gif),
    "BMP": (bitmaps.is_bmp, bitmaps.look_at_bmp),
    "TIFF": (lambda data: data[:4] in tiff.SIGNATURES, tiff.look),
}
# What people send as an image and is none that we read, by its first bytes; to tell them what it is.
FOREIGN = (
    ("HEIC", lambda data: data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    ("AVIF", lambda data: data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis")),
    ("a video", lambda data: data[4:8] == b"ftyp" or data[:4] == b"\x1aE\xdf\xa3"),
    ("JPEG XL", lambda data: data[:2] == b"\xff\x0a" or data[4:12] == b"JXL \r\n\x87\n"),
    ("JPEG 2000", lambda data: data[4:12] == b"jP  \r\n\x87\n" or data[:4] == b"\xff\x4f\xff\x51"),
    ("PDF", lambda data: data[:5] == b"%PDF-"),
    ("a ZIP archive", lambda data: data[:4] == b"PK\x03\x04"),
    ("SVG", lambda data: b"<svg" in data[:1024].lower()),
    ("HTML", lambda data: data[:256].lstrip().lower().startswith((b"<!doctype html", b"<html"))),
    ("base64 text", lambda data: data.startswith((b"/9j/", b"iVBORw0KGgo", b"data:image", b"UklGR"))),
    ("Photoshop", lambda data: data[:4] == b"8BPS"),
    ("an icon", lambda data: data[:4] == b"\0\0\1\0"),
)


@dataclass(frozen=True)
class Look:
    """An image that may be decoded. ``kind`` is Pillow's name of its format; ``size``: bytes of the file as sent."""

    kind: str
    head: Head
    size: int


def look(data: bytes, formats: tuple[str, ...]) -> Look:
    """Read the head of an image in one of these formats, named as Pillow names them.

    Raises ImageEmptyError, ImageUnsupportedError, ImageUndecodableError, ImageTooComplexError.
    """
    if not data:
        raise ImageEmptyError("The image has 0 bytes.", hint="Send the bytes of the file, not its name.")
    kind = next((name for name, (begins, _) in FORMATS.items() if begins(data)), "")
    if kind not in formats:
        raise _unsupported(data, kind, formats)
    try:
        head = FORMATS[kind][1](data)
    except TooComplexError as error:
        raise ImageTooComplexError(
            "The %(format)s image %(reason)s.",
            hint="Open it in another program and save it again.",
            format=kind,
            reason=error.text,
        ) from None
    except (HeadError, struct.error, IndexError) as error:
        raise undecodable(
            kind, len(data), error.text if isinstance(error, HeadError) else Text("it ends early")
        ) from None
    return Look(kind, head, len(data))


def undecodable(kind: str, size: int, why: str, hint: str = "") -> ImageUndecodableError:
    """The error for an image of an accepted format that is none after all. ``size``: bytes of the file as sent."""
    return ImageUndecodableError(
        "The %(format)s image of %(size)s bytes cannot be decoded: %(reason)s.",
        hint=hint or DAMAGED,
        format=kind,
        size=size,
        reason=why,
    )


def _unsupported(data: bytes, kind: str, formats: tuple[str, ...]) -> ImageUnsupportedError:
    found = kind or next((name for name, matches in FOREIGN if matches(data)), "")
    accepted = ", ".join(formats)
    message = Text("The %(size)s bytes are not an image of an accepted format.", size=len(data))
    if found:
        return ImageUnsupportedError(
            message, hint="Accepted: %(formats)s. They begin like %(name)s.", formats=accepted, name=found
        )
    begins = data[:MOST_BYTES_SHOWN].hex(" ")
    return ImageUnsupportedError(
        message, hint="Accepted: %(formats)s. They begin with the bytes %(bytes)s.", formats=accepted, bytes=begins
    )
