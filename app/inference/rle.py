"""Masks as COCO's run-length encoding (RLE), which pycocotools and labelling tools read: ``{"size", "counts"}``.

``size`` is height and width. ``counts`` are lengths of runs down the columns, beginning with what is not of the mask,
written as text: each as the difference to the one before the last, five bits a character (``rleToString`` in COCO's
``maskApi.c``). Needs NumPy, which is imported when it is used: the web tier starts without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import TypedDict

if TYPE_CHECKING:
    import numpy as np

# The first character; of six bits, one says that more follow, and one of the last five is the sign.
_ZERO, _MORE, _SIGN, _BITS = 48, 0x20, 0x10, 5
# So many characters hold any length of a run here.
_MOST_CHARACTERS = 8


class Rle(TypedDict):
    """A mask as COCO's run-length encoding. ``size``: height and width of the upright image."""

    size: list[int]
    counts: str


def from_runs(starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> Rle:
    """The mask of the pixels from each start to before its end; pixels are counted down the columns, runs in order."""
    import numpy as np

    apart = starts[1:] != ends[:-1]
    kept = np.concatenate([[True], apart])[: len(starts)], np.concatenate([apart, [True]])[: len(ends)]
    edges = np.stack([starts[kept[0]], ends[kept[1]]], 1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return Rle(size=[height, width], counts=_written(counts if counts[-1] or len(counts) == 1 else counts[:-1]))


def edges(rle: Rle) -> np.ndarray:
    """Where runs begin and end in turn, pixels counted down the columns. Raises ValueError for what is no RLE."""
    import numpy as np

    counts = _read(rle["counts"])
    found = np.cumsum(counts)
    if len(counts) and (counts.min() < 0 or found[-1] != rle["size"][0] * rle["size"][1]):
        raise ValueError("The runs of a mask do not fill its image.")
    # The last run ends with the image.
    return found if len(found) % 2 == 0 else found[:-1]


def area(rle: Rle) -> int:
    """How many pixels the mask has."""
    found = edges(rle)
    return int((found[1::2] - found[::2]).sum())


def iou(first: Rle, second: Rle) -> float:
    """Intersection over union of two masks of one image, 0 … 1; 0 where both are empty."""
    import numpy as np

    one, other = edges(first), edges(second)
    if not (len(one) and len(other)) or first["size"] != second["size"]:
        return 0.0
    # How much of the other mask lies before each edge of this one.
    lengths = other[1::2] - other[::2]
    before = np.stack([np.cumsum(lengths) - lengths, np.cumsum(lengths)], 1).ravel()
    covered = np.interp(one, other, before)
    shared = float((covered[1::2] - covered[::2]).sum())
    return shared / (int((one[1::2] - one[::2]).sum()) + int(lengths.sum()) - shared)


def pixels(rle: Rle) -> np.ndarray:
    """The numbers of the mask's pixels, counted down the columns."""
    import numpy as np

    found = edges(rle)
    lengths = found[1::2] - found[::2]
    return np.arange(int(lengths.sum())) + np.repeat(found[::2] - (np.cumsum(lengths) - lengths), lengths)


def _written(counts: np.ndarray) -> str:
    import numpy as np

    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    characters = np.full((len(rest), _MOST_CHARACTERS), -1)
    open_ = np.ones(len(rest), bool)
    for place in range(_MOST_CHARACTERS):
        bits = rest & (_MORE - 1)
        rest >>= _BITS
        more = np.where(bits & _SIGN, rest != -1, rest != 0)
        characters[open_, place] = (bits + _MORE * more + _ZERO)[open_]
        open_ &= more
    flat = characters.ravel()
    return flat[flat >= 0].astype(np.uint8).tobytes().decode("ascii")


def _read(text: str) -> np.ndarray:
    import numpy as np

    bits = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - _ZERO
    if not len(bits) or bits.min() < 0 or bits.max() >= 2 * _MORE or bits[-1] & _MORE:
        raise ValueError("The counts of a mask are no text of COCO's.")
    last = np.flatnonzero(~bits & _MORE)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() >= _MOST_CHARACTERS:
        raise ValueError("The counts of a mask are longer than any image.")
    place = np.arange(len(bits)) - np.repeat(first, last - first + 1)
    found = np.add.reduceat((bits & (_MORE - 1)) << (_BITS * place), first)
    found -= np.where(bits[last] & _SIGN, 1 << (_BITS * (place[last] + 1)), 0)
    # Each is the difference to the one before the last, from the fourth on.
    found[1::2] = np.cumsum(found[1::2])
    found[2::2] = np.cumsum(found[2::2])
    return found
