"""Pictures for models with code: as large as they come, or of the sides that the model asks for; RGB or grey."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from app.inference import code_items
from app.inference.images import Picture
from app.models.manifests import InputSpec

# Of pixels without colours; with colours there is a third.
GREY_SIDES = 2

Decode = Callable[[bytes, InputSpec], Picture]


def read(data: bytes, shape: Sequence[int | None] | None, decode: Decode) -> code_items.Pixels:
    """One picture as the model asks for it. Raises what ``decode`` does.

    ``shape``: height, width and 3 for RGB; height and width for grey; None for a side of its own, or RGB as it comes.
    """
    height, width = (shape[0] or 0, shape[1] or 0) if shape else (0, 0)
    # Scaled once, on its way out of the decoder.
    picture = decode(data, InputSpec("whole", width=width, height=height))
    pixels = picture.pixels
    if shape and len(shape) == GREY_SIDES:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    return pixels.shape, picture.width, picture.height, np.ascontiguousarray(pixels).reshape(-1).data
