"""From many candidate boxes to the few that a caller asked for. NumPy only, so that no runtime needs torch for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.results import Box, Detection, DetectOptions

BACKGROUND_LABEL = "__background__"

# Best candidates of one image that go on to suppression. Far above what any image shows; it bounds the time that a
# threshold of 0 can cost (two-stage models make some 90 000 candidates).
MAX_CANDIDATES = 3000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes of one image before thresholds and suppression.

    ``boxes``: float32 [N, 4], x_min, y_min, x_max, y_max in pixels of the input array. ``scores``: float32 [N] in
    [0, 1]. ``classes``: int64 [N], index into the manifest's labels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


def select(candidates: Candidates, labels: tuple[str, ...], options: DetectOptions) -> list[Detection]:
    """The detections that the options ask for, best first.

    In this order: scores of at least ``score_threshold``; per label, of boxes that overlap with an IoU above
    ``iou_threshold`` the best; boxes of at least ``min_width`` × ``min_height`` pixels; the best ``max_results``.
    """
    wanted = candidates.scores >= options.score_threshold
    if labels[0] == BACKGROUND_LABEL:
        wanted &= candidates.classes != 0
    index = np.flatnonzero(wanted)
    index = index[np.argsort(-candidates.scores[index], kind="stable")][:MAX_CANDIDATES]
    boxes, scores, classes = candidates.boxes[index], candidates.scores[index], candidates.classes[index]
    kept = suppress_per_class(boxes, scores, classes, options.iou_threshold)
    width, height = boxes[kept, 2] - boxes[kept, 0], boxes[kept, 3] - boxes[kept, 1]
    kept = kept[(width >= options.min_width) & (height >= options.min_height)][: max(0, options.max_results)]
    return [_detection(boxes[i], scores[i], labels[classes[i]]) for i in kept]


def flatten(boxes: np.ndarray, scores: np.ndarray, score_threshold: float) -> Candidates:
    """Candidates of a model that scores every class at every place.

    ``boxes`` [A, 4] and ``scores`` [A, C] of one image; what lies under the threshold is left out here already.
    """
    place, number = np.nonzero(scores >= score_threshold)
    return Candidates(boxes[place], scores[place, number], number)


def suppress(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression; indices of the boxes kept, best first (int64 [K]).

    ``boxes`` [N, 4] as x_min, y_min, x_max, y_max; ``scores`` [N]. A box goes when its IoU with a better kept one is
    *above* the threshold, as in torchvision; of equal scores the earlier one counts as better. Boxes without area
    overlap nothing.
    """
    order = np.argsort(-scores, kind="stable")
    if iou_threshold >= 1:
        return order
    x_min, y_min, x_max, y_max = boxes[order].astype(np.float32, copy=False).T
    areas = np.maximum(x_max - x_min, 0) * np.maximum(y_max - y_min, 0)
    kept = []
    rest = np.arange(len(order))
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        width = np.minimum(x_max[best], x_max[rest]) - np.maximum(x_min[best], x_min[rest])
        height = np.minimum(y_max[best], y_max[rest]) - np.maximum(y_min[best], y_min[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        # shared / union > threshold, written without a division by an empty union.
        rest = rest[shared <= iou_threshold * (areas[best] + areas[rest] - shared)]
    return order[np.array(kept, dtype=np.int64)]


def suppress_per_class(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou_threshold: float) -> np.ndarray:
    """``suppress`` within each class; indices kept, best first over all classes (int64 [K])."""
    kept = [np.flatnonzero(classes == number) for number in np.unique(classes)]
    kept = [index[suppress(boxes[index], scores[index], iou_threshold)] for index in kept]
    together = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    return together[np.lexsort((together, -scores[together]))]


def _detection(box: np.ndarray, score: np.floating, label: str) -> Detection:
    x_min, y_min, x_max, y_max = (float(value) for value in box)
    return Detection(label, float(score), Box(x_min, y_min, x_max, y_max))
