"""The line while a run goes on: its verdict is read on any terminal."""

from __future__ import annotations

import json
from pathlib import Path

from loadtest import progress
from loadtest.outcomes import Outcome
from loadtest.plans import Plan
from tests.unit.loadtest_rows import PROFILE, SLO, rows

COLUMNS = 80


def follow(folder: Path, count: int) -> str:
    made = rows(count)
    made["outcome"][::7] = Outcome.REFUSED
    made["outcome"][1::50] = Outcome.DROPPED
    made["outcome"][2::90] = Outcome.WRONG
    (folder / "rows-0.bin").write_bytes(made.tobytes())
    (folder / "worker-0.json").write_text(json.dumps({"planned": count, "rows": count, "cpu_seconds": 1.0}))
    plan = Plan(folder, "http://box", "test", PROFILE, SLO, {"page": 1.0}, 1, 1, 64, 10.0, 0.0)
    return progress.Follower(plan).line()


def test_verdict_moment_and_failures_are_within_eighty_columns(tmp_path: Path) -> None:
    line = follow(tmp_path, 900)[: COLUMNS - 3]

    assert line.startswith("FAIL so far · 90/100 s · ")
    for word in ("right", "wrong", "failed", "dropped"):
        assert word in line


def test_what_is_nothing_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "rows-0.bin").write_bytes(rows(400).tobytes())
    plan = Plan(tmp_path, "http://box", "test", PROFILE, SLO, {"page": 1.0}, 1, 1, 64, 10.0, 0.0)

    assert "wrong" not in progress.Follower(plan).line()


def test_before_the_first_row_it_starts(tmp_path: Path) -> None:
    plan = Plan(tmp_path, "http://box", "test", PROFILE, SLO, {"page": 1.0}, 1, 1, 64, 10.0, 0.0)

    assert progress.Follower(plan).line().startswith("starting")
