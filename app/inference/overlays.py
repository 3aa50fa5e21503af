"""A map of places as a picture to lay over another one. A leaf: Pillow and numpy, no Flask, no torch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from app.inference.results import Box

# Nobody lays it over more than a screen's part; the browser smooths the rest.
MAX_SIDE = 480
LEVELS = 64
# From what hardly counts to what decides: dark violet, red, orange, light yellow (as matplotlib's "inferno").
COLOURS = ((60, 15, 110), (190, 55, 80), (245, 130, 30), (252, 225, 120))
MOST_OPAQUE = 200


def data_address(rows: Sequence[Sequence[float]], region: Box, width: int, height: int) -> str:
    """``overlay`` as a ``data:`` address, for JSON and pages."""
    return "data:image/png;base64," + base64.b64encode(overlay(rows, region, width, height)).decode("ascii")


def overlay(rows: Sequence[Sequence[float]], region: Box, width: int, height: int) -> bytes:
    """A PNG with transparency in the shape of an image of ``width`` × ``height``, at most ``MAX_SIDE`` a side.

    ``rows``: shares 0 … 1 of the places in ``region``, which is in the image's pixels; what the model did not see stays
    clear.
    """
    scale = min(1.0, MAX_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top, right, bottom = (
        round(side * scale) for side in (region.x_min, region.y_min, region.x_max, region.y_max)
    )
    shares = Image.fromarray(np.asarray(rows, np.float32))
    smooth = shares.resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BICUBIC)
    levels = (np.clip(np.asarray(smooth), 0, 1) * (LEVELS - 1)).round().astype(np.uint8)
    picture = Image.new("P", size, 0)
    picture.putpalette([channel for level in range(LEVELS) for channel in _colour(level / (LEVELS - 1))])
    picture.paste(Image.fromarray(levels), (left, top))
    buffer = io.BytesIO()
    opacity = bytes(round(MOST_OPAQUE * level / (LEVELS - 1)) for level in range(LEVELS))
    picture.save(buffer, "PNG", transparency=opacity, optimize=True)
    return buffer.getvalue()


def _colour(share: float) -> tuple[int, ...]:
    steps = list(pairwise(COLOURS))
    place = min(int(share * len(steps)), len(steps) - 1)
    part = share * len(steps) - place
    return tuple(round(first + (second - first) * part) for first, second in zip(*steps[place], strict=True))
