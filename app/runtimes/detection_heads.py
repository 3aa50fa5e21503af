"""From the outputs of other people's detectors to candidate boxes. NumPy only; the engine has each caller's thresholds.

``torchvision``: boxes, labels and scores that were chosen inside. ``yolo``: [n, 4 + labels, places], or the last two
sides in the other order, with an objectness or without. ``yolo-nms``: [n, boxes, 6], chosen inside. ``detr``: logits,
and boxes as shares of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from app.errors import ModelLoadError
from app.models.manifests import Manifest
from app.runtimes import selection
from app.runtimes.model import Images, Run
from app.runtimes.selection import Candidates

TORCHVISION, YOLO, YOLO_NMS, DETR = "torchvision", "yolo", "yolo-nms", "detr"
# Below this a sigmoid is 0 for fp32, and exp would overflow.
MOST_LOGIT = 80.0

# The outputs of one batch and the lowest score, to the candidates of each image.
Decode = Callable[[Sequence[np.ndarray], float], Sequence[Candidates]]


def runtime(run: Run, manifest: Manifest) -> Callable[[Images, float], Sequence[Candidates]]:
    """What ``Detector`` asks. Raises ModelLoadError for a head that is unknown."""
    options = manifest.architecture_options
    makers: Mapping[str, Callable[[Mapping[str, Any], int], Decode]] = {YOLO: yolo, YOLO_NMS: yolo_nms, DETR: _detr}
    head, labels = str(options.get("head")), len(manifest.labels)
    if head == TORCHVISION:
        return _torchvision(run, labels)
    if head not in makers:
        names = ", ".join((TORCHVISION, *makers))
        raise ModelLoadError(f"{manifest.key} has the head {head!r}.", hint=f"One of: {names}. Add it again.")
    # Boxes that are shares of the picture become pixels.
    decode = makers[head]({**options, "side": manifest.input.size}, labels)

    def candidates(images: Images, score_threshold: float) -> Sequence[Candidates]:
        return decode(run(images), score_threshold)

    return candidates


def _torchvision(run: Run, labels: int) -> Callable[[Images, float], Sequence[Candidates]]:
    def candidates(images: Images, score_threshold: float) -> Sequence[Candidates]:
        # Each list is as long as its picture has objects, so several pictures are no array.
        found = []
        for image in images:
            found.append(listed(run(image[None]), labels, score_threshold))
        return found

    return candidates


def listed(outputs: Sequence[np.ndarray], labels: int, threshold: float) -> Candidates:
    """Boxes, labels and scores of a network of torchvision for one picture; ``extra``: places in its list."""
    boxes, classes, scores = outputs[:3]
    numbers, places = classes.reshape(-1).astype(np.int64), np.arange(scores.size)[:, None]
    return _known(boxes.reshape(-1, 4), scores.reshape(-1), numbers, labels, threshold, places)


def yolo(options: Mapping[str, Any], labels: int) -> Decode:
    """Of every place; ``extra`` is what stands behind its scores."""
    is_by_place, has_objectness = bool(options.get("is_by_place")), bool(options.get("has_objectness"))
    first = 5 if has_objectness else 4

    def decode(outputs: Sequence[np.ndarray], score_threshold: float) -> Sequence[Candidates]:
        rows = outputs[0] if is_by_place else outputs[0].transpose(0, 2, 1)
        found = []
        for row in rows:
            scores = row[:, first : first + labels]
            if has_objectness:
                scores = scores * row[:, 4:5]
            # Most places hold nothing: their boxes need no corners.
            likely = np.flatnonzero(scores.max(1, initial=0) >= score_threshold)
            found.append(
                selection.flatten(
                    corners(row[likely, :4]), scores[likely], score_threshold, row[likely, first + labels :]
                )
            )
        return found

    return decode


def yolo_nms(options: Mapping[str, Any], labels: int) -> Decode:
    """Of what was left inside; ``extra`` is what stands behind score and label."""

    def decode(outputs: Sequence[np.ndarray], score_threshold: float) -> Sequence[Candidates]:
        return [
            _known(row[:, :4], row[:, 4], np.round(row[:, 5]).astype(np.int64), labels, score_threshold, row[:, 6:])
            for row in outputs[0]
        ]

    return decode


def _detr(options: Mapping[str, Any], labels: int) -> Decode:
    side, is_softmax = int(options["side"]), bool(options.get("is_softmax"))

    def decode(outputs: Sequence[np.ndarray], score_threshold: float) -> Sequence[Candidates]:
        shares = softmax(outputs[0])[..., :labels] if is_softmax else sigmoid(outputs[0])
        boxes = corners(outputs[1].reshape(-1, 4)).reshape(outputs[1].shape) * np.float32(side)
        return [selection.flatten(each, scores, score_threshold) for each, scores in zip(boxes, shares, strict=True)]

    return decode


def corners(boxes: np.ndarray) -> np.ndarray:
    """x_min, y_min, x_max, y_max of boxes that are given by centre, width and height; [N, 4]."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _known(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, labels: int, threshold: float, extra: np.ndarray
) -> Candidates:
    """Rows above the threshold with a label of the model; what fills up a list has neither."""
    kept = (scores >= threshold) & (classes >= 0) & (classes < labels)
    return Candidates(boxes[kept].astype(np.float32), scores[kept].astype(np.float32), classes[kept], extra[kept])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Shares of the last side, which add up to 1."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return shares


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """A share for each value alone."""
    shares: np.ndarray = 1 / (1 + np.exp(-np.maximum(logits, -MOST_LOGIT)))
    return shares
