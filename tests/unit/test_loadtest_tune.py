"""Tuning keeps what is better by more than noise, one setting after another, and leaves other lines alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loadtest import tune
from loadtest.tune import Tried


def test_the_best_of_each_setting_is_kept_for_the_next() -> None:
    def measure(changed: Mapping[str, str]) -> Tried:
        rate = 10 + 5 * (changed.get("A") == "2") + 5 * (changed.get("B") == "3" and changed.get("A") == "2")
        return Tried(dict(changed), rate, 50.0)

    first, best = tune.choose({"A": ["1", "2"], "B": ["3", "4"]}, measure, lambda _: None)

    assert (first.right_rps, first.changed) == (10, {})
    assert (best.right_rps, best.changed) == (20, {"A": "2", "B": "3"})


def test_what_is_better_by_noise_only_is_left() -> None:
    measured = iter([10.0, 10.4, 10.2])

    _, best = tune.choose({"A": ["1", "2"]}, lambda changed: Tried(dict(changed), next(measured), 50.0), lambda _: None)

    assert best.changed == {}


def test_what_does_not_hold_when_measured_once_more_is_left() -> None:
    measured = iter([10.0, 10.0, 15.0, 15.0, 15.0])

    first, best = tune.choose(
        {"A": ["1", "2"]}, lambda changed: Tried(dict(changed), next(measured), 50.0), lambda _: None
    )

    assert (first.right_rps, best.changed) == (15.0, {})


def test_candidates_follow_the_cores() -> None:
    assert tune.candidates(1)["ENGINE_WORKERS"] == ["1", "2"]
    assert tune.candidates(8)["WEB_PROCESSES"] == ["1", "8", "16"]


def test_a_line_that_is_there_is_replaced_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "local.env"
    path.write_text("# mine\nPORT=9000\nWEB_THREADS=8\n")

    tune.write({"WEB_THREADS": "16", "ENGINE_WORKERS": "2"}, path)

    assert path.read_text() == "# mine\nPORT=9000\nWEB_THREADS=16\nENGINE_WORKERS=2\n"


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    tune.write({"WEB_THREADS": "16"}, tmp_path / "local.env")

    assert (tmp_path / "local.env").read_text().splitlines()[-1] == "WEB_THREADS=16"
