"""Only a task's own file knows its name."""

from __future__ import annotations

import ast
from collections import Counter

from app import tasks
from app.config import ROOT
from app.telemetry import metrics


def _named(source: str) -> int:
    """How many texts in it are the name of a task."""
    return sum(isinstance(node, ast.Constant) and node.value in tasks.NAMES for node in ast.walk(ast.parse(source)))


def test_no_other_file_names_a_task() -> None:
    files = [path for path in (ROOT / "app").rglob("*.py") if path.parent != ROOT / "app" / "tasks"]
    found = Counter({str(path.relative_to(ROOT)): _named(path.read_text()) for path in files})

    assert {name: count for name, count in found.items() if count} == {}


def test_metrics_count_by_every_task() -> None:
    assert all(metrics.TASK.fits(name) for name in tasks.NAMES)
