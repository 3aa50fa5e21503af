"""What the head of any image says, and why it cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

from app.texts import Text


class HeadError(Exception):
    """The head contradicts itself; the ``text`` follows «cannot be decoded:»."""

    def __init__(self, words: str, **values: object) -> None:
        self.text = Text(words, **values)
        super().__init__(self.text)


class CutOffError(HeadError):
    """The file ends before what it announces; the text says what is missing."""


class TooComplexError(HeadError):
    """Reading it would take out of proportion to its size; the text follows «The … image»."""


@dataclass(frozen=True)
class Head:
    """One image, not decoded.

    ``width`` and ``height``: as stored, before it is turned. ``data``: the file without metadata that no pixel needs.
    ``orientation``: the tag of Exif, 1 to 8. ``pixel_bytes``: memory at the peak for each decoded pixel;
    ``stored_pixel_bytes``: for each pixel as stored, however small it is decoded. ``seconds``: about so long it takes
    one core. ``shrinks``: whether it can be decoded at an eighth, a quarter or half of its size. ``lacks``: why these
    bytes cannot be all of it, empty where they can. Raises HeadError where it has no pixels.
    """

    width: int
    height: int
    data: bytes
    orientation: int
    pixel_bytes: float
    seconds: float
    stored_pixel_bytes: float = 0.0
    shrinks: bool = False
    lacks: str = ""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise HeadError("it says it is %(width)s×%(height)s pixels", width=self.width, height=self.height)
