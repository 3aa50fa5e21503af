"""Answers as the template draws them: boxes in per cent of the picture, a colour for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.inference.results import Box, Detection
from app.web.pages import languages

# So many .hue-N classes stand in static/css/picture.css.
HUES = 10
# Nearer to the top than this, a tag would leave the picture; it then goes inside its box.
TOP_EDGE = 0.06
# Of a value that is no label: digits of a number, characters of a text, numbers of a list. js/answer.js has the same.
DIGITS = 5
MOST_CHARACTERS = 80
MOST_VALUES = 8


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """One detection, placed. Lengths are SVG percentages, so that the drawing follows the picture at any size."""

    label: str
    score: str
    hue: int
    x: str
    y: str
    width: str
    height: str
    tag_x: str
    tag_width: str
    tag_on_right: bool
    tag_inside: bool


def draw(detections: Iterable[Detection], width: int, height: int, labels: Sequence[str]) -> list[DrawnBox]:
    """Place every detection; the smallest comes last, so that it lies on top and can be pointed at."""
    ordered = sorted(detections, key=lambda detection: -_area(detection.box))
    return [_place(detection, width, height, labels) for detection in ordered]


def hue(label: str, labels: Sequence[str]) -> int:
    """The colour of a label: its place among the model's labels, so it stays the same from picture to picture."""
    return labels.index(label) % HUES if label in labels else 0


def share(value: float, digits: int = 2) -> str:
    """A share of one as a length of SVG: 0.973 is ``97.30%``. For people: ``languages.percent``."""
    return f"{100 * value:.{digits}f}%"


def count(detections: Sequence[Detection]) -> str:
    """``2 cone, 1 helmet``: what was found, most frequent first."""
    counted = Counter(detection.label for detection in detections)
    return ", ".join(f"{number} {label}" for label, number in counted.most_common())


def cells(row: Any) -> list[str]:
    """What a row of a result says: its texts as they are, each other value behind its name."""
    pairs = row.items() if isinstance(row, Mapping) else [("", row)]
    return [
        _short(value) if isinstance(value, str) or not name else f"{name.replace('_', ' ')} {_short(value)}"
        for name, value in pairs
        if not isinstance(value, Mapping)
    ]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value[:MOST_VALUES]))}{', …' if len(value) > MOST_VALUES else ''}]"
    if isinstance(value, float):
        return repr(float(f"{value:.{DIGITS}g}")).removesuffix(".0")
    return str(value)[:MOST_CHARACTERS]


def _area(box: Box) -> float:
    return (box.x_max - box.x_min) * (box.y_max - box.y_min)


def _place(detection: Detection, width: int, height: int, labels: Sequence[str]) -> DrawnBox:
    box = detection.box
    left, right = box.x_min / width, box.x_max / width
    top, bottom = box.y_min / height, box.y_max / height
    on_right = (left + right) / 2 > 0.5
    return DrawnBox(
        label=detection.label,
        score=languages.percent(detection.score),
        hue=hue(detection.label, labels),
        x=share(left),
        y=share(top),
        width=share(right - left),
        height=share(bottom - top),
        tag_x="0%" if on_right else share(left),
        tag_width=share(right if on_right else 1 - left),
        tag_on_right=on_right,
        tag_inside=top < TOP_EDGE,
    )
