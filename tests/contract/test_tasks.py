"""Only a task's own file knows its name. Who else names one stands here, with how often; the list shrinks."""

from __future__ import annotations

import ast
from collections import Counter

from app import tasks
from app.config import ROOT
from app.telemetry import metrics

# Addresses and examples name what they are about.
STILL_NAMED = {
    "app/web/api/classify.py": 1,
    "app/web/api/detect.py": 1,
    "app/web/api/ensemble.py": 1,
    "app/web/api/jobs.py": 1,
    "app/web/api/legacy.py": 5,
    "app/web/api/rpc.py": 2,
    "app/telemetry/metrics.py": 2,
}


def _named(source: str) -> int:
    """How many texts in it are the name of a task."""
    return sum(isinstance(node, ast.Constant) and node.value in tasks.NAMES for node in ast.walk(ast.parse(source)))


def test_no_other_file_names_a_task() -> None:
    files = [path for path in (ROOT / "app").rglob("*.py") if path.parent != ROOT / "app" / "tasks"]
    found = Counter({str(path.relative_to(ROOT)): _named(path.read_text()) for path in files})

    assert {name: count for name, count in found.items() if count} == STILL_NAMED


def test_metrics_count_by_every_task() -> None:
    """They name the tasks again, because counting must not import what a task needs."""
    assert metrics.TASK.values == tasks.NAMES
