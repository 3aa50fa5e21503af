"""Several models' answers for one image made into one: boxes fused or suppressed, scores averaged. A leaf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from app.inference.results import Box, Detection, Prediction

# Of all members together the best so many are looked at: merging them takes some hundredths of a second.
MAX_BOXES = 4000
# Boxes of score 0 weigh nothing, and all of them together no less.
LEAST_WEIGHT = 1e-200
# Boxes with their ranks among all, best first.
Ranked = Sequence[tuple[int, Detection]]


class _Boxes:
    """Boxes of one label: in a column each x_min, y_min, x_max, y_max; with their areas. Has room for so many."""

    def __init__(self, room: int) -> None:
        self.count = 0
        self._corners, self._areas = np.empty((4, room)), np.empty(room)

    def put(self, number: int, box: np.ndarray) -> None:
        """In place of another, or as one more."""
        self.count = max(self.count, number + 1)
        self._corners[:, number] = box
        self._areas[number] = (box[2] - box[0]) * (box[3] - box[1])

    def best_fit(self, box: np.ndarray, iou_threshold: float) -> int | None:
        """Which one overlaps most with this box, and more than that; None where none does."""
        corners, areas = self._corners[:, : self.count], self._areas[: self.count]
        sides = np.minimum(corners[2:], box[2:, None]) - np.maximum(corners[:2], box[:2, None])
        np.maximum(sides, 0.0, out=sides)
        shared = sides[0] * sides[1]
        union = areas + (box[2] - box[0]) * (box[3] - box[1]) - shared
        # Without a division, for there may be no area at all.
        fitting = np.flatnonzero(shared > iou_threshold * union)
        return int(fitting[np.argmax(shared[fitting] / union[fitting])]) if len(fitting) else None


def fuse_boxes(answers: Sequence[Sequence[Detection]], iou_threshold: float) -> list[Detection]:
    """Weighted boxes fusion, best first: boxes with one label that overlap more than ``iou_threshold`` become one.

    Its corners are the mean of theirs, weighted by score; its score is the mean of theirs, less where fewer members
    than all saw the object. After R. Solovyev, W. Wang and T. Gabruseva, "Weighted boxes fusion: Ensembling boxes from
    different object detection models", Image and Vision Computing 107 (2021), with equal weights of the models.
    """
    fused = [each for ranked in _by_label(answers) for each in _fuse(ranked, iou_threshold, len(answers))]
    return [row for _, row in sorted(fused, key=lambda each: (-each[1].score, each[0]))]


def suppress_boxes(answers: Sequence[Sequence[Detection]], iou_threshold: float) -> list[Detection]:
    """Of boxes with one label that overlap more than ``iou_threshold`` the best stays as it is; best first."""
    kept = [each for ranked in _by_label(answers) for each in _suppress(ranked, iou_threshold)]
    return [row for _, row in sorted(kept, key=lambda each: each[0])]


def _fuse(ranked: Ranked, iou_threshold: float, members: int) -> Iterator[tuple[int, Detection]]:
    """Each fused box with the rank of its first one."""
    fused, rows = _Boxes(len(ranked)), list[list[Detection]]()
    # Of each fused box: its first one's rank, its weight, and its corners times their weights.
    ranks, weights, sums = list[int](), list[float](), list[np.ndarray]()
    for (rank, row), box in zip(ranked, _corners(ranked), strict=True):
        number, weight = fused.best_fit(box, iou_threshold), max(row.score, LEAST_WEIGHT)
        if number is None:
            number = len(rows)
            rows.append([row])
            ranks.append(rank)
            weights.append(weight)
            sums.append(weight * box)
            fused.put(number, box)
        else:
            rows[number].append(row)
            weights[number] += weight
            sums[number] += weight * box
            fused.put(number, sums[number] / weights[number])
    for rank, those, weight, total in zip(ranks, rows, weights, sums, strict=True):
        mean = sum(each.score for each in those) / len(those)
        box = Box(*(total / weight).tolist()) if len(those) > 1 else those[0].box
        yield rank, Detection(those[0].label, mean * min(len(those), members) / members, box)


def _suppress(ranked: Ranked, iou_threshold: float) -> Iterator[tuple[int, Detection]]:
    kept = _Boxes(len(ranked))
    for each, box in zip(ranked, _corners(ranked), strict=True):
        if kept.best_fit(box, iou_threshold) is None:
            kept.put(kept.count, box)
            yield each


def _corners(ranked: Ranked) -> np.ndarray:
    boxes = [row.box for _, row in ranked]
    return np.array([(box.x_min, box.y_min, box.x_max, box.y_max) for box in boxes], np.float64)


def _by_label(answers: Iterable[Sequence[Detection]]) -> list[Ranked]:
    """Best first, each with its rank among all, for the order of those with equal scores."""
    rows = sorted((row for answer in answers for row in answer), key=lambda each: each.score, reverse=True)
    found: dict[str, list[tuple[int, Detection]]] = {}
    for rank, row in enumerate(islice(rows, MAX_BOXES)):
        found.setdefault(row.label, []).append((rank, row))
    return list(found.values())


def average_labels(answers: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """The mean of each label's scores, best first; a member that does not name a label gives it 0."""
    totals: dict[str, float] = {}
    for answer in answers:
        for row in answer:
            totals[row.label] = totals.get(row.label, 0.0) + row.score
    means = [Prediction(label, total / len(answers)) for label, total in totals.items()]
    return sorted(means, key=lambda each: each.score, reverse=True)
