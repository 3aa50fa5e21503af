"""Modules of a model, compiled from its files: what ``__pycache__`` holds is no part of the digest."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


class FromSource(importlib.machinery.SourceFileLoader):
    """Compiles anew: what lies in ``__pycache__`` may be of another time, or of somebody else."""

    def get_code(self, fullname: str) -> types.CodeType:
        """From the file itself."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def yield_name(folder: Path) -> None:
    """Where the folder has a module of the name of Cask's own package, let the next import find that one."""
    if (folder / "app.py").is_file() or (folder / "app").is_dir():
        for name in [name for name in sys.modules if name == "app" or name.startswith("app.")]:
            del sys.modules[name]


def hook_of(folder: Path) -> Callable[[str], Any]:
    """For ``sys.path_hooks``: finds modules in the folder, and compiles them anew."""
    loaders: list[tuple[type[importlib.abc.Loader], list[str]]] = [
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (FromSource, importlib.machinery.SOURCE_SUFFIXES),
    ]
    found = importlib.machinery.FileFinder.path_hook(*loaders)

    def hook(path: str) -> Any:
        if not Path(path).is_relative_to(folder) or Path(path).is_relative_to(folder / "environment"):
            raise ImportError(path)
        return found(path)

    return hook
