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

from app.errors import GoldenCheckError
from app.models.manifests import InputSpec
from app.runtimes.model import Arrays, TaskModel
from app.storage import files

FILE_NAME = "golden.safetensors"
# Eager fp32 differs by some 1e-6 between processors; a wrong weight or runtime differs by far more than this.
SCORE_TOLERANCE = 0.01
IOU_AT_LEAST = 0.9


def make(model: TaskModel, pictures: Sequence[np.ndarray] = ()) -> bytes:
    """The golden file of a model, from these inputs (uint8, as the manifest scales them) or from made-up ones.

    Pictures are reduced to 256 colours so that the file stays small; the answers belong to the reduced ones.
    """
    pictures = [reduce_colours(p) for p in (pictures or [made_up_picture(model.manifest.input)])]
    arrays = {f"picture_{i}": np.frombuffer(_to_png(p), dtype=np.uint8) for i, p in enumerate(pictures)}
    arrays |= model.stored_answers(pictures)
    return save(arrays, {"score_tolerance": str(SCORE_TOLERANCE), "iou_at_least": str(IOU_AT_LEAST)})


def check(model: TaskModel) -> None:
    """Compare the model's answers with the stored ones. Raises GoldenCheckError naming the first difference.

    What counts as one is the task's matter, see ``TaskModel.stored_fault``. Without a golden file nothing is compared.
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
        difference = model.stored_fault(arrays, model.stored_answers(pictures), tolerance, iou_at_least)
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
    return np.asarray(_with_palette(picture).convert("RGB"))


def _with_palette(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _to_png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # The picture has at most 256 colours already, so a palette loses nothing.
    palette = _with_palette(picture)
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


def scores_fault(stored: np.ndarray, now: np.ndarray, what: str, tolerance: float) -> str:
    """How stored scores differ from those of now, in words; empty where they do not."""
    if stored.shape != now.shape:
        return f"{list(now.shape)} {what} instead of {list(stored.shape)}."
    # A NaN is never within the tolerance.
    apart = np.abs(stored - now)
    if not np.isfinite(apart).all():
        return "a score is not a number."
    return (
        f"a score differs by {apart.max():.4f}; at most {tolerance} is allowed."
        if apart.max(initial=0) > tolerance
        else ""
    )
