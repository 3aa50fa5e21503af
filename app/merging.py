"""Several models' answers for one image made into one: boxes fused or suppressed, scores averaged. A leaf."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.results import Box, Detection, Prediction


@dataclass
class _Cluster:
    """Boxes of one object. ``fused``: their mean, each weighted by its score."""

    label: str
    fused: Box
    boxes: list[Detection] = field(default_factory=list)

    def add(self, row: Detection) -> None:
        self.boxes.append(row)
        total = sum(each.score for each in self.boxes)
        # Scores of 0 weigh nothing, and all of them together no less.
        weights = [each.score / total if total else 1 / len(self.boxes) for each in self.boxes]
        pairs = list(zip(weights, (each.box for each in self.boxes), strict=True))
        self.fused = Box(
            sum(weight * box.x_min for weight, box in pairs),
            sum(weight * box.y_min for weight, box in pairs),
            sum(weight * box.x_max for weight, box in pairs),
            sum(weight * box.y_max for weight, box in pairs),
        )


def fuse_boxes(answers: Sequence[Sequence[Detection]], iou_threshold: float) -> list[Detection]:
    """Weighted boxes fusion, best first: boxes with one label that overlap more than ``iou_threshold`` become one.

    Its corners are the mean of theirs, weighted by score; its score is the mean of theirs, less where fewer members
    than all saw the object. After R. Solovyev, W. Wang and T. Gabruseva, "Weighted boxes fusion: Ensembling boxes from
    different object detection models", Image and Vision Computing 107 (2021), with equal weights of the models.
    """
    clusters: list[_Cluster] = []
    for row in _best_first(answers):
        fitting = [each for each in clusters if each.label == row.label and each.fused.iou(row.box) > iou_threshold]
        cluster = max(fitting, key=lambda each: each.fused.iou(row.box), default=None)
        if cluster is None:
            cluster = _Cluster(row.label, row.box)
            clusters.append(cluster)
        cluster.add(row)
    fused = [_detection(each, len(answers)) for each in clusters]
    return sorted(fused, key=lambda each: each.score, reverse=True)


def suppress_boxes(answers: Sequence[Sequence[Detection]], iou_threshold: float) -> list[Detection]:
    """Of boxes with one label that overlap more than ``iou_threshold`` the best stays as it is; best first."""
    kept: list[Detection] = []
    for row in _best_first(answers):
        if not any(each.label == row.label and each.box.iou(row.box) > iou_threshold for each in kept):
            kept.append(row)
    return kept


def average_labels(answers: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """The mean of each label's scores, best first; a member that does not name a label gives it 0."""
    totals: dict[str, float] = {}
    for answer in answers:
        for row in answer:
            totals[row.label] = totals.get(row.label, 0.0) + row.score
    means = [Prediction(label, total / len(answers)) for label, total in totals.items()]
    return sorted(means, key=lambda each: each.score, reverse=True)


def _detection(cluster: _Cluster, members: int) -> Detection:
    count = len(cluster.boxes)
    mean = sum(each.score for each in cluster.boxes) / count
    return Detection(cluster.label, mean * min(count, members) / members, cluster.fused)


def _best_first(answers: Iterable[Sequence[Detection]]) -> list[Detection]:
    return sorted((row for answer in answers for row in answer), key=lambda each: each.score, reverse=True)
