"""A map of places as a picture that is laid over another one."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from app.inference import images, overlays
from app.inference.results import Box
from app.models.manifests import InputSpec


def drawn(rows: list[list[float]], region: Box, width: int, height: int) -> np.ndarray:
    picture = Image.open(io.BytesIO(overlays.overlay(rows, region, width, height)))
    return np.asarray(picture.convert("RGBA"))


def test_what_counts_is_opaque_and_what_does_not_is_clear() -> None:
    pixels = drawn([[1.0, 0.0], [0.0, 0.0]], Box(0, 0, 100, 100), 100, 100)

    opacity = pixels[:, :, 3].astype(int)
    assert pixels.shape == (100, 100, 4)
    assert opacity[10, 10] > 150
    assert opacity[90, 90] < 6
    # Light yellow for the most.
    assert pixels[5, 5, 0] > 200
    assert pixels[5, 5, 1] > 200


def test_what_the_model_did_not_see_is_clear() -> None:
    pixels = drawn([[1.0]], images.seen(InputSpec("crop", size=8, resize_size=8), 200, 100), 200, 100)

    assert pixels[:, :49, 3].max() == 0
    assert pixels[:, 51:149, 3].min() > 150
    assert pixels[:, 151:, 3].max() == 0


def test_a_letterboxs_empty_part_is_left_out() -> None:
    region = images.seen(InputSpec("letterbox", size=8), 200, 100)

    assert (region.x_max, region.y_max) == (200, 200)
    assert drawn([[1.0, 1.0], [0.0, 0.0]], region, 200, 100)[:40, :, 3].min() > 100


def test_a_large_image_gets_a_small_overlay() -> None:
    data = overlays.overlay([[0.2, 1.0], [0.4, 0.1]], Box(0, 0, 6000, 4000), 6000, 4000)

    assert Image.open(io.BytesIO(data)).size == (480, 320)
    assert len(data) < 60_000


def test_a_map_of_nothing_is_clear() -> None:
    assert drawn([[0.0, 0.0]], Box(0, 0, 1, 50), 1, 50)[:, :, 3].max() == 0
