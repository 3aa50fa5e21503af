"""apache/hand_over.py: the service user cannot write compiled files of root's code, so root does."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from app.config import ROOT


@pytest.fixture
def hand_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, for code in a folder of this test, which `_compile_code` takes for root's."""
    spec = importlib.util.spec_from_file_location("cask_hand_over", ROOT / "apache" / "hand_over.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in ("app", "cask"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "first.py").write_text("VALUE = 1\n")
    return module


def compiled(folder: Path) -> dict[str, bytes]:
    return {path.name.partition(".")[0]: path.read_bytes() for path in folder.rglob("*.pyc")}


def take_as_owned_by(monkeypatch: pytest.MonkeyPatch, hand_over: ModuleType, uid: int) -> None:
    monkeypatch.setattr(hand_over, "_owner", lambda path: uid)


def test_what_is_missing_or_changed_is_compiled(
    hand_over: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_as_owned_by(monkeypatch, hand_over, 0)
    hand_over._compile_code()
    before = compiled(tmp_path / "app")
    assert list(before) == ["first"]
    assert list(compiled(tmp_path / "cask")) == ["first"]
    (tmp_path / "app" / "first.py").write_text("VALUE = 12\n")
    # Compiled files go by whole seconds.
    os.utime(tmp_path / "app" / "first.py", (2_000_000_000, 2_000_000_000))
    (tmp_path / "app" / "broken.py").write_text("VALUE = (\n")
    hand_over._compile_code()
    after = compiled(tmp_path / "app")
    assert list(after) == ["first"]
    assert after != before


def test_nothing_is_written_into_the_checkout_of_somebody_else(
    hand_over: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_as_owned_by(monkeypatch, hand_over, 1000)
    hand_over._compile_code()
    assert not compiled(tmp_path)


def test_nothing_is_written_where_python_is_told_not_to(
    hand_over: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_as_owned_by(monkeypatch, hand_over, 0)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    hand_over._compile_code()
    assert not compiled(tmp_path)
