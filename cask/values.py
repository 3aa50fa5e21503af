"""The values that models take and give: pictures, and answers that Cask knows how to show, merge and count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class Image:
    """A picture: decoded, upright, checked against the limits of the service.

    ``pixels``: uint8 array, height × width × 3, RGB; height × width where a grey one was asked for.
    ``width`` and ``height``: of the upright original, in pixels; ``pixels`` may be scaled, see ``Shape``.

    >>> import numpy
    >>> Image(numpy.zeros((2, 3, 3), "uint8"), width=3, height=2).pixels.shape
    (2, 3, 3)
    """

    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Label:
    """One name for a whole item. ``score``: a probability, 0 to 1.

    >>> Label("invoice", 0.93)
    Label(label='invoice', score=0.93)
    """

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright original; x to the right, y down, from the top left corner.

    >>> Box(x_min=10, y_min=20, x_max=30, y_max=60).y_max
    60
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object in a picture. ``score``: 0 to 1.

    >>> Detection("dog", 0.8, Box(10, 20, 30, 60)).box.x_max
    30
    """

    label: str
    score: float
    box: Box


@dataclass(frozen=True, eq=False, slots=True)
class Mask:
    """A class for each pixel. Callers get a PNG and the area of each class.

    ``classes``: uint8 array, height × width; each value is an index into ``labels``, of which there are at most 256.

    >>> import numpy
    >>> Mask(numpy.zeros((4, 6), "uint8"), labels=["road", "sky"]).classes.shape
    (4, 6)
    """

    classes: np.ndarray[Any, np.dtype[np.uint8]]
    labels: Sequence[str]


@dataclass(frozen=True, eq=False, slots=True)
class Embedding:
    """A vector that stands for an item; finite numbers, of one length for all items of a model.

    >>> len(Embedding([0.1, 0.2, 0.3]).vector)
    3
    """

    vector: Sequence[float] | np.ndarray[Any, np.dtype[np.floating[Any]]]
