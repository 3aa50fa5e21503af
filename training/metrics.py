"""How good are boxes? Average precision as PASCAL VOC has computed it since 2010. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.inference.results import Box, Detection
from training.scenes import Truth

MATCHING_IOU = 0.5


def mean_average_precision(
    found: Sequence[Sequence[Detection]], truths: Sequence[Sequence[Truth]], labels: Sequence[str]
) -> float:
    """Mean of the labels' average precisions at an IoU of 0.5; labels that are nowhere in ``truths`` do not count.

    ``found`` and ``truths`` hold one sequence an image, in the same order. 0 when there is nothing to find.
    """
    values = [average_precision(found, truths, label) for label in labels]
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else 0.0


def average_precision(
    found: Sequence[Sequence[Detection]], truths: Sequence[Sequence[Truth]], label: str
) -> float | None:
    """Area under the precision-recall curve of one label, all points (VOC 2010 development kit, section 3.4.1).

    Detections of all images are taken from the best score down. Each matches the free true box of its image with the
    largest IoU, if that is at least 0.5; otherwise it is false. None when the label is in no image.
    """
    existing = sum(truth.label == label for image in truths for truth in image)
    if existing == 0:
        return None
    scores, hits = [], []
    for image, expected in zip(found, truths, strict=True):
        mine = sorted((d for d in image if d.label == label), key=lambda d: -d.score)
        scores += [d.score for d in mine]
        hits += _match([d.box for d in mine], [t.box for t in expected if t.label == label])
    return area_under_curve(np.array(scores), np.array(hits, dtype=bool), existing)


def area_under_curve(scores: np.ndarray, hits: np.ndarray, existing: int) -> float:
    """Area under the curve of precision over recall, precision made monotonous from the right.

    ``scores`` [N], ``hits`` [N] whether each is true, ``existing`` how many there are to find.
    """
    order = np.argsort(-scores, kind="stable")
    true = np.cumsum(hits[order])
    recall = np.concatenate([[0.0], true / existing])
    precision = true / np.arange(1, len(order) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))


def _match(boxes: Sequence[Box], expected: Sequence[Box]) -> list[bool]:
    """Which of the boxes, best first, are true; each true box can be found once."""
    free = list(expected)
    hits = []
    for box in boxes:
        best = max(free, key=lambda other: box.iou(other), default=None)
        is_hit = best is not None and box.iou(best) >= MATCHING_IOU
        if is_hit and best is not None:
            free.remove(best)
        hits.append(is_hit)
    return hits
