"""One kept answer, and its form in JSON: read with suspicion, because others may be able to write the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from app import tasks
from app.inference.results import Answer, to_dict
from app.models.manifests import CODE, Task
from app.tasks.base import check_number

# A larger answer of a model with code costs more to keep than most cost to compute.
MAX_RAW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """The answer for one image; ``width`` and ``height``: pixels of the upright original. ``kept_at``: Unix time.

    ``raw``: the answer of a model with code, as it wrote it; the others are empty then.
    """

    width: int
    height: int
    answer: Answer
    kept_at: float
    raw: bytes = b""

    @property
    def is_kept(self) -> bool:
        """Whether it is small enough to be worth its place."""
        return len(self.raw) <= MAX_RAW_BYTES


def of_code(answer: bytes, kept_at: float) -> Entry:
    """What a model with code answered to one item."""
    return Entry(0, 0, [], kept_at, answer)


def to_text(entry: Entry) -> str:
    """As it is stored."""
    if entry.raw:
        return json.dumps([entry.kept_at, entry.raw.decode()])
    rows = [to_dict(row) for row in entry.answer]
    return json.dumps([entry.kept_at, entry.width, entry.height, rows], separators=(",", ":"))


def from_text(task: Task, text: str | bytes | None, oldest: float) -> Entry | None:
    """What ``to_text`` made; None for anything else, and for what was kept before ``oldest``."""
    if text is None:
        return None
    try:
        row = json.loads(text)
        entry = _of_code(*row) if task == CODE else _of_images(tasks.BY_NAME[task], *row)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return entry if entry.kept_at >= oldest else None


def _of_images(task: tasks.Task, kept_at: Any, width: Any, height: Any, rows: Any) -> Entry:
    for side in (width, height):
        check_number(side)
    answer = task.answer_from_json(rows)
    for row in answer:
        task.check(row)
    return Entry(width, height, answer, float(kept_at))


def _of_code(kept_at: Any, answer: Any) -> Entry:
    json.loads(answer)
    return of_code(answer.encode(), float(kept_at))
