"""Copies of the app with a planted fault: it mixes answers up."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers import ROOT

COPIED = ("apache", "app", "cask", "env", "flask.wsgi", ".flaskenv")
LINKED = (".venv", "models")

# A variable that threads share and no lock guards, as one forgets it: now and then somebody gets another's results.
SWAPPED = """
import itertools
from app.inference.pipeline import Predictor

count, before, right = itertools.count(1), {{}}, Predictor.predict


def swapped(self, task, data, *arguments, **options):
    outcome = right(self, task, data, *arguments, **options)
    other, before[task, len(data)] = before.get((task, len(data))), outcome
    return other if other is not None and next(count) % {every} == 0 else outcome


Predictor.predict = swapped
"""


@contextlib.contextmanager
def copy(planted: str = "") -> Iterator[Path]:
    """A copy of the checkout's app with these lines at the end of flask.wsgi, until the block ends."""
    root = Path(tempfile.mkdtemp(prefix="cask-copy-"))
    # The service user reads it.
    root.chmod(0o755)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "local.env"))
        else:
            shutil.copy(ROOT / name, root / name)
    for name in LINKED:
        (root / name).symlink_to((ROOT / name).resolve())
    with (root / "flask.wsgi").open("a") as file:
        file.write(planted)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def that_swaps(every: int) -> str:
    """Lines that give the results of the request before, once in so many."""
    return SWAPPED.format(every=every)
