"""From the outputs of other people's networks to candidate boxes and their masks. NumPy only.

``yolo`` and ``yolo-nms``: each box brings coefficients, and the picture some small maps that these add up.
``torchvision``: a mask a box, over the box or pasted into the whole picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from app.errors import ModelLoadError
from app.inference.mask_patches import Patch
from app.inference.results import Box
from app.models.manifests import Manifest
from app.runtimes import detection_heads
from app.runtimes.model import Images, Run
from app.runtimes.selection import Candidates


@dataclass(frozen=True)
class Found:
    """Candidates of one picture, and what gives the masks of those that are wanted, by their places in the list."""

    candidates: Candidates
    patches: Callable[[np.ndarray], list[Patch]]


# uint8 [B, H, W, 3] and the lowest score that anybody asks for. As ``DetectorRuntime``, with masks.
FindInstances = Callable[[Images, float], Sequence[Found]]


def runtime(run: Run, manifest: Manifest) -> FindInstances:
    """What ``InstanceDetector`` asks. Raises ModelLoadError for a head that is unknown."""
    options, labels, side = manifest.architecture_options, len(manifest.labels), manifest.input.size
    head = str(options.get("head"))
    if head == detection_heads.TORCHVISION:
        return partial(_listed, run, labels, side)
    makers = {detection_heads.YOLO: detection_heads.yolo, detection_heads.YOLO_NMS: detection_heads.yolo_nms}
    if head not in makers:
        names = ", ".join((detection_heads.TORCHVISION, *makers))
        raise ModelLoadError(f"{manifest.key} has the head {head!r}.", hint=f"One of: {names}. Add it again.")
    return partial(_added_up, run, makers[head](options, labels), side)


def _added_up(run: Run, decode: detection_heads.Decode, side: int, images: Images, lowest: float) -> Sequence[Found]:
    outputs = run(images)
    pairs = zip(decode(outputs, lowest), outputs[1], strict=True)
    return [Found(each, partial(_patches, each, maps, side)) for each, maps in pairs]


def _patches(candidates: Candidates, maps: np.ndarray, side: int, kept: np.ndarray) -> list[Patch]:
    """``maps``: float32 [coefficients, height, width] of the whole picture."""
    assert candidates.extra is not None
    return [_patch(candidates.boxes[i], candidates.extra[i], maps, side) for i in kept]


def _patch(corners: np.ndarray, coefficients: np.ndarray, maps: np.ndarray, side: int) -> Patch:
    _, rows, columns = maps.shape
    left, right = _cells(corners[0], corners[2], columns / side, columns)
    top, bottom = _cells(corners[1], corners[3], rows / side, rows)
    logits = np.tensordot(coefficients, maps[:, top:bottom, left:right], 1)
    shares = 255 / (1 + np.exp(-np.clip(logits, -detection_heads.MOST_LOGIT, detection_heads.MOST_LOGIT)))
    return _padded(shares, (left, top, right, bottom), side / columns, side / rows, corners)


def _cells(begin: float, end: float, scale: float, cells: int) -> tuple[int, int]:
    """Cells that a box touches, and one more on each side, between which the mask is interpolated."""
    first = min(max(int(np.floor(begin * scale)) - 1, 0), cells - 1)
    return first, max(first + 1, min(int(np.ceil(end * scale)) + 1, cells))


def _padded(
    shares: np.ndarray, cells: tuple[int, int, int, int], width: float, height: float, corners: np.ndarray
) -> Patch:
    """The shares of these cells, each so wide and high in pixels; what lies beyond the picture is as its edge."""
    left, top, right, bottom = cells
    area = Box((left - 1) * width, (top - 1) * height, (right + 1) * width, (bottom + 1) * height)
    whole = np.pad(np.round(shares).astype(np.uint8), 1, mode="edge")
    return Patch(whole, area, Box(*map(float, corners)))


def _listed(run: Run, labels: int, side: int, images: Images, lowest: float) -> Sequence[Found]:
    found = []
    for image in images:
        outputs = run(image[None])
        candidates, masks = detection_heads.listed(outputs, labels, lowest), outputs[3]
        found.append(Found(candidates, partial(_of_boxes, candidates, masks.reshape(-1, *masks.shape[-2:]), side)))
    return found


def _of_boxes(candidates: Candidates, masks: np.ndarray, side: int, kept: np.ndarray) -> list[Patch]:
    assert candidates.extra is not None
    return [_of_box(candidates.boxes[i], masks[int(candidates.extra[i, 0])], side) for i in kept]


def _of_box(corners: np.ndarray, mask: np.ndarray, side: int) -> Patch:
    shares = mask.astype(np.float32) * 255
    if mask.shape == (side, side):
        left, right = _cells(corners[0], corners[2], 1, side)
        top, bottom = _cells(corners[1], corners[3], 1, side)
        return _padded(shares[top:bottom, left:right], (left, top, right, bottom), 1, 1, corners)
    box = Box(*map(float, corners))
    return Patch(np.round(shares).astype(np.uint8), box, box)
