"""What the release before called otherwise: accepted for one release, and who writes it is told the new name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Public name of the release before → the one since. A release empties both tables and fills them with its own.
NAMES: dict[str, str] = {}
# The same of plugin.toml, such as "navigation" or "wsgi.threads".
KEYS: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Use:
    """One place where an old name stands."""

    file: Path
    line: int
    old: str
    new: str

    def __str__(self) -> str:
        return (
            f"{self.file}, line {self.line}: {self.old} is called {self.new} now. Write {self.new}: the next release"
            f" knows {self.old} no more."
        )


def in_code(files: Iterable[Path]) -> list[Use]:
    """Old names in files of Python that import them from ``cask``. Runs no code; what cannot be read has none."""
    if not NAMES:
        return []
    found = []
    for file in files:
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        found += [Use(file, line, f"cask.{name}", f"cask.{NAMES[name]}") for name, line in _names(tree)]
    return found


def in_table(file: Path, table: dict[str, object]) -> list[Use]:
    """Old keys of a plugin.toml; ``table``, what was read of it, has the new ones afterwards."""
    found = []
    for old, new in KEYS.items():
        head, _, key = old.rpartition(".")
        part = table.get(head) if head else table
        if isinstance(part, dict) and key in part:
            part[new.rpartition(".")[2]] = part.pop(key)
            found.append(Use(file, _line(file, key), old, new))
    return found


def _names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "cask" and not node.level:
            yield from ((each.name, each.lineno) for each in node.names if each.name in NAMES)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cask":
            yield from [(node.attr, node.lineno)] if node.attr in NAMES else []


def _line(file: Path, key: str) -> int:
    pattern = re.compile(rf"\s*(\[.*\b)?{re.escape(key)}\b")
    lines = file.read_text("utf-8", "replace").splitlines()
    return next((number for number, text in enumerate(lines, 1) if pattern.match(text)), 1)
