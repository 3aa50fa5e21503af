"""Run first in each process that a model starts by multiprocessing (spawn, forkserver): it imports as the model does.

``child`` names it as their main module, and it is run by its path: nothing of Cask is importable then.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])


def imports_as_the_model() -> None:
    """``cask`` is there, the model's modules come from its files, and other modules of Cask are nobody's business."""
    sys.path.insert(0, ROOT)
    import cask  # noqa: F401 - for the model's own modules
    from app.model_code import sources

    sys.path.remove(ROOT)
    # Those of the model's process came with its start.
    folder = next(Path(path) for path in sys.path if Path(path, "model.py").is_file())
    sources.yield_name(folder)
    sys.path_hooks.insert(0, sources.hook_of(folder))
    sys.path_importer_cache.clear()


if __name__ == "__mp_main__":
    imports_as_the_model()
