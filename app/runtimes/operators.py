"""Import torchvision from here: it works beside a CPU-only torch too, and its detectors with it (see ``kernels``)."""

from __future__ import annotations

from app.runtimes import kernels
from app.runtimes.kernels import nms, roi_align

kernels.prepare()

import torchvision  # noqa: E402  (what it expects must stand first)
import torchvision.ops.boxes  # noqa: E402
import torchvision.ops.poolers  # noqa: E402

kernels.replace(torchvision)

__all__ = ["nms", "roi_align", "torchvision"]
