"""Scaling: the same pixels as Pillow's own, whatever computes them."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.inference import resampling


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = len(mode)
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels.squeeze() if channels == 1 else pixels, mode)


def largest_difference(image: Image.Image, size: tuple[int, int], part: tuple[float, float, float, float]) -> int:
    expected = image.resize(size, Image.Resampling.BILINEAR, box=part)
    found = resampling.bilinear(image, size, part)

    assert (found.size, found.mode) == (size, image.mode)
    return int(np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max())


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_pixels_are_those_of_pillow_but_for_rounding(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 300))
    size = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    left, top = data.draw(st.floats(0, width * 0.7)), data.draw(st.floats(0, height * 0.7))
    right, lower = data.draw(st.floats(left + width * 0.1, width)), data.draw(st.floats(top + height * 0.1, height))

    assert largest_difference(noise(width, height), size, (left, top, right, lower)) <= 2


def test_part_that_ends_beyond_the_edge_by_rounding_is_cut_there() -> None:
    part = (0.1, 0.1, 0.1 + (30 - 0.1), np.nextafter(20.0, 21.0))

    assert largest_difference(noise(30, 20), (7, 9), (*part[:3], 20.0)) <= 1
    resampling.bilinear(noise(30, 20), (7, 9), part)


@pytest.mark.parametrize("mode", ["RGBA", "L"])
def test_other_modes_are_left_to_pillow(mode: str) -> None:
    assert largest_difference(noise(40, 30, mode), (13, 11), (0.0, 0.0, 40.0, 30.0)) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("part", [(0.0, 0.0, 300.0, 200.0), (31.5, 10.25, 250.0, 199.5)])
@pytest.mark.parametrize("size", [(64, 48), (300, 200), (200, 20)])
def test_strips_of_what_shines_through_are_as_the_whole(
    mode: str, part: tuple[float, float, float, float], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "STRIP_PIXELS", 300 * 7)
    image = noise(300, 200, "RGBA").convert(mode)
    expected = image.convert("RGBA").resize(size, Image.Resampling.BILINEAR, box=part)
    found = resampling.bilinear(image, size, part)

    assert np.array_equal(np.asarray(found.convert("RGBA")), np.asarray(expected))


def test_without_the_vectorised_library_pillow_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "IS_VECTORISED", False)

    assert largest_difference(noise(40, 30), (13, 11), (1.5, 0.0, 40.0, 30.0)) == 0


def test_x86_has_the_vectorised_library() -> None:
    assert resampling.IS_VECTORISED or platform.machine() != "x86_64"
