"""One kept answer, and its form in JSON: read with suspicion, because others may be able to write the store."""

from __future__ import annotations

import json
from dataclasses import dataclass

from app import tasks
from app.inference.results import Answer, to_dict
from app.models.manifests import Task
from app.tasks.base import check_number


@dataclass(frozen=True, slots=True)
class Entry:
    """The answer for one image; ``width`` and ``height``: pixels of the upright original. ``kept_at``: Unix time."""

    width: int
    height: int
    answer: Answer
    kept_at: float


def to_text(entry: Entry) -> str:
    """As it is stored."""
    rows = [to_dict(row) for row in entry.answer]
    return json.dumps([entry.kept_at, entry.width, entry.height, rows], separators=(",", ":"))


def from_text(task: Task, text: str | bytes | None, oldest: float) -> Entry | None:
    """What ``to_text`` made; None for anything else, and for what was kept before ``oldest``."""
    if text is None:
        return None
    asked = tasks.BY_NAME[task]
    try:
        kept_at, width, height, rows = json.loads(text)
        kept_at = float(kept_at)
        for side in (width, height):
            check_number(side)
        answer = asked.answer_from_json(rows)
        for row in answer:
            asked.check(row)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return Entry(width, height, answer, kept_at) if kept_at >= oldest else None
