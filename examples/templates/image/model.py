from pathlib import Path
from typing import Annotated

import numpy as np

from cask import Image, Label, Model, Range, Shape, batch


class Template(Model):
    """Names the colour that a picture has most of."""

    def load(self, folder: Path) -> None:
        rows = [line.split() for line in (folder / "colours.txt").read_text().splitlines()]
        self.names, self.colours = [name for name, *_ in rows], np.array([row[1:] for row in rows], float)

    @batch(max_size=8)
    def predict(
        self, photo: list[Annotated[Image, Shape(64, 64, 3)]], *, top: Annotated[int, Range(1, 5)] = 1
    ) -> list[list[Label]]:
        pixels = np.stack([each.pixels for each in photo]).reshape(len(photo), -1, 1, 3)
        nearest = np.square(pixels - self.colours).sum(-1).argmin(-1)
        return [self.count(each)[:top] for each in nearest]

    def count(self, nearest: np.ndarray) -> list[Label]:
        shares = np.bincount(nearest, minlength=len(self.names)) / nearest.size
        return [Label(self.names[i], float(shares[i])) for i in np.argsort(-shares, kind="stable")]
