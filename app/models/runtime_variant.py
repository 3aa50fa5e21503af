"""How each loaded model is computed, told by the engine to the web processes: a short digest a model. A leaf.

An answer depends on more than the model: on runtime, precision, device, processor and the libraries' versions. Kept
answers carry this digest in their key, so that none outlives a change of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from app.models import builds
from app.storage import json_files

FILE_NAME = "run/forms.json"
DIGEST_CHARACTERS = 16


def digest(computed_by: str, device: str, processor: str) -> str:
    """What stands for all that shapes a model's answers besides the model; ``processor`` is empty for the CPU."""
    parts = [computed_by, device, processor or builds.processor(), builds.versions()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:DIGEST_CHARACTERS]


def write(state_dir: Path, forms: Mapping[str, str]) -> None:
    """Replace the file, whole or not at all: digest of a model → that of its form. Raises OSError."""
    path = state_dir / FILE_NAME
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    json_files.replace(path, dict(forms))


class Forms:
    """What the engine wrote last. Looks at the file's inode and times each time, which costs a microsecond."""

    def __init__(self, state_dir: Path) -> None:
        self._file = os.fspath(state_dir / FILE_NAME)
        self._stamp: json_files.Stamp | None = None
        self._known: dict[str, str] = {}

    def of(self, model_digest: str) -> str:
        """How the model is computed now; empty where the engine has not said."""
        stamp = json_files.stamp(self._file)
        if stamp != self._stamp:
            self._known, self._stamp = self._read(), stamp
        return self._known.get(model_digest, "")

    def _read(self) -> dict[str, str]:
        try:
            table = json.loads(Path(self._file).read_text())
        except (OSError, ValueError):
            return {}
        return {str(name): str(form) for name, form in table.items()} if isinstance(table, dict) else {}
