"""Modules of packages, imported by a process before it is told to load a model; never the model's own files."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

# Where packages are installed; a folder that somebody is working in is none of them.
PLACES = frozenset({"site-packages", "dist-packages", "environment"})


def of_packages() -> list[str]:
    """Names of what this process has imported from installed packages, in the order of the imports."""
    return [name for name, module in list(sys.modules.items()) if _is_of_package(name, module)]


def ahead(names: Iterable[str]) -> None:
    """Import these. What fails here will fail again, and be told, where the model imports it."""
    for name in names:
        with contextlib.suppress(BaseException):
            importlib.import_module(name)


def _is_of_package(name: str, module: object) -> bool:
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return isinstance(origin, str) and not name.startswith("_") and bool(PLACES & set(Path(origin).parts))
