"""Model stores for tests of versions: the demonstration's models, and further versions that can be told apart."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from app.models import manifests
from app.models.manifests import Manifest
from tests import servers

CLASSIFIER = "site-safety-classifier"


def make(folder: Path, *names: str) -> Path:
    """A store below ``folder`` with these models of the demonstration; returns its path."""
    store = folder / "models"
    for name in names or (CLASSIFIER,):
        shutil.copytree(servers.ROOT / "models" / name, store / name, ignore=shutil.ignore_patterns("samples"))
    return store


def add_version(
    store: Path, version: str, name: str = CLASSIFIER, *, is_told_apart: bool = True, **texts: str
) -> Manifest:
    """One more version with the weights of version 1, whose labels end in its own number: ``cone-2``.

    ``is_told_apart``: where not, it answers as version 1 does. ``texts`` replace other texts of the manifest. Appears
    by rename, as with make model-add.
    """
    made = store / name / f".{version}"
    shutil.copytree(store / name / "1", made)
    path = made / manifests.FILE_NAME
    text = re.sub(r'^version = "1"', f'version = "{version}"', path.read_text(), flags=re.M)
    if is_told_apart:
        text = re.sub(r"^labels = .*", lambda match: _numbered(match[0], version), text, flags=re.M)
    for key, value in texts.items():
        text = re.sub(rf'^{key} = ".*"', f'{key} = "{value}"', text, flags=re.M)
    path.write_text(text)
    made.rename(store / name / version)
    return manifests.read(store / name / version)


def _numbered(line: str, version: str) -> str:
    return re.sub(r'"([^"]+)"', rf'"\1-{version}"', line)
