"""Pictures as models with code ask for them: scaled once, upright, RGB or grey."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.inference import code_images, images
from app.inference.images import Limits

LIMITS = Limits(10_000_000, 10_000_000, ("JPEG", "PNG"))
RANDOM = np.random.default_rng(1)
# What is smooth is scaled alike by everybody.
SMOOTH = Image.fromarray(RANDOM.integers(0, 256, (6, 8, 3), np.uint8)).resize((80, 60), Image.Resampling.BICUBIC)


def read(picture: Image.Image, shape: tuple[int | None, ...] | None, kind: str = "PNG", **saved: object) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **saved)
    sides, width, height, data = code_images.read(
        buffer.getvalue(), shape, lambda given, spec: images.read(given, spec, LIMITS)
    )
    assert sorted((width, height)) == sorted(picture.size)
    return np.frombuffer(data, np.uint8).reshape(sides)


@pytest.mark.parametrize("sides", [(24, 40), (40, 40), (30, 10), (90, 100)])
def test_all_of_it_is_scaled_to_the_sides_at_once(sides: tuple[int, int]) -> None:
    pixels = read(SMOOTH, (*sides, 3))

    expected = np.asarray(SMOOTH.resize(sides[::-1], Image.Resampling.BILINEAR)).astype(int)
    assert pixels.shape == (*sides, 3)
    assert np.abs(pixels - expected).max() <= 2


def test_jpeg_that_is_decoded_smaller_shows_the_same() -> None:
    large = SMOOTH.resize((640, 480), Image.Resampling.BICUBIC)

    pixels = read(large, (24, 24, 3), "JPEG", quality=95)

    expected = np.asarray(large.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels - expected).max() <= 8


def test_without_sides_it_is_as_it_came() -> None:
    assert np.array_equal(read(SMOOTH, None), np.asarray(SMOOTH))
    assert np.array_equal(read(SMOOTH, (None, None, 3)), np.asarray(SMOOTH))
    assert np.array_equal(read(SMOOTH, (None, None)), np.asarray(SMOOTH.convert("L")))


def test_it_is_turned_before_it_is_scaled() -> None:
    exif = Image.Exif()
    exif[274] = 6

    assert read(SMOOTH, None, exif=exif).shape == (80, 60, 3)
    turned = read(SMOOTH, (20, 10), exif=exif)

    expected = SMOOTH.transpose(Image.Transpose.ROTATE_270).resize((10, 20), Image.Resampling.BILINEAR).convert("L")
    assert np.abs(turned - np.asarray(expected).astype(int)).max() <= 3
