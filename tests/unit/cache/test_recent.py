"""Answers in memory: the ones asked for last, no more than a few, and none that is large."""

from __future__ import annotations

from app.cache.entries import Entry
from app.cache.recent import MAX_ENTRIES, MAX_ROWS, Recent
from app.inference.results import Prediction


def entry(rows: int = 1) -> Entry:
    return Entry(64, 48, [Prediction("cat", 0.5)] * rows, 0.0)


def test_it_forgets_what_nobody_asked_for_the_longest() -> None:
    recent, kept = Recent(), entry()
    recent.put("asked for", kept)
    recent.put("not asked for", entry())
    for number in range(MAX_ENTRIES - 1):
        recent.get("asked for")
        recent.put(str(number), entry())

    assert recent.get("asked for") is kept
    assert recent.get("not asked for") is None


def test_large_answers_are_left_to_the_store() -> None:
    recent = Recent()
    recent.put("large", entry(MAX_ROWS + 1))

    assert recent.get("large") is None
