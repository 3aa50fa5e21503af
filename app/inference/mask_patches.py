"""A mask as a network gives it, small and over one object, and its pixels in an image of any size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.inference import rle
from app.inference.results import Box
from app.inference.rle import Rle

if TYPE_CHECKING:
    import numpy as np

# A share above this is of the object.
LEAST = 127.5
# So many columns of an image are computed at once: a mask over 50 megapixels is never whole in memory.
COLUMNS = 256


@dataclass(frozen=True, slots=True)
class Patch:
    """``shares``: 0 … 255, how surely each cell is of the object, uint8 [rows, columns]. ``area``: what the cells
    cover. ``box``: of the object; outside of it nothing is. Both in pixels.
    """

    shares: np.ndarray
    area: Box
    box: Box

    def to_rle(self, width: int, height: int) -> Rle:
        """The mask in an image of so many pixels; shares are interpolated between the middles of cells."""
        import numpy as np

        left, right = _inside(self.box.x_min, self.box.x_max, width)
        top, bottom = _inside(self.box.y_min, self.box.y_max, height)
        parts = list(self._runs(left, right, top, bottom, height))
        starts, ends = (
            (np.concatenate([np.zeros(0, np.int64), *each]) for each in zip(*parts, strict=True))
            if parts
            else (
                np.zeros(0, np.int64),
                np.zeros(0, np.int64),
            )
        )
        return rle.from_runs(starts, ends, height, width)

    def _runs(
        self, left: int, right: int, top: int, bottom: int, height: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        import numpy as np

        rows = _weights(top, bottom, self.area.y_min, self.area.y_max, self.shares.shape[0])
        for begin in range(left, right, COLUMNS):
            end = min(right, begin + COLUMNS)
            columns = _weights(begin, end, self.area.x_min, self.area.x_max, self.shares.shape[1])
            is_in = columns @ self.shares.T.astype(np.float32) @ rows.T > LEAST
            edges = np.diff(np.pad(is_in, ((0, 0), (1, 1))).astype(np.int8), axis=1)
            first, last = (np.nonzero(edges == step) for step in (1, -1))
            yield tuple((begin + column) * height + top + row for column, row in (first, last))  # type: ignore[misc]

    def moved(self, area: Box, box: Box) -> Patch:
        """The same at another place and scale."""
        return replace(self, area=area, box=box)


def _inside(begin: float, end: float, pixels: int) -> tuple[int, int]:
    """The pixels whose middle lies between, within the image."""
    first, last = max(0, round(begin)), min(pixels, round(end))
    return min(first, pixels), max(first, last)


def _weights(first: int, last: int, begin: float, end: float, cells: int) -> np.ndarray:
    """How much of each cell a pixel has: [pixels, cells]; nothing where it lies further than a cell outside."""
    import numpy as np

    places = (np.arange(first, last) + 0.5 - begin) * (cells / max(end - begin, 1e-6)) - 0.5
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(cells))).astype(np.float32)
