"""What a type hint can say besides the type, inside ``Annotated[…]``: limits that are checked before your code runs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the largest number that is accepted, both included; None is no limit.

    Raises ValueError when ``low`` is above ``high`` or one is not finite.

    >>> from typing import Annotated
    >>> Share = Annotated[float, Range(0, 1)]
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for side in (self.low, self.high):
            if side is not None and not math.isfinite(side):
                raise ValueError(f"a side of Range is {side!r}, expected a finite number or None")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(
                f"Range({self.low!r}, {self.high!r}) is empty: the first number must not be above the second"
            )


@dataclass(frozen=True, slots=True)
class Text:
    """How many characters a text has, and a regular expression that all of it must match.

    Raises ValueError for lengths below 0, in the wrong order, or an expression that cannot be read.

    >>> from typing import Annotated
    >>> Comment = Annotated[str, Text(max_length=4000)]
    """

    min_length: int = 0
    max_length: int | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.min_length < 0 or (self.max_length is not None and self.max_length < self.min_length):
            raise ValueError(f"Text(min_length={self.min_length!r}, max_length={self.max_length!r}) fits no text")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"the pattern {self.pattern!r} is no regular expression: {error}") from None


@dataclass(frozen=True, slots=True, init=False)
class Choice:
    """The texts that are accepted. As ``Literal``, for texts that are only known when the module is loaded.

    Raises ValueError when there is none or one is no text.

    >>> from typing import Annotated
    >>> Language = Annotated[str, Choice("de", "en")]
    """

    values: tuple[str, ...]

    def __init__(self, *values: str) -> None:
        if not values or not all(isinstance(value, str) for value in values):
            raise ValueError(f"Choice{values!r} offers nothing, or something that is no text")
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class Labels:
    """The texts that are accepted are the lines of a file in the model's folder; empty lines do not count.

    The file is read when the model is added.

    >>> from typing import Annotated
    >>> Queue = Annotated[str, Labels("queues.txt")]
    """

    file: str


@dataclass(frozen=True, slots=True, init=False)
class Shape:
    """The sides of an array, or of an image's pixels; None is a side of any length.

    For an array: ``dtype`` is a numpy name such as ``float32`` or ``int64``, which the values are converted to.
    For an ``Image``: ``Shape(224, 224, 3)`` is scaled to 224 × 224 pixels, RGB; ``Shape(None, None)`` is grey, of its
    own size. Raises ValueError for no side, or one below 1.

    >>> from typing import Annotated
    >>> from cask import Image
    >>> Small = Annotated[Image, Shape(64, 64, 3)]
    """

    sides: tuple[int | None, ...]
    dtype: str

    def __init__(self, *sides: int | None, dtype: str = "float32") -> None:
        if not sides or any(side is not None and (not isinstance(side, int) or side < 1) for side in sides):
            raise ValueError(f"Shape{sides!r} needs one side at least, each a whole number from 1 or None")
        object.__setattr__(self, "sides", sides)
        object.__setattr__(self, "dtype", dtype)
