"""From many candidate boxes to the few that a caller asked for. NumPy only, so that no runtime needs torch for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.inference.results import Box, Detection, DetectOptions
from app.runtimes.suppression import suppress

BACKGROUND_LABEL = "__background__"

# Best candidates of one image that go on to suppression. Far above what any image shows; it bounds the time that a
# threshold of 0 can cost (two-stage models make some 90 000 candidates).
MAX_CANDIDATES = 3000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes of one image before thresholds and suppression.

    ``boxes``: float32 [N, 4], x_min, y_min, x_max, y_max in pixels of the input array. ``scores``: float32 [N] in
    [0, 1]. ``classes``: int64 [N], index into the manifest's labels. ``extra``: [N, k], what else the
    network says of each.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    extra: np.ndarray | None = None


def select(candidates: Candidates, labels: tuple[str, ...], options: DetectOptions) -> list[Detection]:
    """The detections that the options ask for, best first; see ``chosen``."""
    return detections(candidates, chosen(candidates, labels, options), labels)


def detections(candidates: Candidates, kept: np.ndarray, labels: tuple[str, ...]) -> list[Detection]:
    """Candidates by their places in the list."""
    return [_detection(candidates.boxes[i], candidates.scores[i], labels[candidates.classes[i]]) for i in kept]


def chosen(candidates: Candidates, labels: tuple[str, ...], options: DetectOptions) -> np.ndarray:
    """Which candidates the options ask for, best first; int64 [K].

    In this order: the wanted ``label``; scores of at least ``score_threshold``; per label, of boxes that overlap with
    an IoU above ``iou_threshold`` the best; boxes of at least ``min_width`` × ``min_height`` pixels; the best
    ``max_results``.
    """
    wanted = candidates.scores >= options.score_threshold
    if labels[0] == BACKGROUND_LABEL:
        wanted &= candidates.classes != 0
    if options.label:
        wanted &= np.isin(candidates.classes, [number for number, each in enumerate(labels) if each == options.label])
    index = np.flatnonzero(wanted)
    index = index[np.argsort(-candidates.scores[index], kind="stable")][:MAX_CANDIDATES]
    boxes, scores, classes = candidates.boxes[index], candidates.scores[index], candidates.classes[index]
    kept = suppress_per_class(boxes, scores, classes, options.iou_threshold)
    width, height = boxes[kept, 2] - boxes[kept, 0], boxes[kept, 3] - boxes[kept, 1]
    kept = kept[(width >= options.min_width) & (height >= options.min_height)][: max(0, options.max_results)]
    return index[kept]


def flatten(
    boxes: np.ndarray, scores: np.ndarray, score_threshold: float, extra: np.ndarray | None = None
) -> Candidates:
    """Candidates of a model that scores every class at every place.

    ``boxes`` [A, 4], ``scores`` [A, C] and ``extra`` [A, k] of one image; what lies under the threshold is left
    out here already.
    """
    place, number = np.nonzero(scores >= score_threshold)
    return Candidates(boxes[place], scores[place, number], number, None if extra is None else extra[place])


def suppress_per_class(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou_threshold: float) -> np.ndarray:
    """``suppress`` within each class; indices kept, best first over all classes (int64 [K])."""
    kept = [np.flatnonzero(classes == number) for number in np.unique(classes)]
    kept = [index[suppress(boxes[index], scores[index], iou_threshold)] for index in kept]
    together = np.concatenate(kept) if kept else np.zeros(0, dtype=np.int64)
    return together[np.lexsort((together, -scores[together]))]


def _detection(box: np.ndarray, score: np.floating, label: str) -> Detection:
    x_min, y_min, x_max, y_max = (float(value) for value in box)
    return Detection(label, float(score), Box(x_min, y_min, x_max, y_max))
