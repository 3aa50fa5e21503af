"""Answers and the params that shape them: small frozen values that cross every border inside Cask. A leaf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

# Names and versions of models, and names of other services.
NAME = "[a-z0-9][a-z0-9._-]{0,63}"
# How many digits of a score and of a pixel are worth sending.
SCORE_DIGITS = 5
PIXEL_DIGITS = 2
# What is taken where neither caller nor manifest says.
TOP_K = 5
SCORE_THRESHOLD = IOU_THRESHOLD = 0.5
USUAL_RESULTS = 100
# Most rows in the answer for an image.
MAX_RESULTS = 1000


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels; of the upright image at the edge, of the model's input inside the engine."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 … 1; 0 where both have no area."""
        width = min(self.x_max, other.x_max) - max(self.x_min, other.x_min)
        height = min(self.y_max, other.y_max) - max(self.y_min, other.y_min)
        shared = max(0.0, width) * max(0.0, height)
        areas = [(box.x_max - box.x_min) * (box.y_max - box.y_min) for box in (self, other)]
        union = sum(areas) - shared
        return float(shared / union) if union > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label for a whole image; ``score`` is a probability in [0, 1]."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found in an image; ``score`` is in [0, 1]."""

    label: str
    score: float
    box: Box


class Options:
    """What shapes an answer, as the engine gets it; each task has its own. A subclass is frozen and has slots."""

    __slots__ = ()
    # None of its own; a subclass names its fields.
    __match_args__: tuple[str, ...] = ()

    def in_input(self, width: int, height: int, scale_x: float, scale_y: float) -> Options:
        """The same for the model's input, of an image of so many pixels; the scales are pixels of input a pixel."""
        return self


@dataclass(frozen=True, slots=True)
class ClassifyOptions(Options):
    """How many labels the caller wants, best first."""

    top_k: int = TOP_K


@dataclass(frozen=True, slots=True)
class DetectOptions(Options):
    """Which objects the caller wants.

    ``min_width`` and ``min_height`` are in pixels of the image that travels with the options: of the upright image in
    the web tier, of the model's input in the engine. A detection is dropped when it is smaller in either direction.
    The fractions are of the upright image's sides, and become pixels on the way to the engine. ``label``: the only one
    wanted; empty for all.
    """

    score_threshold: float = SCORE_THRESHOLD
    iou_threshold: float = IOU_THRESHOLD
    max_results: int = USUAL_RESULTS
    min_width: float = 0.0
    min_height: float = 0.0
    min_width_fraction: float = 0.0
    min_height_fraction: float = 0.0
    label: str = ""

    def in_input(self, width: int, height: int, scale_x: float, scale_y: float) -> DetectOptions:
        """Least sizes are requested in pixels of the original; the engine sees pixels of its input."""
        least_width = max(self.min_width, self.min_width_fraction * width)
        least_height = max(self.min_height, self.min_height_fraction * height)
        return replace(self, min_width=least_width * scale_x, min_height=least_height * scale_y)


@dataclass(frozen=True, slots=True)
class ExplainOptions(Options):
    """Which label's score is to be explained; the best one's where it is empty."""

    label: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a classifier looked. ``map``: rows of the model's input from top to bottom, each cell's share in the score
    of ``label``, 0 … 1, the largest being 1; all 0 where nothing spoke for it. ``method``: cam or grad_cam.
    """

    label: str
    score: float
    method: str
    map: list[list[float]]


# The rows of one image's answer: Prediction, Detection, Explanation, or what another task has.
Answer = Sequence[Any]
# What an engine is asked; a task of a model, or why it answered so.
EXPLAIN = "explain"


def to_dict(value: Any) -> dict[str, Any]:
    """Turn any of the values above into plain JSON types."""
    # dataclasses.asdict copies deeply, which takes several times as long.
    return {
        name: to_dict(field) if isinstance(field := getattr(value, name), Box) else field
        for name in value.__match_args__
    }


def rounded(row: Any) -> dict[str, Any]:
    """One row of an answer as callers get it: no more digits than are worth sending."""
    found = to_dict(row)
    if "score" in found:
        found["score"] = round(row.score, SCORE_DIGITS)
    if "box" in found:
        found["box"] = {side: round(value, PIXEL_DIGITS) for side, value in found["box"].items()}
    return found
