"""How far two answers of a detector's file are apart: boxes by their size, scores by theirs, lists in any order.

Rounding decides which of two nearly equal scores stands first in a list, and which one a list of fixed length leaves
out. Neither changes what is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.runtimes import detection_heads as heads
from app.runtimes.build import agreement

# Lists of any length were cut at a score of about this.
LEAST_LISTED_SCORE = 0.05
# Of YOLO's rows.
BOX_COLUMNS = 4
# The rows of each picture, in parts whose values are of one kind.
Parts = list[np.ndarray]


def apart(options: Mapping[str, Any], first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """The largest difference, as a share of the largest value of its kind or 1.

    ``options``: of a head, see ``detection_outputs``. An object that one answer alone has counts by how far its score
    is above the lowest of both lists.
    """
    is_alike = [each.ndim for each in first] == [each.ndim for each in second]
    # No comparison with NaN is true, so a list with one would pass.
    if not is_alike or not all(np.isfinite(each).all() for each in second):
        return float("inf")
    head = options["head"]
    one, other = (_parts(head, options, outputs) for outputs in (first, second))
    scales = [max(1.0, *(float(np.abs(side).max(initial=0)) for side in pair)) for pair in zip(one, other, strict=True)]
    # What is no row of an object: maps, of which its coefficients make masks.
    rest = max((agreement.of_values(*pair) for pair in zip(*map(_maps, (first, second)), strict=True)), default=0.0)
    if head == heads.YOLO:
        return max(rest, *(agreement.of_values(*pair) for pair in zip(one, other, strict=True)))
    scores = [_scores(head, options, parts) for parts in (one, other)]
    pictures = zip(_of_pictures(one), _of_pictures(other), *scores, strict=True)
    return max(rest, *(_lists_apart(head, scales, *each) for each in pictures))


def _parts(head: str, options: Mapping[str, Any], outputs: Sequence[np.ndarray]) -> Parts:
    """float64 [pictures, rows, columns] each."""
    if head == heads.TORCHVISION:
        boxes, labels, scores, *masks = (each.astype(np.float64) for each in outputs)
        return [boxes[None], labels.reshape(1, -1, 1), scores.reshape(1, -1, 1), *(_flat(each) for each in masks)]
    if head == heads.DETR:
        return [each.astype(np.float64) for each in outputs[:2]]
    is_turned = head == heads.YOLO and not options.get("is_by_place")
    rows = (outputs[0].transpose(0, 2, 1) if is_turned else outputs[0]).astype(np.float64)
    if head == heads.YOLO:
        return [rows[..., :BOX_COLUMNS], rows[..., BOX_COLUMNS:]]
    return [rows[..., :BOX_COLUMNS], rows[..., 4:5], rows[..., 5:6], rows[..., 6:]]


def _maps(outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [each for each in outputs if each.ndim == 4 and each.shape[1] != 1]


def _flat(masks: np.ndarray) -> np.ndarray:
    return masks.reshape(1, len(masks), int(np.prod(masks.shape[1:])))


def _scores(head: str, options: Mapping[str, Any], parts: Parts) -> np.ndarray:
    """Of each row, float64 [pictures, rows]."""
    if head == heads.DETR:
        logits = parts[0]
        if not options.get("is_softmax"):
            return heads.sigmoid(logits).max(-1, initial=0)
        return heads.softmax(logits)[..., :-1].max(-1, initial=0)
    return parts[2 if head == heads.TORCHVISION else 1][..., 0]


def _of_pictures(parts: Parts) -> list[Parts]:
    return [[part[number] for part in parts] for number in range(len(parts[0]))]


def _lists_apart(
    head: str, scales: Sequence[float], one: Parts, other: Parts, one_scores: np.ndarray, other_scores: np.ndarray
) -> float:
    lowest = LEAST_LISTED_SCORE
    if head != heads.TORCHVISION:
        lowest = min(scores.min(initial=1) for scores in (one_scores, other_scores))
    distances = np.zeros((len(one_scores), len(other_scores)))
    for first, second, scale in zip(one, other, scales, strict=True):
        for row, values in enumerate(first):
            found = np.abs(second - values).max(1, initial=0) / scale
            distances[row] = np.maximum(distances[row], found)
    alone = (np.maximum(0, scores - lowest) for scores in (one_scores, other_scores))
    nearest = (distances.min(axis, initial=np.inf) for axis in (1, 0))
    return max(float(np.minimum(*pair).max(initial=0)) for pair in zip(nearest, alone, strict=True))
