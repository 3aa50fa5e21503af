"""Run first in each process that a model starts by multiprocessing (spawn, forkserver): it imports as the model does.

``child`` names it as their main module, and it is run by its path: nothing of Cask is importable then.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])


def imports_as_the_model() -> None:
    """``cask`` is there, the model's modules come from its files, and other modules of Cask are nobody's business."""
    sys.path.insert(0, ROOT)
    import cask  # noqa: F401 - for the model's own modules
    from app.model_code import leftovers, sources

    sys.path.remove(ROOT)
    folder = os.environ.get(leftovers.VARIABLE, "").partition("|")[0]
    sys.path_hooks.insert(0, sources.hook_of(Path(folder)))
    sys.path_importer_cache.clear()


if __name__ == "__mp_main__":
    imports_as_the_model()
