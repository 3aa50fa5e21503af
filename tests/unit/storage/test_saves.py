"""When a save has ended: an editor writes in several steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.storage import saves
from app.storage.saves import Stamp


def test_file_that_was_just_emptied_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor empties it, then writes; on a busy machine that is several looks later."""
    monkeypatch.setattr(saves, "EMPTY_SECONDS", 600.0)
    monkeypatch.setattr(saves, "SETTLED_SECONDS", 0.0)
    path, looks = tmp_path / "model.py", 0
    path.touch()

    def look() -> Stamp:
        nonlocal looks
        looks += 1
        if looks == 4:
            path.write_text("x")
        return saves.stamp(tmp_path)

    assert saves.settled(look, saves.stamp(tmp_path))["model.py"][1] == 1


@pytest.mark.parametrize("age_seconds", [3600, -3600])
def test_file_that_is_meant_to_be_empty_is_not_waited_for(tmp_path: Path, age_seconds: int) -> None:
    path = tmp_path / "__init__.py"
    path.touch()
    changed = path.stat().st_mtime - age_seconds
    os.utime(path, (changed, changed))

    assert saves.settled(lambda: saves.stamp(tmp_path), {}) == saves.stamp(tmp_path)
