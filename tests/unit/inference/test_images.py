"""From bytes to pixels: upright, RGB, scaled as the model wants, back again; and what is refused before it costs."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from app import config
from app.errors import CaskError, ImageEmptyError, ImageTooLargeError, ImageUndecodableError, ImageUnsupportedError
from app.image_headers.orientation import TAG as ORIENTATION_TAG
from app.inference import images
from app.inference.images import Limits, Picture
from app.inference.results import Box
from app.models.manifests import LETTERBOX_GREY, InputSpec
from tests import fakes

# Pillow warns of altered files; a process that serves does not listen to it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

ALL_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
LIMITS = Limits(16_000_000, 50_000_000, ("JPEG", "PNG", "WEBP"))
ANY_FORMAT = Limits(16_000_000, 50_000_000, ALL_FORMATS)
SAME_SIZE = InputSpec("fit", min_size=1000, max_size=1000)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def read(data: bytes, spec: InputSpec, limits: Limits = ANY_FORMAT) -> Picture:
    return images.read(data, spec, limits)


def fit(width: int, height: int) -> InputSpec:
    """An input of just this size."""
    return InputSpec("fit", min_size=min(width, height), max_size=max(width, height))


def corners() -> Image.Image:
    """40 × 20, upright: red at the top left, green at the top right, blue at the bottom left, white elsewhere."""
    image = Image.new("RGB", (40, 20), WHITE)
    image.paste(RED, (0, 0, 20, 10))
    image.paste(GREEN, (20, 0, 40, 10))
    image.paste(BLUE, (0, 10, 20, 20))
    return image


# How a camera that was held so stores an upright picture: the inverse of what makes it upright again.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def as_stored(image: Image.Image, orientation: int) -> Image.Image:
    method = STORED[orientation]
    return image if method is None else image.transpose(method)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION_TAG] = orientation
    return made


def is_corners(picture: Picture) -> bool:
    pixels = picture.pixels.astype(int)
    height, width = pixels.shape[:2]
    found = [pixels[y, x] for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return bool(np.abs(np.array(found) - [RED, GREEN, BLUE, WHITE]).max() < 60)


# ── upright ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_image_is_turned_upright(orientation: int, kind: str) -> None:
    data = encoded(as_stored(corners(), orientation), kind, exif=exif(orientation))

    picture = read(data, fit(40, 20))

    assert (picture.width, picture.height, picture.pixels.shape) == (40, 20, (20, 40, 3))
    assert is_corners(picture)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_image_with_transparency_is_turned_upright_too(mode: str) -> None:
    data = encoded(as_stored(corners(), 6).convert(mode), exif=exif(6))

    picture = read(data, fit(40, 20))

    assert (picture.width, picture.height) == (40, 20)
    assert is_corners(picture)


def test_grey_image_of_16_bits_is_turned_upright_too() -> None:
    stored = Image.fromarray(np.array([[65535, 0], [65535, 0], [65535, 0], [65535, 0]], np.uint16))

    picture = read(encoded(stored, exif=exif(6)), fit(4, 2))

    assert (picture.width, picture.height) == (4, 2)
    assert picture.pixels[:, :, 0].tolist() == [[255] * 4, [0] * 4]


def test_orientation_in_xmp_counts_for_size_and_pixels_alike() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')

    picture = read(encoded(as_stored(corners(), 6).convert("RGBA"), pnginfo=info), fit(40, 20))

    assert (picture.width, picture.height) == (40, 20)
    assert is_corners(picture)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    assert is_corners(read(encoded(corners(), exif=exif(orientation)), fit(40, 20)))


@pytest.mark.parametrize("tail", [b"", b"II*\x00", b"II*\x00\x08\x00\x00\x00\x01\x00", b"\xff" * 30])
def test_image_with_broken_exif_is_read_all_the_same(tail: bytes) -> None:
    assert is_corners(read(encoded(corners(), "JPEG", exif=b"Exif\x00\x00" + tail, quality=95), fit(40, 20)))


# ── every mode becomes RGB ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "expected"),
    [
        ("L", 100, "PNG", (100, 100, 100)),
        ("1", 1, "PNG", WHITE),
        ("LA", (0, 0), "PNG", WHITE),
        ("LA", (100, 255), "PNG", (100, 100, 100)),
        ("RGBA", (255, 0, 0, 255), "PNG", RED),
        ("RGBA", (255, 0, 0, 0), "PNG", WHITE),
        ("RGBA", (0, 0, 0, 128), "PNG", (127, 127, 127)),
        ("RGBA", (0, 0, 255, 0), "WEBP", WHITE),
        ("CMYK", (0, 255, 255, 0), "JPEG", (254, 0, 0)),
        ("CMYK", (0, 0, 0, 255), "TIFF", (0, 0, 0)),
        ("YCbCr", (76, 85, 255), "JPEG", (254, 0, 0)),
        ("I;16", 257 * 100, "PNG", (100, 100, 100)),
        ("I;16", 65535, "TIFF", WHITE),
        ("F", 100.0, "TIFF", (100, 100, 100)),
        ("P", 0, "GIF", (0, 0, 0)),
    ],
)
def test_colours_of_every_mode_are_what_a_person_sees(mode: str, colour: Any, kind: str, expected: tuple) -> None:
    picture = read(fakes.picture(8, 8, kind, colour, mode), fit(8, 8))

    assert np.abs(picture.pixels.astype(int) - expected).max() <= 2


def test_palette_with_transparency_is_laid_over_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(0, (4, 0, 8, 8))

    pixels = read(encoded(image, transparency=bytes([255, 0])), fit(8, 8)).pixels

    assert (tuple(pixels[0, 0]), tuple(pixels[0, 7])) == (WHITE, (0, 0, 0))


def test_colour_that_a_png_calls_transparent_is_white() -> None:
    assert (read(encoded(Image.new("RGB", (8, 8), RED), transparency=RED), fit(8, 8)).pixels == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_picture_of_an_animation_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)

    assert np.abs(read(data, fit(8, 8)).pixels.astype(int) - RED).max() <= 3


# ── scaling ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 60)], axis=-1).astype(np.uint8))


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (333, 333), (257, 1000), (200, 100), (90, 70)])
def test_crop_is_what_training_code_does_by_resize_and_center_crop(width: int, height: int) -> None:
    image = gradient(width, height)
    scale = 256 / min(width, height)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) / 2, (resized.height - 224) / 2
    expected = resized.crop((round(left), round(top), round(left) + 224, round(top) + 224))

    picture = read(encoded(image), InputSpec("crop", size=224, resize_size=256))

    assert picture.pixels.shape == (224, 224, 3)
    assert np.abs(picture.pixels.astype(int) - np.asarray(expected).astype(int)).max() <= 3


def test_letterbox_puts_the_image_at_the_top_left_and_grey_elsewhere() -> None:
    picture = read(encoded(Image.new("RGB", (80, 40), RED)), InputSpec("letterbox", size=64))

    assert picture.pixels.shape == (64, 64, 3)
    assert (picture.pixels[:32] == RED).all()
    assert (picture.pixels[32:] == LETTERBOX_GREY).all()


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(1000, 500, (400, 800)), (500, 1000, (800, 400)), (600, 500, (500, 600))]
)
def test_fit_scales_the_shorter_side_unless_the_longer_would_pass(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    picture = read(encoded(gradient(width, height)), InputSpec("fit", min_size=500, max_size=800))

    assert picture.pixels.shape[:2] == expected


@pytest.mark.parametrize("size", [(3000, 2000), (2000, 3000), (1001, 999)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_jpeg_is_decoded_smaller_without_shifting_anything(size: tuple[int, int], orientation: int) -> None:
    image = gradient(*size)
    spec = InputSpec("letterbox", size=100)
    data = encoded(as_stored(image, orientation), "JPEG", quality=95, exif=exif(orientation))

    picture, exact = read(data, spec), read(encoded(image), spec)

    assert (picture.width, picture.height) == size
    assert np.abs(picture.pixels.astype(int) - exact.pixels.astype(int)).max() <= 8


@pytest.mark.parametrize("spec", [InputSpec("letterbox", size=128), InputSpec("fit", min_size=100, max_size=150)])
@given(width=st.integers(1, 400), height=st.integers(1, 400), share=st.tuples(*[st.floats(0, 1)] * 4))
def test_box_in_the_input_is_found_again_in_the_original(
    spec: InputSpec, width: int, height: int, share: tuple[float, ...]
) -> None:
    picture = read(fakes.picture(width, height, "BMP"), spec)
    box = Box(share[0] * width, share[1] * height, share[2] * width, share[3] * height)
    in_input = Box(
        box.x_min * picture.scale_x,
        box.y_min * picture.scale_y,
        box.x_max * picture.scale_x,
        box.y_max * picture.scale_y,
    )

    found = picture.to_original(in_input)

    assert (found.x_min, found.y_min) == pytest.approx((box.x_min, box.y_min), abs=1e-6)
    assert (found.x_max, found.y_max) == pytest.approx((box.x_max, box.y_max), abs=1e-6)
    assert in_input.x_max <= picture.pixels.shape[1] + 1e-6 and in_input.y_max <= picture.pixels.shape[0] + 1e-6


def test_box_outside_the_image_is_cut_at_its_edges() -> None:
    picture = Picture(np.zeros((64, 64, 3), np.uint8), 80, 40, 0.8, 0.8)

    assert picture.to_original(Box(-5, -1, 70, 64)) == Box(0, 0, 80, 40)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (1, 1), (2, 30_000)])
@pytest.mark.parametrize(
    "spec",
    [
        InputSpec("crop", size=224, resize_size=256),
        InputSpec("letterbox", size=640),
        InputSpec("fit", min_size=800, max_size=1333),
    ],
    ids=lambda spec: spec.kind,
)
def test_strip_does_not_grow_into_gigabytes(size: tuple[int, int], spec: InputSpec) -> None:
    data = fakes.picture(*size, kind="PNG")
    tracemalloc.start()

    picture = read(data, spec)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert picture.pixels.nbytes <= max(spec.size, spec.max_size) ** 2 * 3
    assert peak < 20_000_000
    assert min(picture.pixels.shape) >= 1


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(fakes.picture(8, 8))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack("!HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data", [png_that_claims(13_000, 13_000), jpeg_that_claims(25_000, 25_000)], ids=["PNG", "JPEG"]
)
def test_image_that_claims_too_many_pixels_is_refused_before_it_is_decoded(data: bytes) -> None:
    tracemalloc.start()

    with pytest.raises(ImageTooLargeError, match=r"The image is \d+×\d+ pixels; at most 50000000") as caught:
        read(data, SAME_SIZE, LIMITS)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert "operator" in caught.value.hint


def test_image_of_exactly_the_most_pixels_is_read() -> None:
    limits = Limits(1_000_000, 100 * 50, ("PNG",))

    assert read(fakes.picture(100, 50, "PNG"), SAME_SIZE, limits).width == 100
    with pytest.raises(ImageTooLargeError):
        read(fakes.picture(101, 50, "PNG"), SAME_SIZE, limits)


def test_image_of_too_many_bytes_is_refused() -> None:
    with pytest.raises(ImageTooLargeError, match="has 101 bytes; at most 100"):
        read(bytes(101), SAME_SIZE, Limits(100, 100, ("PNG",)))


def test_image_of_no_bytes_is_empty() -> None:
    with pytest.raises(ImageEmptyError, match="0 bytes"):
        read(b"", SAME_SIZE)


@pytest.mark.parametrize("data", [b"hello", b"<svg/>", b"%PDF-1.7", b"\x00" * 1000, b"\xff"], ids=repr)
def test_bytes_that_are_no_image_are_unsupported(data: bytes) -> None:
    with pytest.raises(ImageUnsupportedError, match=f"{len(data)} bytes are not an image of an accepted format"):
        read(data, SAME_SIZE, LIMITS)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
def test_format_that_is_not_accepted_is_unsupported_whatever_it_is_called(kind: str) -> None:
    with pytest.raises(ImageUnsupportedError) as caught:
        read(fakes.picture(16, 16, kind), SAME_SIZE, LIMITS)

    assert caught.value.hint.startswith("Accepted: JPEG, PNG, WEBP. They begin ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_image_that_is_cut_off_cannot_be_decoded(kind: str) -> None:
    whole = encoded(gradient(200, 200), kind)

    with pytest.raises(ImageUndecodableError, match=r"cannot be (decoded|read)") as caught:
        read(whole[: len(whole) // 2], SAME_SIZE)

    assert "damaged" in caught.value.hint


@given(data=st.data(), kind=st.sampled_from(ALL_FORMATS))
def test_altered_image_is_read_or_refused_by_name(data: st.DataObject, kind: str) -> None:
    how = {} if kind in ("GIF", "BMP") else {"exif": exif(6)}
    whole = bytearray(encoded(corners(), kind, **how))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    whole = whole[: data.draw(st.integers(1, len(whole)))]

    try:
        picture = read(bytes(whole), fit(40, 20), Limits(10**6, 10**6, ALL_FORMATS))
    except CaskError as error:
        assert error.status in (413, 415, 422)
    else:
        assert picture.pixels.dtype == np.uint8 and picture.pixels.shape[2] == 3


@pytest.mark.parametrize("error", [struct.error("unpack"), zlib.error("bad"), KeyError(1), RuntimeError("x")], ids=repr)
def test_whatever_a_reader_raises_on_damaged_bytes_is_the_callers_fault(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)

    with pytest.raises(ImageUndecodableError):
        read(fakes.picture(8, 8, "PNG"), SAME_SIZE)


def test_reading_in_threads_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    data = fakes.picture(64, 64)
    threads = [threading.Thread(target=read, args=(data, fit(32, 32))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(warnings.filters) == before


def test_oddities_of_a_callers_file_are_not_warned_of() -> None:
    """In a process of its own: pytest has filters of its own."""
    code = (
        "import sys; from app.inference import images; from app.models import manifests;"
        "data = sys.stdin.buffer.read();"
        "images.read(data, manifests.InputSpec('letterbox', size=8), images.Limits(10**6, 10**6, ('JPEG',)))"
    )
    data = encoded(corners(), "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00")

    done = subprocess.run([sys.executable, "-W", "error", "-c", code], input=data, cwd=config.ROOT, capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")
