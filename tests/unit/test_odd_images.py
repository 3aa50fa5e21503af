"""Pictures as scanners, editors, phones and broken transfers make them: the right pixels, or a sentence of its own."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from app.errors import CaskError
from app.inference import images
from app.inference.images import Limits
from app.models.manifests import InputSpec

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

USUAL = ("JPEG", "PNG", "WEBP")
ALL = (*USUAL, "BMP", "GIF", "TIFF")
RED, GREY, BLACK, WHITE = (255, 0, 0), (100, 100, 100), (0, 0, 0), (255, 255, 255)
SIDE = 16


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def plain(colour: Any = RED, mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    return Image.new(mode, size, colour)


def cut(image: Image.Image, kind: str, count: int) -> bytes:
    """Without its last bytes."""
    return encoded(image, kind)[:-count]


def of_numbers(value: Any, kind: Any, **how: Any) -> bytes:
    """A TIFF with one number in each pixel."""
    return encoded(Image.fromarray(np.full((SIDE, SIDE), value, kind)), "TIFF", **how)


def ramp(low: float, high: float, kind: Any) -> bytes:
    """A TIFF from a low number at the left to a high one at the right."""
    return encoded(Image.fromarray(np.tile(np.linspace(low, high, SIDE), (SIDE, 1)).astype(kind)), "TIFF")


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    found = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", found)


def with_chunk(kind: bytes, data: bytes, checksum: int | None = None, **how: Any) -> bytes:
    """A red PNG with one more chunk behind its head."""
    whole = encoded(plain(), "PNG", **how)
    return whole[:33] + chunk(kind, data, checksum) + whole[33:]


def of_rows(width: int, height: int, depth: int, colours: int, rows: bytes, more: bytes = b"") -> bytes:
    """A PNG of raw rows."""
    head = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def interlaced(rows: int) -> bytes:
    """A grey PNG of 8 × 8 pixels in seven passes, which has so many of its 15 rows."""
    widths = (1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8)[:rows]
    whole = of_rows(8, 8, 8, 0, b"".join(b"\0" + b"\x64" * width for width in widths))
    head = whole[16:28] + b"\1"
    return whole[:16] + head + struct.pack("!I", zlib.crc32(b"IHDR" + head)) + whole[33:]


def jpeg(**how: Any) -> bytes:
    return encoded(plain(), "JPEG", quality=95, **how)


def restarting(size: tuple[int, int] = (64, 64)) -> bytes:
    """With a restart marker behind every second block."""
    return encoded(plain(size=size), "JPEG", quality=95, restart_marker_blocks=2)


def with_segment(marker: int, body: bytes, times: int = 1) -> bytes:
    whole = jpeg()
    return whole[:2] + (bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body) * times + whole[2:]


def many_scans(count: int) -> bytes:
    """A progressive JPEG that says its last scan so often."""
    whole = encoded(plain(100, "L", (64, 64)), "JPEG", progressive=True)
    at = whole.rindex(b"\xff\xda")
    return whole[:at] + whole[at:-2] * count + b"\xff\xd9"


def text(size: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * size)
    return info


def compressed_text(size: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * size, zip=True)
    info.add_itxt("Title", "y" * size, zip=True)
    return info


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def two_frames(kind: str) -> bytes:
    frames = [plain(), plain((0, 0, 255))]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, lossless=True)


def several_pictures() -> bytes:
    """A JPEG with a second picture behind the first, as some phones write."""
    return encoded(plain(), "MPO", save_all=True, append_images=[plain((0, 0, 255))], quality=95)


def endless_exif() -> bytes:
    """A megabyte of Exif in which each of 60 000 entries names all of it again."""
    entries = b"".join(struct.pack("<HHII", 0x9000, 7, 900_000, 8) for _ in range(60_000))
    return b"II*\0" + struct.pack("<IH", 8, 60_000) + entries + bytes(200_000)


# Name → file, accepted formats, colour of the picture's middle.
READ: dict[str, tuple[Callable[[], bytes], tuple[str, ...], tuple[int, int, int]]] = {
    "JPEG with restart markers": (restarting, USUAL, RED),
    "JPEG with restart markers, of half blocks": (lambda: restarting((61, 47)), USUAL, RED),
    "JPEG of one pixel": (lambda: encoded(plain(size=(1, 1)), "JPEG"), USUAL, (254, 0, 0)),
    "JPEG, progressive": (lambda: jpeg(progressive=True), USUAL, (254, 0, 0)),
    "JPEG, grey": (lambda: encoded(plain(100, "L"), "JPEG"), USUAL, GREY),
    "JPEG, CMYK as Adobe inverts it": (lambda: encoded(plain((0, 255, 255, 0), "CMYK"), "JPEG"), USUAL, (254, 0, 0)),
    "JPEG with a profile of 3 MB": (lambda: jpeg(icc_profile=bytes(3_000_000)), USUAL, (254, 0, 0)),
    "JPEG with damaged Exif": (lambda: with_segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"), USUAL, (254, 0, 0)),
    "JPEG with a comment of 64 kB": (lambda: with_segment(0xFE, bytes(65_533)), USUAL, (254, 0, 0)),
    "JPEG with rubbish behind it": (lambda: jpeg() + bytes(100_000), USUAL, (254, 0, 0)),
    "JPEG with a second picture": (several_pictures, USUAL, (254, 0, 0)),
    "JPEG with fill bytes": (lambda: b"\xff\xd8" + b"\xff" * 20 + jpeg()[2:], USUAL, (254, 0, 0)),
    "JPEG of 100 scans": (lambda: many_scans(95), USUAL, GREY),
    "PNG of one pixel": (lambda: encoded(plain(size=(1, 1)), "PNG"), USUAL, RED),
    "PNG with 16 bits, grey": (lambda: of_rows(1, 1, 16, 0, b"\0\x64\x64"), USUAL, GREY),
    "PNG with 16 bits, colours": (lambda: of_rows(1, 1, 16, 2, b"\0\xff\xff\0\0\0\0"), USUAL, RED),
    "PNG with 16 bits, colours and alpha": (lambda: of_rows(1, 1, 16, 6, b"\0" + bytes(8)), USUAL, WHITE),
    "PNG with 1 bit": (lambda: of_rows(8, 1, 1, 0, b"\0\xff"), USUAL, WHITE),
    "PNG with 2 bits": (lambda: of_rows(4, 1, 2, 0, b"\0\x55"), USUAL, (85, 85, 85)),
    "PNG, grey with alpha": (lambda: encoded(plain((100, 255), "LA"), "PNG"), USUAL, GREY),
    "PNG, palette that shines through": (
        lambda: of_rows(1, 1, 8, 3, b"\0\0", chunk(b"PLTE", bytes(RED)) + chunk(b"tRNS", b"\0")),
        USUAL,
        WHITE,
    ),
    "PNG, transparency with a wrong checksum": (
        lambda: of_rows(1, 1, 8, 3, b"\0\0", chunk(b"PLTE", bytes(RED)) + chunk(b"tRNS", b"\0", 1)),
        USUAL,
        RED,
    ),
    "PNG, 16 bits with a transparent colour": (
        lambda: of_rows(1, 1, 16, 2, b"\0\xff\xff\0\0\0\0", chunk(b"tRNS", b"\0\0\xff\xff\0\0")),
        USUAL,
        RED,
    ),
    "PNG with a profile of 3 MB": (lambda: encoded(plain(), "PNG", icc_profile=bytes(3_000_000)), USUAL, RED),
    "PNG with a text of 3 MB": (lambda: encoded(plain(), "PNG", pnginfo=text(3_000_000)), USUAL, RED),
    "PNG with compressed texts of 3 MB": (
        lambda: encoded(plain(), "PNG", pnginfo=compressed_text(3_000_000)),
        USUAL,
        RED,
    ),
    "PNG with a wrong checksum in its time": (lambda: with_chunk(b"tIME", bytes(7), 1), USUAL, RED),
    "PNG with a profile that is none": (lambda: with_chunk(b"iCCP", b"\xff" * 30), USUAL, RED),
    "PNG with Exif that names itself for ever": (lambda: with_chunk(b"eXIf", endless_exif()), USUAL, RED),
    "PNG with rubbish behind it": (lambda: encoded(plain(), "PNG") + b"rubbish", USUAL, RED),
    "PNG that is animated": (lambda: two_frames("PNG"), USUAL, RED),
    "PNG, interlaced": (
        # Adam7 of a single pixel is its first pass alone.
        lambda: of_rows(1, 1, 8, 2, b"\0" + bytes(RED)).replace(b"\0\0\0\0\1\0\0\0\1\x08\2\0\0\0", b""),
        USUAL,
        RED,
    ),
    "PNG, interlaced, 8 × 8": (lambda: interlaced(15), USUAL, GREY),
    "PNG that is black": (lambda: of_rows(64, 64, 8, 0, bytes(65 * 64)), USUAL, BLACK),
    "PNG with more rows than it says": (lambda: of_rows(4, 4, 8, 0, bytes(5 * 400)), USUAL, BLACK),
    "WebP": (lambda: encoded(plain(), "WEBP", lossless=True), USUAL, RED),
    "WebP with alpha": (lambda: encoded(plain((0, 0, 255, 0), "RGBA"), "WEBP"), USUAL, WHITE),
    "WebP that is animated": (lambda: two_frames("WEBP"), USUAL, RED),
    "WebP with rubbish behind it": (lambda: encoded(plain(), "WEBP", lossless=True) + bytes(99), USUAL, RED),
    "WebP with a profile of 3 MB": (
        lambda: encoded(plain(), "WEBP", lossless=True, icc_profile=bytes(3_000_000)),
        USUAL,
        RED,
    ),
    "BMP": (lambda: encoded(plain(), "BMP"), ALL, RED),
    "BMP with a palette": (lambda: encoded(plain().convert("P"), "BMP"), ALL, RED),
    "GIF that is animated": (lambda: two_frames("GIF"), ALL, RED),
    "TIFF with 1 bit": (lambda: encoded(plain(1, "1"), "TIFF"), ALL, WHITE),
    "TIFF, CMYK": (lambda: encoded(plain((0, 255, 255, 0), "CMYK"), "TIFF"), ALL, (254, 0, 0)),
    "TIFF, compressed as JPEG": (lambda: encoded(plain(), "TIFF", compression="jpeg", quality=95), ALL, (254, 0, 0)),
    "TIFF, LZW": (lambda: encoded(plain(), "TIFF", compression="tiff_lzw"), ALL, RED),
    "TIFF of 16 bits": (lambda: of_numbers(25_700, np.uint16), ALL, GREY),
    "TIFF of 16 bits, big endian": (lambda: of_numbers(25_700, np.dtype(">u2")), ALL, GREY),
    "TIFF of 16 bits where white is 0": (lambda: of_numbers(65_535, np.uint16, tiffinfo={262: 0}), ALL, BLACK),
    "TIFF of 32 bits to 255": (lambda: of_numbers(100, np.int32), ALL, GREY),
    "TIFF of 32 bits to 65535": (lambda: of_numbers(25_700, np.int32), ALL, GREY),
    "TIFF of real numbers to 1": (lambda: ramp(0, 1, np.float32), ALL, (136, 136, 136)),
    "TIFF of real numbers to 255": (lambda: of_numbers(100.0, np.float32), ALL, GREY),
    "TIFF of rounded real numbers": (
        lambda: ramp(-1e-5, 1.00001, np.float32),
        ALL,
        (136, 136, 136),
    ),
}
# Name → file, accepted formats, code, words of the sentence.
REFUSED: dict[str, tuple[Callable[[], bytes], tuple[str, ...], str, str]] = {
    "nothing": (lambda: b"", USUAL, "image_empty", "0 bytes"),
    "HEIC": (lambda: bytes(4) + b"ftypheic" + bytes(99), USUAL, "image_unsupported", "begin like HEIC"),
    "AVIF": (lambda: bytes(4) + b"ftypavif" + bytes(99), USUAL, "image_unsupported", "begin like AVIF"),
    "SVG": (lambda: b'<?xml version="1.0"?><svg/>', USUAL, "image_unsupported", "begin like SVG"),
    "PDF": (lambda: b"%PDF-1.7\n", USUAL, "image_unsupported", "begin like PDF"),
    "HTML": (lambda: b"\n<!DOCTYPE html><title>404", USUAL, "image_unsupported", "begin like HTML"),
    "base64": (lambda: b"/9j/4AAQSkZJRg==", USUAL, "image_unsupported", "begin like base64"),
    "GIF": (lambda: encoded(plain(), "GIF"), USUAL, "image_unsupported", "begin like GIF"),
    "TIFF": (lambda: encoded(plain(), "TIFF"), USUAL, "image_unsupported", "begin like TIFF"),
    "text that begins like a BMP": (lambda: b"BMW builds cars in Munich", ALL, "image_unsupported", "42 4d 57"),
    "sound": (lambda: b"RIFF\x24\0\0\0WAVEfmt ", USUAL, "image_unsupported", "52 49 46 46"),
    "JPEG of two bytes": (lambda: jpeg()[:2], USUAL, "image_undecodable", "ends early"),
    "JPEG cut off in its head": (lambda: jpeg()[:100], USUAL, "image_undecodable", "goes on behind its end"),
    "JPEG cut off in its pixels": (
        lambda: cut(plain(size=(200, 200)), "JPEG", 200),
        USUAL,
        "image_undecodable",
        "truncated",
    ),
    "JPEG of 12 bits": (
        lambda: (whole := jpeg())[: (at := whole.index(b"\xff\xc0") + 4)] + b"\x0c" + whole[at + 1 :],
        USUAL,
        "image_undecodable",
        "names pixels not read here",
    ),
    "JPEG without pixels": (lambda: b"\xff\xd8\xff\xd9", USUAL, "image_undecodable", "ends before its pixels begin"),
    "JPEG of thousands of segments": (
        lambda: with_segment(0xFE, b"", 5000),
        USUAL,
        "image_too_complex",
        "more than 4096 segments",
    ),
    "JPEG of thousands of scans": (lambda: many_scans(5000), USUAL, "image_too_complex", "scans; at most 100"),
    "JPEG that hardly has pixels": (
        lambda: (whole := encoded(plain(100, "L", (800, 800)), "JPEG"))[: whole.index(b"\xff\xda") + 14] + b"\xff\xd9",
        USUAL,
        "image_undecodable",
        "cannot hold 800×800 pixels",
    ),
    "JPEG without one of its restart markers": (
        lambda: (whole := restarting())[: (at := whole.index(b"\xff\xd3"))] + whole[at + 2 :],
        USUAL,
        "image_undecodable",
        "restart markers are missing",
    ),
    "JPEG with a stretch lost between two restart markers": (
        lambda: (whole := restarting())[: whole.index(b"\xff\xd2")] + whole[whole.index(b"\xff\xd4") :],
        USUAL,
        "image_undecodable",
        "restart markers are missing",
    ),
    "PNG of three bytes": (lambda: b"\x89PN", USUAL, "image_undecodable", "first eight bytes were altered"),
    "PNG sent as text": (
        lambda: encoded(plain(), "PNG").replace(b"\r\n", b"\n"),
        USUAL,
        "image_undecodable",
        "first eight bytes were altered",
    ),
    "PNG cut off in its head": (lambda: encoded(plain(), "PNG")[:20], USUAL, "image_undecodable", "behind its end"),
    "PNG cut off in its pixels": (lambda: encoded(plain(), "PNG")[:-25], USUAL, "image_undecodable", "cannot be"),
    "PNG without pixels": (
        lambda: encoded(plain(), "PNG")[:33] + chunk(b"IEND", b""),
        USUAL,
        "image_undecodable",
        "no pixels in it",
    ),
    "PNG with a wrong checksum in its head": (
        lambda: (whole := encoded(plain(), "PNG"))[:29] + b"\0\0\0\0" + whole[33:],
        USUAL,
        "image_undecodable",
        "cannot be decoded",
    ),
    "PNG of 80 bytes that says it is a line of millions": (
        lambda: of_rows(1, 50_000_000, 8, 0, bytes(999))[:80],
        USUAL,
        "image_too_large",
        "1×50000000 pixels; at most 30000 a side",
    ),
    "PNG of 80 bytes that says it is 49 megapixels": (
        lambda: of_rows(7000, 7000, 8, 0, bytes(999))[:80],
        USUAL,
        "image_undecodable",
        "cannot hold 7000×7000 pixels",
    ),
    "PNG of half its rows": (
        lambda: of_rows(64, 64, 8, 0, (b"\0" + b"\x64" * 64) * 32),
        USUAL,
        "image_undecodable",
        "its pixels end early",
    ),
    "PNG without its last row": (
        lambda: of_rows(64, 64, 8, 2, bytes(193 * 63)),
        USUAL,
        "image_undecodable",
        "its pixels end early",
    ),
    "PNG, interlaced, without its last row": (
        lambda: interlaced(14),
        USUAL,
        "image_undecodable",
        "its pixels end early",
    ),
    "PNG without its palette": (
        lambda: of_rows(1, 1, 8, 3, b"\0\0"),
        USUAL,
        "image_undecodable",
        "a palette, which is missing",
    ),
    "PNG of no height": (lambda: of_rows(1, 0, 8, 0, b""), USUAL, "image_undecodable", "1×0 pixels"),
    "PNG of a colour type that is none": (lambda: of_rows(1, 1, 8, 5, b"\0\0"), USUAL, "image_undecodable", "type 5"),
    "WebP cut off in its head": (
        lambda: encoded(plain(), "WEBP")[:16],
        USUAL,
        "image_undecodable",
        "says it has",
    ),
    "WebP cut off in its pixels": (lambda: encoded(plain(), "WEBP")[:-9], USUAL, "image_undecodable", "says it has"),
    "TIFF cut off in its head": (lambda: b"II*\0\x08\0", ALL, "image_undecodable", "ends early"),
    "TIFF with more entries than any": (
        lambda: b"II*\0" + struct.pack("<IH", 8, 60_000) + bytes(720_000),
        ALL,
        "image_too_complex",
        "60000 entries",
    ),
    "TIFF whose entries name the same bytes": (
        lambda: b"II*\0" + struct.pack("<IH", 8, 900) + struct.pack("<HHII", 9, 7, 10_000, 8) * 900,
        ALL,
        "image_too_complex",
        "names 9000000",
    ),
    "TIFF of real numbers to 8000": (lambda: ramp(0, 8000, np.float32), ALL, "image_undecodable", "from 0 to 8000"),
    "TIFF of real numbers below 0": (lambda: ramp(-1, 1, np.float32), ALL, "image_undecodable", "from -1 to 1"),
    "TIFF of no numbers": (lambda: of_numbers(np.nan, np.float32), ALL, "image_undecodable", "from nan to nan"),
    "TIFF of 32 bits to millions": (lambda: ramp(0, 2e9, np.int32), ALL, "image_undecodable", "from 0 to 2e+09"),
    "TIFF, Lab": (lambda: encoded(plain((50, 0, 0), "LAB"), "TIFF"), ALL, "image_undecodable", "colours are LAB"),
    "BMP cut off": (lambda: encoded(plain(), "BMP")[:200], ALL, "image_undecodable", "truncated"),
    "GIF cut off": (lambda: encoded(plain(), "GIF")[:20], ALL, "image_undecodable", "cannot be decoded"),
}
SPEC = InputSpec("fit", min_size=SIDE, max_size=SIDE)


def read(data: bytes, formats: tuple[str, ...]) -> images.Picture:
    return images.read(data, SPEC, Limits(16_777_216, 50_000_000, formats))


@pytest.mark.parametrize("name", READ)
def test_odd_image_has_its_right_pixels(name: str) -> None:
    make, formats, colour = READ[name]

    pixels = read(make(), formats).pixels

    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].astype(int)
    assert np.abs(middle - colour).max() <= 3, middle


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_told_why(name: str) -> None:
    make, formats, code, words = REFUSED[name]

    with pytest.raises(CaskError) as caught:
        read(make(), formats)

    assert caught.value.code == code, caught.value
    assert words in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("key", ["Raw profile type exif", "Raw profile type APP1"])
def test_orientation_that_imagemagick_keeps_as_text_counts(key: str) -> None:
    info = PngImagePlugin.PngInfo()
    block = b"Exif\0\0" + exif(6).tobytes().removeprefix(b"Exif\0\0")
    info.add_text(key, f"\nexif\n{len(block):8}\n{block.hex()}\n", zip=True)

    assert read(encoded(plain(size=(16, 8)), "PNG", pnginfo=info), USUAL).pixels.shape == (16, 8, 3)


@pytest.mark.parametrize(("kind", "how"), [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_metadata_is_left_out_without_losing_the_orientation(kind: str, how: dict[str, Any]) -> None:
    data = encoded(plain(size=(16, 8)), kind, exif=exif(6), icc_profile=bytes(2_000_000), **how)

    assert read(data, USUAL).pixels.shape == (16, 8, 3)
