"""Makes ``import torchvision`` work beside a CPU-only torch, and suppression with it. Import torchvision from here.

The published torchvision wheels are linked against CUDA. Beside a CPU-only torch their compiled operators do not load,
and the import ends with ``operator torchvision::nms does not exist``. Declaring the two schemas first lets it through;
the kernel is then ours. Where the compiled operators load, they are used and nothing is declared.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from app.vision import selection

_SCHEMAS = ("nms", "qnms")


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression with the contract of ``torchvision.ops.nms``.

    ``boxes`` [N, 4] as x_min, y_min, x_max, y_max; ``scores`` [N]. Returns the indices kept, best first (int64 [K], on
    the device of ``boxes``). Raises ValueError on other shapes. The algorithm is ``selection.suppress``.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(f"nms needs boxes [N, 4] and scores [N], got {list(boxes.shape)} and {list(scores.shape)}.")
    host_boxes, host_scores = (t.detach().to("cpu", torch.float32).numpy() for t in (boxes, scores))
    return torch.from_numpy(selection.suppress(host_boxes, host_scores, float(iou_threshold))).to(boxes.device)


def _compiled_operators_load() -> bool:
    """Whether torchvision's own compiled operators can be used here."""
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


def _declare() -> None:
    """Declare the schemas that torchvision expects (it adds the shapes for ``torch.export`` itself)."""
    for name in _SCHEMAS:
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.impl("torchvision::nms", "CPU", nms)


HAS_COMPILED_OPERATORS = _compiled_operators_load()
if not HAS_COMPILED_OPERATORS:
    _declare()

import torchvision  # noqa: E402  (the schemas above must stand first)
import torchvision.ops.boxes  # noqa: E402

if not HAS_COMPILED_OPERATORS:
    # torchvision's Python nms asks whether the compiled operators are there before it calls the kernel, and has no
    # switch for "yes, another one". Its detectors look the name up in this module.
    torchvision.ops.boxes.nms = nms
    torchvision.ops.nms = nms

__all__ = ["HAS_COMPILED_OPERATORS", "nms", "torchvision"]
