"""Shadows: what is the same, what is counted, and a record that never grows beyond its bounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import tasks
from app.engine import shadows
from app.engine.shadows import ShadowedAnswer, Shadows
from app.engine.worker import Reply
from app.errors import CaskError, DeadlineExceededError
from app.inference.results import Answer, Box, Detection, Prediction
from app.models import roles
from app.tasks.base import Difference
from tests.fakes import FakeClock


def labels(**scores: float) -> Answer:
    return [Prediction(label, score) for label, score in scores.items()]


def box(label: str, left: float, score: float = 0.9) -> Detection:
    return Detection(label, score, Box(left, 0.0, left + 10, 10.0))


def task_of(answer: Answer) -> str:
    return "detect" if any(isinstance(row, Detection) for row in answer) else "classify"


def asked(answer: Answer, **changes: float) -> ShadowedAnswer:
    return ShadowedAnswer(task_of(answer), "parts", "1", "2", answer, request_id="a-request", **changes)


BOXES = st.lists(
    st.builds(box, st.sampled_from("ab"), st.floats(0, 100), st.floats(0, 1)),
    max_size=6,
)


@pytest.mark.parametrize(
    ("answered", "shadowed", "expected"),
    [
        (labels(cone=0.9, vest=0.1), labels(cone=0.8, vest=0.2), Difference(True, pytest.approx(0.1))),
        (labels(cone=0.6, vest=0.4), labels(vest=0.6, cone=0.4), Difference(False, pytest.approx(0.2))),
        (labels(cone=0.9), labels(vest=0.9), Difference(False, 0.0)),
        ([], [], Difference(True, 0.0)),
        ([box("a", 0)], [box("a", 1, 0.6)], Difference(True, pytest.approx(0.3), 1)),
        ([box("a", 0)], [box("b", 0)], Difference(False, 0.0, 0, 1, 1)),
        ([box("a", 0)], [box("a", 6)], Difference(False, 0.0, 0, 1, 1)),
        ([box("a", 0), box("a", 50)], [box("a", 50)], Difference(False, 0.0, 1, 1, 0)),
        ([], [box("a", 0)], Difference(False, 0.0, 0, 0, 1)),
    ],
)
def test_difference_of_two_answers(answered: Answer, shadowed: Answer, expected: Difference) -> None:
    assert tasks.BY_NAME[task_of([*answered, *shadowed])].difference(answered, shadowed) == expected


@given(BOXES, BOXES)
def test_every_box_is_matched_once_or_stands_alone(answered: list[Detection], shadowed: list[Detection]) -> None:
    compare = tasks.BY_NAME["detect"].difference
    difference = compare(answered, shadowed)

    if answered or shadowed:
        assert difference.matched + difference.only_answered == len(answered)
        assert difference.matched + difference.only_shadow == len(shadowed)
    assert compare(answered, answered).is_same


def test_what_was_compared_left_out_and_failed_is_counted(tmp_path: Path) -> None:
    counts = Shadows(tmp_path, FakeClock(1000.0))
    counts.note(asked(labels(cone=0.9)), Reply(labels(cone=0.8)))
    counts.note(asked(labels(cone=0.9)), Reply(labels(vest=0.8)))
    counts.note(asked([]), Reply(error=DeadlineExceededError("late")))
    counts.note(asked([]), Reply(error=CaskError("broken")))
    counts.drop("parts", "2", 3)

    row = counts.status()["shadows"]["parts"]

    assert (row["version"], row["since"]) == ("2", 1000.0)
    assert (row["compared"], row["same"], row["same_share"], row["dropped"], row["failed"]) == (2, 1, 50, 4, 1)
    assert (row["largest_difference"], row["mean_difference"]) == (0.1, 0.05)


def test_difference_is_written_down_with_both_answers_and_the_request(tmp_path: Path) -> None:
    Shadows(tmp_path, FakeClock(0.0)).note(asked(labels(cone=0.9)), Reply(labels(vest=0.8)))

    row = json.loads(roles.record_path(tmp_path, "parts").read_text())

    assert (row["time"], row["request_id"]) == ("1970-01-01T00:00:00Z", "a-request")
    assert (row["answered_by"], row["shadow"], row["same"]) == ("1", "2", False)
    assert row["answer"] == [{"label": "cone", "score": 0.9}]
    assert row["shadow_answer"] == [{"label": "vest", "score": 0.8}]


def test_what_is_the_same_is_not_written_down(tmp_path: Path) -> None:
    Shadows(tmp_path).note(asked(labels(cone=0.9)), Reply(labels(cone=0.88)))

    assert not roles.record_path(tmp_path, "parts").exists()


def test_boxes_are_compared_in_pixels_of_the_original(tmp_path: Path) -> None:
    counts = Shadows(tmp_path)

    answered, found = Detection("a", 0.9, Box(30, 7, 130, 57)), Detection("a", 0.9, Box(0, 0, 50, 100))
    counts.note(asked([answered], scale_x=0.5, scale_y=2.0, left=30.0, top=7.0), Reply([found]))

    assert counts.status()["shadows"]["parts"]["same"] == 1


def test_record_is_bounded_by_two_files_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MAX_FILE_BYTES", 100)
    file = tmp_path / "shadow" / "parts.jsonl"

    for number in range(100):
        shadows.append(file, f"line {number:03}")

    kept = file.with_name("parts.jsonl.1").read_text() + file.read_text()
    assert sorted(path.name for path in file.parent.iterdir()) == ["parts.jsonl", "parts.jsonl.1"]
    assert len(kept) <= 200
    assert kept.splitlines()[-1] == "line 099"
    assert kept.splitlines() == sorted(kept.splitlines())


def test_record_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text("a file where the folder should be")
    counts = Shadows(tmp_path)

    counts.note(asked(labels(cone=0.9)), Reply(labels(vest=0.8)))

    assert counts.status()["shadows"]["parts"]["compared"] == 1
