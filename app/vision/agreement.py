"""How faithful is another way to compute a model? Compared with eager fp32 on sample images. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.results import Detection
from app.vision.golden import iou

# A box counts as found again when label and place are the same; the place by this overlap.
MATCHING_IOU = 0.5


@dataclass(frozen=True)
class Agreement:
    """See ``built.Candidate`` for what each figure means."""

    agreement: float
    largest_difference: float
    map_loss: float = 0.0


def of_probabilities(reference: np.ndarray, other: np.ndarray) -> Agreement:
    """Classifiers: ``reference`` and ``other`` are probabilities, float [N, labels]."""
    same = np.argmax(reference, axis=1) == np.argmax(other, axis=1)
    return Agreement(float(same.mean()), float(np.abs(reference - other).max()))


def of_detections(reference: Sequence[Sequence[Detection]], other: Sequence[Sequence[Detection]]) -> Agreement:
    """Detectors: what each found in the same images at the served threshold.

    The reference's boxes count as the truth: ``map_loss`` is one minus the mean, over labels, of the average precision
    (VOC 2010, all points) that the other way reaches against them.
    """
    matches = [_match(first, second) for first, second in zip(reference, other, strict=True)]
    expected = sum(len(each) for each in reference)
    found = sum(len(pairs) for pairs in matches)
    differences = [abs(a.score - b.score) for pairs in matches for a, b in pairs]
    labels = sorted({one.label for each in reference for one in each})
    precisions = [_average_precision(reference, other, label) for label in labels]
    return Agreement(
        agreement=found / expected if expected else 1.0,
        largest_difference=max(differences, default=0.0),
        map_loss=max(0.0, 1 - float(np.mean(precisions))) if precisions else 0.0,
    )


def _match(reference: Sequence[Detection], other: Sequence[Detection]) -> list[tuple[Detection, Detection]]:
    free = list(other)
    pairs = []
    for one in reference:
        near = [each for each in free if each.label == one.label and iou(each.box, one.box) >= MATCHING_IOU]
        if near:
            best = max(near, key=lambda each: iou(each.box, one.box))
            free.remove(best)
            pairs.append((one, best))
    return pairs


def _average_precision(
    reference: Sequence[Sequence[Detection]], other: Sequence[Sequence[Detection]], label: str
) -> float:
    existing = sum(one.label == label for each in reference for one in each)
    rows: list[tuple[float, bool]] = []
    for truth, found in zip(reference, other, strict=True):
        mine = sorted((one for one in found if one.label == label), key=lambda one: -one.score)
        hits = {id(first) for first, _ in _match(mine, truth)}
        rows += [(one.score, id(one) in hits) for one in mine]
    return _area(sorted(rows, key=lambda row: -row[0]), existing)


def _area(rows: Sequence[tuple[float, bool]], existing: int) -> float:
    true = np.cumsum([hit for _, hit in rows]) if rows else np.zeros(0)
    recall = np.concatenate([[0.0], true / existing])
    precision = true / np.arange(1, len(rows) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))
