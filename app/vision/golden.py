"""Stored questions and answers: does a loaded model, on this machine and runtime, say what it said when it was added?

A golden file is safetensors: pictures as PNG bytes, the answers as numbers, the tolerance as metadata. No torch here.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from app import files
from app.errors import GoldenCheckError
from app.manifests import InputSpec
from app.results import Box, Detection, DetectOptions
from app.vision.classifier import Classifier
from app.vision.detector import Detector
from app.vision.model import Model

FILE_NAME = "golden.safetensors"
# Eager fp32 differs by some 1e-6 between processors; a wrong weight or runtime differs by far more than this.
SCORE_TOLERANCE = 0.01
IOU_AT_LEAST = 0.9
# Below this score, which of many near-equal boxes survives is chance and differs between processors.
LOWEST_SCORE = 0.05
MAX_DETECTIONS = 20

Arrays = dict[str, np.ndarray]


def make(model: Model, pictures: Sequence[np.ndarray] = ()) -> bytes:
    """The golden file of a model, from these inputs (uint8, as the manifest scales them) or from made-up ones.

    Pictures are reduced to 256 colours so that the file stays small; the answers belong to the reduced ones.
    """
    pictures = [reduce_colours(p) for p in (pictures or [made_up_picture(model.manifest.input)])]
    arrays = {f"picture_{i}": np.frombuffer(_to_png(p), dtype=np.uint8) for i, p in enumerate(pictures)}
    arrays |= _answers(model, pictures)
    return save(arrays, {"score_tolerance": str(SCORE_TOLERANCE), "iou_at_least": str(IOU_AT_LEAST)})


def check(model: Model) -> None:
    """Compare the model's answers with the stored ones. Raises GoldenCheckError naming the first difference.

    Classifier: every probability within the tolerance. Detector: the best score within it, and each stored box is
    found with its label, a score within the tolerance and an IoU of at least ``iou_at_least``; nor are there others
    (with random weights: the best score only).
    Without a golden file nothing is compared.
    """
    path = model.golden_path
    if path is None:
        return
    arrays, metadata = _read(path)
    try:
        tolerance, iou_at_least = float(metadata["score_tolerance"]), float(metadata["iou_at_least"])
        pictures = [
            _from_png(arrays[f"picture_{i}"]) for i in range(sum(name.startswith("picture_") for name in arrays))
        ]
        difference = _difference(arrays, _answers(model, pictures), tolerance, iou_at_least)
    except (KeyError, ValueError, IndexError, OSError) as error:
        raise GoldenCheckError(f"{path} cannot be used: {error!r}.", hint="Add the model again.") from None
    if difference:
        raise GoldenCheckError(
            f"{model.manifest.key} does not give its stored answers: {difference}",
            hint="The weights, the architecture's options, the input's mean and std, or the runtime changed. "
            "If that was meant, add the model as a new version.",
        )


def made_up_picture(spec: InputSpec) -> np.ndarray:
    """A picture with colours, edges and gradients, in the shape of a model's input; the same each time (uint8)."""
    height, width = (256, 320) if spec.kind == "fit" else (spec.size, spec.size)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [0.5 + 0.5 * np.sin(9 * x + 14 * y * y), x, 0.5 + 0.5 * np.cos(17 * x * y)]
    picture = (np.stack(waves, axis=-1) * 255).astype(np.uint8)
    picture[(x - 0.3) ** 2 + (y - 0.35) ** 2 < 0.03] = (240, 90, 20)
    picture[(abs(x - 0.65) < 0.14) & (abs(y - 0.6) < 0.1)] = (20, 60, 190)
    return picture


def reduce_colours(picture: np.ndarray) -> np.ndarray:
    """The picture in at most 256 colours."""
    return np.asarray(
        Image.fromarray(picture).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
    )


def _to_png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # The picture has at most 256 colours already, so a palette loses nothing.
    palette = Image.fromarray(picture).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    exact = np.array_equal(np.asarray(palette.convert("RGB")), picture)
    (palette if exact else Image.fromarray(picture)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _from_png(data: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data.tobytes()), formats=["PNG"]).convert("RGB"))


def _read(path: Path) -> tuple[Arrays, dict[str, str]]:
    try:
        files.check(path, files.GOLDEN_BYTES)
        with safe_open(path, framework="numpy") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise GoldenCheckError(
            f"{path} cannot be read: {files.reason(error)}.", hint="Restore it, or add the model again."
        ) from None


def _answers(model: Model, pictures: Sequence[np.ndarray]) -> Arrays:
    if isinstance(model, Classifier):
        return {"probabilities": np.concatenate([model.probabilities(p[None]) for p in pictures])}
    assert isinstance(model, Detector)
    options = DetectOptions(score_threshold=0.0, max_results=MAX_DETECTIONS)
    found = [model.predict([picture], [options])[0] for picture in pictures]
    rows = [(i, d) for i, one in enumerate(found) for d in one if isinstance(d, Detection)]
    best = [max((d.score for j, d in rows if j == i), default=0.0) for i in range(len(pictures))]
    # With random weights all scores are nearly equal, and which box survives is chance.
    strong = [(i, d) for i, d in rows if d.score >= LOWEST_SCORE and not model.manifest.random_weights]
    corners = [(d.box.x_min, d.box.y_min, d.box.x_max, d.box.y_max) for _, d in strong]
    return {
        "best_scores": np.array(best, dtype=np.float32),
        "belongs_to": np.array([i for i, _ in strong], dtype=np.int64),
        "boxes": np.array(corners, dtype=np.float32).reshape(-1, 4),
        "scores": np.array([d.score for _, d in strong], dtype=np.float32),
        "classes": np.array([model.manifest.labels.index(d.label) for _, d in strong], dtype=np.int64),
    }


def _difference(stored: Arrays, now: Arrays, tolerance: float, iou_at_least: float) -> str:
    """The first difference that matters, in words; empty when there is none."""
    for name in ("probabilities", "best_scores"):
        if name in now:
            if stored[name].shape != now[name].shape:
                return f"{list(now[name].shape)} {name} instead of {list(stored[name].shape)}."
            # A NaN is never within the tolerance.
            apart = np.abs(stored[name] - now[name])
            if not np.isfinite(apart).all():
                return "a score is not a number."
            if apart.max(initial=0) > tolerance:
                return f"a score differs by {apart.max():.4f}; at most {tolerance} is allowed."
    if "boxes" not in now:
        return ""
    for first, second, what in ((stored, now, "is not found any more"), (now, stored, "was not there before")):
        # Near the lowest score, and where the list was cut, a box may be in one list alone.
        is_cut = np.bincount(second["belongs_to"], minlength=1).max() >= MAX_DETECTIONS
        surely = tolerance + (second["scores"].min() if is_cut else LOWEST_SCORE)
        for i in np.flatnonzero(first["scores"] >= surely):
            if not _is_among(first, int(i), second, tolerance, iou_at_least):
                return f"an object of class {first['classes'][i]} with score {first['scores'][i]:.3f} {what}."
    return ""


def _is_among(first: Arrays, i: int, second: Arrays, tolerance: float, iou_at_least: float) -> bool:
    for j in range(len(second["scores"])):
        is_same = first["belongs_to"][i] == second["belongs_to"][j] and first["classes"][i] == second["classes"][j]
        is_near = abs(float(first["scores"][i] - second["scores"][j])) <= tolerance
        if is_same and is_near and iou(Box(*first["boxes"][i]), Box(*second["boxes"][j])) >= iou_at_least:
            return True
    return False


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0 … 1; 0 where both have no area."""
    return first.iou(second)
