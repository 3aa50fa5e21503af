"""Pictures for models with code: as large as they come, or of the sides that the model asks for; RGB or grey."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from app.inference import code_items, images
from app.inference.images import Limits, Picture
from app.models.manifests import InputSpec

Decode = Callable[[bytes, InputSpec], Picture]


def read(data: bytes, shape: Sequence[int | None] | None, limits: Limits, decode: Decode) -> code_items.Pixels:
    """One picture as the model asks for it. Raises what ``images.look`` and ``decode`` do.

    ``shape``: height, width and 3 for RGB; height and width for grey; None for a side of its own, or RGB as it comes.
    """
    head = images.look(data, limits).head
    sides = (head.height, head.width) if head.orientation in images.QUARTER_TURNS else (head.width, head.height)
    wanted = (shape[1], shape[0]) if shape and shape[0] else None
    picture = decode(data, _spec(sides, wanted))
    pixels = picture.pixels
    if (wanted and pixels.shape[1::-1] != wanted) or (shape and len(shape) == 2):
        pixels = _fitted(pixels, wanted, is_grey=bool(shape) and len(shape or ()) == 2)
    return pixels.shape, picture.width, picture.height, np.ascontiguousarray(pixels).reshape(-1).data


def _spec(sides: tuple[int, int], wanted: tuple[Any, Any] | None) -> InputSpec:
    """So large that nothing is lost: a JPEG is then decoded no larger than need be."""
    scale = min(1.0, max(wanted[0] / sides[0], wanted[1] / sides[1])) if wanted else 1.0
    return InputSpec("fit", min_size=max(1, round(min(sides) * scale)), max_size=max(1, round(max(sides) * scale)))


def _fitted(pixels: np.ndarray, wanted: tuple[Any, Any] | None, *, is_grey: bool) -> np.ndarray:
    picture = Image.fromarray(pixels)
    if wanted:
        picture = picture.resize(wanted, Image.Resampling.BILINEAR)
    return np.asarray(picture.convert("L") if is_grey else picture)
