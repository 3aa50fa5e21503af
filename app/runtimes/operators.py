"""Import torchvision from here: it works beside a CPU-only torch too, and its detectors with it (see ``kernels``)."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from app.runtimes import kernels
from app.runtimes.kernels import nms, roi_align

_COMPILER = "torch._dynamo.utils"


class _Compiler(ModuleType):
    """Stands for torch's compiler while torchvision is imported.

    torchvision.ops.roi_align asks one thing of it. To import it for that takes as long as torch, and 70 MB.
    """

    @staticmethod
    def is_compile_supported(device_type: Any) -> Any:
        """What torch says; imports its compiler now."""
        return importlib.import_module(_COMPILER).is_compile_supported(device_type)


kernels.prepare()
_stand_in = _Compiler(_COMPILER)
sys.modules.setdefault(_COMPILER, _stand_in)

import torchvision  # noqa: E402  (what it expects must stand first)
import torchvision.ops.boxes  # noqa: E402
import torchvision.ops.poolers  # noqa: E402

if sys.modules[_COMPILER] is _stand_in:
    del sys.modules[_COMPILER]
kernels.replace(torchvision)

__all__ = ["nms", "roi_align", "torchvision"]
