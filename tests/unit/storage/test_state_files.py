"""A damaged file of the state is one line before the start, and nothing is changed by asking."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from app.auth import tokens
from app.auth.tokens import TokenStore
from app.errors import StateUnusableError
from app.storage import state_files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = TokenStore(tmp_path)
    for number in range(200):
        store.create(f"caller-{number}")
    store.close()
    return tmp_path / tokens.FILE_NAME


def test_a_whole_file_and_none_at_all_are_right(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()

    state_files.check(path.parent)
    state_files.check(tmp_path / "none-yet")

    assert path.read_bytes() == before


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as opened:
        opened.execute("PRAGMA user_version=99")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "a few bytes": (lambda path: path.write_bytes(path.read_bytes()[:40]), "it is cut off"),
    "half of it": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "malformed"),
    "no database": (lambda path: path.write_bytes(b"not a database " * 400), "not a database"),
    "zeros within": (lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096)), ""),
    "newer": (_newer, f"newer than this program's {len(tokens.MIGRATIONS)}"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), ""),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_file_is_one_line_with_what_to_do(path: Path, case: str) -> None:
    damage, words = DAMAGES[case]
    damage(path)

    with pytest.raises(StateUnusableError) as caught:
        state_files.check(path.parent)

    said = f"{caught.value.message} {caught.value.hint}"
    assert words in said
    assert str(path) in said
    assert "mv " in said
    assert "\n" not in said
