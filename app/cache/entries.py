"""One kept answer, and its form in JSON: read with suspicion, because others may be able to write the store."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from app.manifests import Task
from app.results import Answer, Box, Detection, to_dict
from app.tasks import answer_from_json


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
    try:
        kept_at, width, height, rows = json.loads(text)
        answer = answer_from_json(task, rows)
        is_sound = all(map(_is_number, (kept_at, width, height))) and all(map(_is_sound, answer))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Entry(width, height, answer, kept_at) if is_sound and kept_at >= oldest else None


def _is_sound(row: object) -> bool:
    label, score = getattr(row, "label", None), getattr(row, "score", None)
    box = row.box if isinstance(row, Detection) else Box(0, 0, 0, 0)
    return isinstance(label, str) and all(map(_is_number, (score, box.x_min, box.y_min, box.x_max, box.y_max)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
