"""A slowdown that was planted is found, the same build twice is not, and unlike runs are not compared at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest import compare, plans
from loadtest.compare import METRICS
from loadtest.statuses import LoadTestError, Status, UsageError

TRIALS = 100
# What ten runs of one build on a shared machine differ by, from one to the next.
RUN_NOISE = np.array([0.03, 0.05, 0.08, 0.01])
LEVELS = np.array([40.0, 90.0, 150.0, 50.0])


def one_run(rng: np.random.Generator, slowdown: float = 0.0) -> np.ndarray:
    """A run's figures, in the order of METRICS; what slows a run down slows all its percentiles."""
    common = rng.normal(0, 0.02)
    noise = rng.normal(0, RUN_NOISE) + common * np.array([1, 1, 1, -0.2])
    return LEVELS * (1 + noise) * np.array([1 + slowdown, 1 + slowdown, 1 + slowdown, 1])


def comparison(rng: np.random.Generator, slowdown: float = 0.0, runs: int = 5) -> Status:
    before, after = (np.array([one_run(rng, each) for _ in range(runs)]).T for each in (0.0, slowdown))
    return compare.status_of(compare.changes([[list(a), list(b)] for a, b in zip(before, after, strict=True)]))


def test_the_same_build_twice_is_a_regression_in_at_most_one_of_twenty() -> None:
    rng = np.random.default_rng(1)

    alarms = sum(comparison(rng) == Status.REGRESSION for _ in range(TRIALS))

    assert alarms <= TRIALS * 0.05


def test_a_slowdown_of_fifteen_percent_is_found_in_nine_of_ten() -> None:
    rng = np.random.default_rng(2)

    found = sum(comparison(rng, slowdown=0.15) == Status.REGRESSION for _ in range(TRIALS))

    assert found >= TRIALS * 0.9


def test_a_slowdown_smaller_than_what_matters_is_no_regression_however_sure() -> None:
    exact = [[list(level + np.arange(5) * 1e-6), list(level * 1.02 + np.arange(5) * 1e-6)] for level in LEVELS]

    found = compare.changes(exact)

    assert all(each.is_sure for each in found)
    assert not any(each.is_regression for each in found)


def test_becoming_faster_is_no_regression() -> None:
    assert comparison(np.random.default_rng(3), slowdown=-0.3) == Status.PASS


def test_runs_that_differ_too_much_among_themselves_decide_nothing() -> None:
    rng = np.random.default_rng(4)
    values = [[list(level * rng.uniform(0.4, 1.6, 5)), list(level * rng.uniform(0.4, 1.6, 5))] for level in LEVELS]

    found = compare.changes(values)

    assert compare.status_of(found) == Status.UNDECIDED
    assert "smallest visible" in compare.render(found)


# ── In turns ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def comparison_in_turns(rng: np.random.Generator, slowdown: float = 0.0, pairs: int = 8) -> Status:
    """On a machine whose speed wanders between its best and half of it, as a shared one's does."""
    speeds = np.exp(np.cumsum(rng.normal(0, 0.25, pairs)))[:, None] * np.array([1, 1, 1, -0.0]) + [0, 0, 0, 1]
    runs = np.array([[one_run(rng) * speed, one_run(rng, slowdown) * speed] for speed in speeds])
    return compare.status_of(compare.changes_of_pairs([runs[:, :, i].tolist() for i in range(len(METRICS))]))


def test_in_turns_the_same_build_is_a_regression_in_at_most_one_of_twenty() -> None:
    rng = np.random.default_rng(5)

    assert sum(comparison_in_turns(rng) == Status.REGRESSION for _ in range(TRIALS)) <= TRIALS * 0.05


def test_in_turns_a_slowdown_is_found_however_the_machine_wanders() -> None:
    rng = np.random.default_rng(6)

    assert sum(comparison_in_turns(rng, slowdown=0.15) == Status.REGRESSION for _ in range(TRIALS)) >= TRIALS * 0.9


def test_side_against_side_the_same_wandering_hides_it() -> None:
    rng = np.random.default_rng(6)
    speeds = np.exp(np.cumsum(rng.normal(0, 0.25, 8)))[:, None]
    sides = [np.array([one_run(rng, each) for _ in range(8)]) * speeds for each in (0.0, 0.15)]

    found = compare.changes([[list(side[:, i]) for side in sides] for i in range(len(METRICS))])

    assert compare.status_of(found) == Status.UNDECIDED


def test_a_side_that_answered_nothing_right_is_worse() -> None:
    nothing = [[[40.0, 40.0]] * 8] * 3 + [[[50.0, 0.0]] * 8]

    found = compare.changes_of_pairs(nothing)

    assert found[3].is_regression
    assert not any(each.is_sure for each in found[:3])


# ── Folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_run(folder: Path, number: int, **changes: Any) -> compare.Run:
    plan = {
        "profile": {"name": "p"},
        "mix": {},
        "env": "test",
        "workers": 1,
        "timeout_seconds": 10,
        "repeat_share": 0.0,
    }
    plan["fingerprint"] = {"generator_cpu": "one", "revision": f"r{number}", **changes.pop("fingerprint", {})}
    began = {"began_at": changes["began_at"]} if "began_at" in changes else {}
    figures = {**began, "response_ms": {"p50": 40.0 + number / 10, "p95": 90.0, "p99": None}, "right_rps": 50.0}
    path = folder / str(number)
    path.mkdir()
    (path / "run.json").write_text(json.dumps({**plan, **{k: v for k, v in changes.items() if k in plan}}))
    (path / "verdict.json").write_text(json.dumps({"verdict": changes.get("verdict", "PASS"), "figures": figures}))
    return compare.read(path)


def test_runs_of_other_revisions_on_the_same_machine_are_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, number) for number in range(10)]

    found = compare.compare(runs[:5], runs[5:])

    assert [each.metric for each in found] == list(METRICS)
    # Nobody who waited in vain is left out: they waited as long as callers are patient.
    assert found[2].before == 10_000


@pytest.mark.parametrize("odd", [{"mix": {"page": 1}}, {"fingerprint": {"generator_cpu": "another"}}])
def test_unlike_runs_are_refused(tmp_path: Path, odd: dict[str, Any]) -> None:
    runs = [write_run(tmp_path, number) for number in range(9)] + [write_run(tmp_path, 9, **odd)]

    with pytest.raises(UsageError):
        compare.compare(runs[:5], runs[5:])


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, number) for number in range(5)]

    for before, after in ((runs, runs), ([*runs, runs[0]], [write_run(tmp_path, n) for n in range(5, 10)])):
        with pytest.raises(UsageError, match="named twice"):
            compare.compare(before, after)


def test_no_regression_is_not_said_while_p99_could_not_have_shown_one() -> None:
    rng = np.random.default_rng(8)
    quiet = [[list(level * (1 + rng.normal(0, 0.005, 10))) for _ in "ab"] for level in LEVELS]
    noisy = [*quiet[:2], [list(150 * rng.uniform(0.4, 1.6, 10)) for _ in "ab"], quiet[3]]

    assert compare.status_of(compare.changes(quiet)) == Status.PASS
    assert compare.status_of(compare.changes(noisy)) == Status.UNDECIDED


def test_invalid_runs_do_not_count(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, number) for number in range(9)] + [write_run(tmp_path, 9, verdict="INVALID")]

    with pytest.raises(LoadTestError, match="5 and 4 valid runs"):
        compare.compare(runs[:5], runs[5:])


def in_turns(folder: Path, order: str, **odd: Any) -> list[compare.Change]:
    """Runs of the sides a and b in this order, a minute each; what ``odd`` says is of the last."""
    runs = {side: [] for side in "ab"}
    for number, side in enumerate(order):
        more = odd if number == len(order) - 1 else {}
        runs[side].append(write_run(folder, number, began_at=60.0 * number, **more))
    return compare.compare(runs["a"], runs["b"])


@pytest.mark.parametrize("order", ["ab" * 8, "abba" * 4, "ba" * 8])
def test_runs_in_turns_are_compared_in_pairs(tmp_path: Path, order: str) -> None:
    found = in_turns(tmp_path, order)

    assert {each.pairs for each in found} == {8}
    assert "8 pairs of runs taken in turns" in compare.render(found)


@pytest.mark.parametrize("order", ["a" * 8 + "b" * 8, "ab" * 7, "ab" * 7 + "aba", "aabb" * 4])
def test_runs_out_of_turn_or_too_few_are_compared_side_against_side(tmp_path: Path, order: str) -> None:
    found = in_turns(tmp_path, order)

    assert {each.pairs for each in found} == {0}
    assert "side against side" in compare.render(found)


def test_an_invalid_run_takes_its_pair_with_it(tmp_path: Path) -> None:
    assert {each.pairs for each in in_turns(tmp_path, "ab" * 9, verdict="INVALID")} == {8}


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)):
        compare.read(tmp_path)


def test_runs_of_the_release_before_are_compared_and_read(tmp_path: Path) -> None:
    """0.1.0 called the SLO a promise, and knew neither files of scenarios nor replays."""
    plan = {"timeout_seconds": 5, "mix": {"page": 1}, "fingerprint": {"kernel": "6"}}
    old, new = (
        compare.Run(tmp_path / name, row, {})
        for name, row in (("a", plan), ("b", plan | {"sources": {}, "replay": ""}))
    )

    compare._check_alike([old, new])
    with pytest.raises(UsageError, match="differ in replay"):
        compare._check_alike([old, compare.Run(tmp_path / "c", plan | {"replay": "a log"}, {})])

    profile = {"stages": [], "claims": [], "name": "smoke", "model": "open", "mix": "callers", "question": "?"}
    rest = {
        "url": "",
        "env": "test",
        "mix": {},
        "seed": 1,
        "workers": 1,
        "slots": 1,
        "timeout_seconds": 5,
        "repeat_share": 0,
    }
    slo = {
        "name": "default",
        "limits_ms": {"0.5": 250},
        "max_failed_share": 0.001,
        "max_lag_p99_ms": 20,
        "confidence": 0.95,
    }
    (tmp_path / "run.json").write_text(json.dumps({"profile": profile, "promise": slo, **rest}))
    assert plans.read(tmp_path).slo.limits_ms == {0.5: 250}
