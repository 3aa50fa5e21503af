"""How far apart are two answers, in tolerances? At most 1 is the same answer. No sockets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Batches of another size, or another thread, round a little differently.
SCORE_TOLERANCE = 0.02
BOX_TOLERANCE_PX = 4.0
# Answers so many tolerances apart stay told apart when a score of one of them is a little off.
SEPARATION = 5.0

Rows = Sequence[Mapping[str, Any]]


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How many tolerances two entries of ``results`` are apart, by what differs most; infinite for unlike shapes.

    The order of rows does not count. Labels that only one of them has count as a score of 0 in the other.
    """
    try:
        if (one["width"], one["height"]) != (other["width"], other["height"]):
            return math.inf
        for name, of_rows in OF_ROWS.items():
            if name in other:
                return of_rows(one[name], other[name])
        return of_values(one, other)
    except (KeyError, TypeError, AttributeError):
        return math.inf


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries of ``results`` say the same, within the tolerances and whatever the order of equals."""
    return distance(one, other) <= 1


def distinct(golden: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Pictures whose answers are all well apart from each other: the first of those that are not, in order."""
    chosen: list[int] = []
    for number, result in golden.items():
        if all(apart(result, golden[other]) for other in chosen):
            chosen.append(number)
    return chosen


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether no small error makes one answer look like the other. Size says nothing: it is not the model's answer."""
    sizes = {"width": 0, "height": 0}
    return distance({**one, **sizes}, {**other, **sizes}) >= SEPARATION


def _of_predictions(found: Rows, expected: Rows) -> float:
    if len(found) != len(expected):
        return math.inf
    scores, wanted = ({row["label"]: row["score"] for row in rows} for rows in (found, expected))
    labels = scores.keys() | wanted.keys()
    apart = (abs(scores.get(label, 0.0) - wanted.get(label, 0.0)) for label in labels)
    return max(apart, default=0.0) / SCORE_TOLERANCE


def _of_segments(found: Rows, expected: Rows) -> float:
    """By the areas of classes; one that is not there has none. The mask itself is not looked at."""
    areas, wanted = ({row["label"]: row["area"] for row in rows} for rows in (found, expected))
    apart = (abs(areas.get(label, 0.0) - wanted.get(label, 0.0)) for label in areas.keys() | wanted.keys())
    return max(apart, default=0.0) / SCORE_TOLERANCE


def _of_detections(found: Rows, expected: Rows) -> float:
    """Each with its nearest that is left; other counts or labels are another answer altogether."""
    if len(found) != len(expected):
        return math.inf
    left, farthest = list(found), 0.0
    for row in expected:
        nearest = min(left, key=lambda other, row=row: _of_detection(other, row))  # type: ignore[misc]
        farthest = max(farthest, _of_detection(nearest, row))
        left.remove(nearest)
    return farthest


def of_values(found: Any, expected: Any) -> float:
    """Of answers of another shape, such as a vector: by their numbers, each in tolerances of its size."""
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or found.keys() != expected.keys():
            return math.inf
        return max((of_values(found[key], value) for key, value in expected.items()), default=0.0)
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return math.inf
        return max(map(of_values, found, expected), default=0.0)
    if isinstance(expected, float) and isinstance(found, int | float):
        return float(abs(found - expected) / (SCORE_TOLERANCE * max(1.0, abs(expected))))
    return 0.0 if found == expected else math.inf


def _of_detection(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    if found["label"] != expected["label"]:
        return math.inf
    sides = (abs(found["box"][side] - value) / BOX_TOLERANCE_PX for side, value in expected["box"].items())
    return max(abs(found["score"] - expected["score"]) / SCORE_TOLERANCE, *sides)


OF_ROWS: Mapping[str, Callable[[Rows, Rows], float]] = {
    "predictions": _of_predictions,
    "segments": _of_segments,
    "detections": _of_detections,
}
