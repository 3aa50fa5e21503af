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


class _DataSets(ModuleType):
    """Stands for torchvision's data sets until somebody asks for one; 50 modules, 2 MB."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


class _Exporter(ModuleType):
    """Stands for what tells torch's exporter to ONNX of torchvision's operators: 29 modules, 2 MB."""

    @staticmethod
    def _register_custom_op() -> None:
        """Nobody here exports."""


kernels.prepare()
# What torchvision imports with itself, and a service does not use.
_STAND_INS = (
    _Compiler(_COMPILER),
    _DataSets("torchvision.datasets"),
    _Exporter("torchvision.ops._register_onnx_ops"),
)
for _each in _STAND_INS:
    sys.modules.setdefault(_each.__name__, _each)

import torchvision  # noqa: E402  (what it expects must stand first)
import torchvision.ops.boxes  # noqa: E402
import torchvision.ops.poolers  # noqa: E402

for _each in _STAND_INS:
    if sys.modules[_each.__name__] is _each:
        del sys.modules[_each.__name__]
kernels.replace(torchvision)

__all__ = ["nms", "roi_align", "torchvision"]
