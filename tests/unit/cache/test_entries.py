"""What is stored, and what is made of a store that somebody else wrote."""

from __future__ import annotations

import json

import pytest

from app.cache import entries
from app.cache.entries import Entry
from app.inference.results import Box, Detection, Prediction

FOUND = Entry(640, 480, [Detection("cone", 0.9, Box(1.5, 2.0, 30.25, 40.0))], 1000.0)
NAMED = Entry(64, 48, [Prediction("cone", 0.1 + 0.2), Prediction("vest", 0.0)], 1000.0)


def test_entry_comes_back_to_the_last_digit() -> None:
    assert entries.from_text("detect", entries.to_text(FOUND), 0.0) == FOUND
    assert entries.from_text("classify", entries.to_text(NAMED).encode(), 0.0) == NAMED


def test_answer_of_a_model_with_code_comes_back_as_it_was() -> None:
    found = entries.of_code('[{"label": "é"}]'.encode(), 1000.0)

    assert entries.from_text("code", entries.to_text(found), 0.0) == found
    assert entries.from_text("code", entries.to_text(found), 1000.1) is None
    for text in ("", "null", "[1000]", '[1000, "{"]', "[1000, 7]", '["a", "1"]', entries.to_text(FOUND)):
        assert entries.from_text("code", text, 0.0) is None
    assert not entries.of_code(b"7" * 70_000, 1.0).is_kept


def test_too_old_is_not_there() -> None:
    assert entries.from_text("detect", entries.to_text(FOUND), 1000.0) == FOUND
    assert entries.from_text("detect", entries.to_text(FOUND), 1000.1) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "null",
        "[]",
        "[1,2,3]",
        "[1,2,3,4]",
        "[" * 100_000,
        b"\x80\x04cos\nsystem\n",
        json.dumps([1000, 64, 48, [{"label": 7, "score": 0.5}]]),
        json.dumps([1000, 64, 48, [{"label": "cone", "score": "high"}]]),
        json.dumps([1000, 64, 48, [{"label": "cone", "score": float("nan")}]]),
        json.dumps([1000, 64, True, [{"label": "cone", "score": 0.5}]]),
        json.dumps([1000, 64, 48, [{"label": "cone"}]]),
        json.dumps([1000, 64, 48, ["cone"]]),
    ],
)
def test_anything_else_counts_as_not_kept(text: str | bytes | None) -> None:
    assert entries.from_text("classify", text, 0.0) is None


def test_box_without_a_side_counts_as_not_kept() -> None:
    rows = [{"label": "cone", "score": 0.5, "box": {"x_min": 0, "y_min": 0, "x_max": 1}}]

    assert entries.from_text("detect", json.dumps([1000, 64, 48, rows]), 0.0) is None
