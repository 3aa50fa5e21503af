"""Files that others follow: whole or not at all, and seen to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.storage import json_files


def test_a_file_is_replaced_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "forms.json"
    json_files.replace(path, {"a": 1})
    json_files.replace(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["json.dump", "os.fsync", "pathlib.Path.replace"])
def test_what_was_there_stays_when_writing_fails_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = tmp_path / "forms.json"
    json_files.replace(path, {"a": 1})

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(fails, no_room)
        json_files.replace(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_stamp_changes_with_each_replacement_and_not_without(tmp_path: Path) -> None:
    path = tmp_path / "forms.json"
    assert json_files.stamp(str(path)) == json_files.ABSENT
    json_files.replace(path, {"a": 1})
    first = json_files.stamp(str(path))
    assert first == json_files.stamp(str(path)) != json_files.ABSENT
    json_files.replace(path, {"a": 1})
    assert json_files.stamp(str(path)) != first
