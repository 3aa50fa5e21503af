"""Each line that the service may log at warning or above can be looked up at night."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEVELS = {"warning", "error", "critical", "exception"}
PLACEHOLDER = re.compile(r"%[sdr]|%\.\d+f")
# What carries a code stands under the code, in docs/errors.md.
ONLY_A_CODE = re.compile(r"%s: %s( %s)?")


def _lines(path: Path) -> Iterator[str]:
    """The constant first words of each call of a logger's method, as written in the source."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            words = node.args[0] if node.args else None
            if isinstance(words, ast.Constant) and isinstance(words.value, str):
                yield words.value


def _all_lines() -> list[str]:
    found = {line for path in sorted((ROOT / "app").rglob("*.py")) for line in _lines(path)}
    return sorted(line for line in found if not ONLY_A_CODE.fullmatch(line))


def _documented() -> str:
    pages = ("errors.md", "operations.md", "administration.md", "models.md")
    text = "\n".join((ROOT / "docs" / name).read_text() for name in pages)
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("line", _all_lines())
def test_a_line_of_the_log_is_explained(line: str) -> None:
    parts = [part.strip(" :;,.()") for part in PLACEHOLDER.split(line)]
    assert max(parts, key=len) in _documented(), (
        f"explain {line!r} in docs/operations.md, under 'Lines that have no code'"
    )


def test_there_are_lines_to_explain() -> None:
    assert "ending the %s process %d: it %s; Apache starts a new one" in _all_lines()
