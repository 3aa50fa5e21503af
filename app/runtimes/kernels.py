"""torchvision's operators in plain torch, for where its compiled ones do not load. Does not import torchvision.

The published wheels of torchvision are linked against CUDA. Beside a CPU-only torch their operators do not load, and
``import torchvision`` ends with ``operator torchvision::nms does not exist``. ``prepare`` before that import lets it
through, ``replace`` after it makes detectors work. The set-up puts a copy of this file into the environment
(requirements/environment), so that a script of somebody's own can import torchvision too.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name that every torch reader knows)

from app.runtimes.suppression import suppress

_SCHEMAS = ("nms", "qnms")
# Regions pooled at a time: bounds what one call holds (256 channels × 14 × 14 samples × 4 bytes × this = 50 MB).
_REGIONS_AT_ONCE = 256


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression with the contract of ``torchvision.ops.nms``.

    ``boxes`` [N, 4] as x_min, y_min, x_max, y_max; ``scores`` [N]. Returns the indices kept, best first (int64 [K], on
    the device of ``boxes``). Raises ValueError on other shapes. The algorithm is ``suppress``.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(f"nms needs boxes [N, 4] and scores [N], got {list(boxes.shape)} and {list(scores.shape)}.")
    host_boxes, host_scores = (t.detach().to("cpu", torch.float32).numpy() for t in (boxes, scores))
    return torch.from_numpy(suppress(host_boxes, host_scores, float(iou_threshold))).to(boxes.device)


def roi_align(
    maps: torch.Tensor,
    boxes: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> torch.Tensor:
    """Average bilinear samples in each cell of each region: RoIAlign (Mask R-CNN, He and others, 2017, section 3).

    ``maps`` [B, C, H, W]; ``boxes`` [K, 5] (image number, x_min, y_min, x_max, y_max in pixels) or one [L, 4] an image.
    Returns [K, C, rows, columns]. As ``torchvision.ops.roi_align`` with a fixed ``sampling_ratio``; raises
    NotImplementedError without one.
    """
    if sampling_ratio < 1:
        raise NotImplementedError("roi_align needs a sampling_ratio of at least 1 where no compiled operators load.")
    if not isinstance(boxes, torch.Tensor):
        boxes = torch.cat([F.pad(b, (1, 0), value=float(i)) for i, b in enumerate(boxes)])
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    numbers = boxes[:, 0].long()
    shift = 0.5 if aligned else 0.0
    corners = boxes[:, 1:] * spatial_scale - shift
    sides = corners[:, 2:] - corners[:, :2]
    if not aligned:
        sides = sides.clamp(min=1.0)
    x = _sample_places(corners[:, 0], sides[:, 0], columns * sampling_ratio)
    y = _sample_places(corners[:, 1], sides[:, 1], rows * sampling_ratio)
    pooled = maps.new_zeros(len(boxes), maps.shape[1], rows, columns)
    for number in numbers.unique().tolist():
        for part in torch.nonzero(numbers == number).flatten().split(_REGIONS_AT_ONCE):
            samples = _sample(maps[number], y[part], x[part])
            pooled[part] = F.avg_pool2d(samples, sampling_ratio)
    return pooled


def _sample_places(start: torch.Tensor, side: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` evenly spaced places in each region along one direction: [K, count], in cells of the map."""
    steps = (torch.arange(count, device=start.device) + 0.5) / count
    return start[:, None] + side[:, None] * steps


def _sample(map_: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Bilinear samples of one map [C, H, W] at the crossings of y [K, R] and x [K, S]: [K, C, R, S].

    Beyond the edge the edge's value counts, more than one cell beyond it 0, as in torchvision's kernel.
    """
    height, width = map_.shape[-2:]
    grid = torch.stack(torch.broadcast_tensors(_unit(x, width)[:, None, :], _unit(y, height)[:, :, None]), dim=-1)
    count, rows, columns = grid.shape[:3]
    grid = grid.reshape(1, count * rows, columns, 2).to(map_.dtype)
    found = F.grid_sample(map_[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    is_near = ((y >= -1) & (y <= height))[:, :, None] & ((x >= -1) & (x <= width))[:, None, :]
    samples = found.reshape(-1, count, rows, columns).transpose(0, 1)
    return samples * is_near[:, None].to(samples.dtype)


def _unit(place: torch.Tensor, cells: int) -> torch.Tensor:
    """Cells 0 … cells - 1 as grid_sample's -1 … 1."""
    return place * (2 / max(cells - 1, 1)) - 1


@functools.cache
def has_compiled_operators() -> bool:
    """Whether torchvision's own compiled operators can be used here; loads them. Raises ModuleNotFoundError."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("torchvision is not installed; `make install` installs it.", name="torchvision")
    for library in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return True
    return False


def prepare() -> None:
    """Before torchvision is imported: declare the schemas that it expects, unless somebody has."""
    if has_compiled_operators() or hasattr(torch.ops.torchvision, "nms"):
        return
    for name in _SCHEMAS:
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.impl("torchvision::nms", "CPU", nms)


def replace(torchvision: Any) -> None:
    """After torchvision was imported: let its detectors call the functions here."""
    if has_compiled_operators():
        return
    # Its Python nms asks whether the compiled operators are there before it calls the kernel, and has no switch for
    # "yes, another one". Its detectors look the name up in this module.
    torchvision.ops.boxes.nms = nms
    torchvision.ops.nms = nms
    # Its roi_align would fall back to torch.compile at the first request: seconds, and a C++ compiler on the server.
    torchvision.ops.poolers.roi_align = roi_align
