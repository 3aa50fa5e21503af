from typing import Annotated

import numpy as np

from cask import Image, Mask, Model, Range, Shape, batch


class Brightness(Model):
    """Says which pixels of a photograph are bright."""

    @batch(max_size=8)
    def predict(
        self, photo: list[Annotated[Image, Shape(64, 64)]], *, threshold: Annotated[float, Range(0, 1)] = 0.5
    ) -> list[Mask]:
        pixels = np.stack([each.pixels for each in photo])
        return [Mask((each > 255 * threshold).astype(np.uint8), ["dark", "bright"]) for each in pixels]
