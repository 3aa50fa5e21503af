"""How faithful is another way to compute a model? Compared with eager fp32 on sample images. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.inference.results import Detection

# A box counts as found again when label and place are the same; the place by this overlap.
MATCHING_IOU = 0.5
# Boxes this little under the served threshold still count as found: being 0.01 lower is not being lost.
THRESHOLD_SLACK = 0.05

Detections = Sequence[Sequence[Detection]]


@dataclass(frozen=True)
class Agreement:
    """See ``builds.Candidate`` for what each figure means."""

    agreement: float
    largest_difference: float
    map_loss: float = 0.0
    map_50: float | None = None


def of_probabilities(reference: np.ndarray, other: np.ndarray) -> Agreement:
    """Classifiers: ``reference`` and ``other`` are probabilities, float [N, labels]."""
    same = np.argmax(reference, axis=1) == np.argmax(other, axis=1)
    return Agreement(float(same.mean()), float(np.abs(reference - other).max()))


def of_detections(
    reference: Detections, other: Detections, *, threshold: float, truth: Detections | None = None
) -> Agreement:
    """Detectors: what each found in the same images, at any score.

    Agreement looks at the reference's boxes of at least ``threshold``, and at the other's down to THRESHOLD_SLACK below
    it. ``map_loss`` is what the other's mean average precision (VOC 2010, all points) against ``truth`` lacks to the
    reference's; without a truth the reference's boxes count as one.
    """
    served, around = _at_least(reference, threshold), _at_least(other, threshold - THRESHOLD_SLACK)
    matches = [_match(first, second) for first, second in zip(served, around, strict=True)]
    expected = sum(len(each) for each in served)
    found = sum(len(pairs) for pairs in matches)
    differences = [abs(a.score - b.score) for pairs in matches for a, b in pairs]
    map_50 = mean_average_precision(truth, other) if truth is not None else None
    best = mean_average_precision(truth, reference) if truth is not None else 1.0
    reached = map_50 if map_50 is not None else mean_average_precision(served, around)
    return Agreement(
        agreement=found / expected if expected else 1.0,
        largest_difference=max(differences, default=0.0),
        map_loss=max(0.0, best - reached),
        map_50=map_50,
    )


def of_values(reference: np.ndarray, other: np.ndarray) -> float:
    """Arrays: the largest difference, as a share of the largest value or 1; infinite for other shapes.

    What is NaN in both is alike; what is in one only is as far apart as can be.
    """
    if reference.shape != other.shape:
        return float("inf")
    first, second = reference.astype(np.float64), other.astype(np.float64)
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        apart = np.where(is_same, 0.0, np.abs(first - second))
    if not np.isfinite(apart).all():
        return float("inf")
    largest = np.abs(first[np.isfinite(first)]).max(initial=0)
    return float(apart.max(initial=0) / max(1.0, largest))


def of_arrays(reference: Sequence[Sequence[np.ndarray]], other: Sequence[Sequence[np.ndarray]]) -> Agreement:
    """Networks of arrays: the outputs of each item. Nobody knows what they mean, so the worst output counts.

    The agreement is the share of the variance between items that is kept: 1 - (squared differences) / (squared
    differences of the reference from its own mean). So a single number is judged as a long vector is, and an output
    that hardly changes is not taken for right because it is near. Of whole numbers it is the share of equal ones.
    """
    pairs = [
        ([np.asarray(each[place]) for each in reference], [np.asarray(each[place]) for each in other])
        for place in range(len(reference[0]))
    ]
    largest = max(of_values(*pair) for one, two in pairs for pair in zip(one, two, strict=True))
    return Agreement(min(_kept_variance(*pair) for pair in pairs), largest)


def _kept_variance(reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    if any(one.shape != two.shape for one, two in zip(reference, other, strict=True)):
        return 0.0
    if reference[0].dtype.kind != "f":
        values = zip(reference, other, strict=True)
        equal = np.concatenate([np.atleast_1d(one == two).ravel() for one, two in values])
        return float(equal.mean()) if equal.size else 1.0
    # Sequences have lengths of their own; then one mean is all there is.
    is_alike = len({each.shape for each in reference}) == 1
    mean = np.mean(reference, axis=0) if is_alike else np.mean(np.concatenate([each.ravel() for each in reference]))
    varied = sum(float(np.square(each - mean, dtype=np.float64).sum()) for each in reference)
    apart = sum(float(np.square(one - two, dtype=np.float64).sum()) for one, two in zip(reference, other, strict=True))
    if not np.isfinite(apart):
        return 0.0
    return max(0.0, 1 - apart / varied) if varied else float(apart == 0)


def mean_average_precision(truth: Detections, found: Detections) -> float:
    """Mean over the labels of ``truth`` of their average precisions at an IoU of 0.5; 1 where there is nothing."""
    labels = sorted({one.label for each in truth for one in each})
    return float(np.mean([_average_precision(truth, found, label) for label in labels])) if labels else 1.0


def _at_least(detections: Detections, score: float) -> list[list[Detection]]:
    return [[one for one in detection if one.score >= score] for detection in detections]


def _match(reference: Sequence[Detection], other: Sequence[Detection]) -> list[tuple[Detection, Detection]]:
    free = list(other)
    pairs = []
    for one in reference:
        near = [each for each in free if each.label == one.label and each.box.iou(one.box) >= MATCHING_IOU]
        if near:
            best = max(near, key=lambda each: each.box.iou(one.box))
            free.remove(best)
            pairs.append((one, best))
    return pairs


def _average_precision(truth: Detections, found: Detections, label: str) -> float:
    existing = sum(one.label == label for each in truth for one in each)
    rows: list[tuple[float, bool]] = []
    for expected, each in zip(truth, found, strict=True):
        mine = sorted((one for one in each if one.label == label), key=lambda one: -one.score)
        hits = {id(first) for first, _ in _match(mine, expected)}
        rows += [(one.score, id(one) in hits) for one in mine]
    return _area(sorted(rows, key=lambda row: -row[0]), existing)


def _area(rows: Sequence[tuple[float, bool]], existing: int) -> float:
    true = np.cumsum([hit for _, hit in rows]) if rows else np.zeros(0)
    recall = np.concatenate([[0.0], true / existing])
    precision = true / np.arange(1, len(rows) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))
