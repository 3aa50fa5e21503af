"""Limits of one scenario and of figures that checks note: judged apart, and a name that nobody has is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest import profiles, summary
from loadtest.profiles import Slo
from loadtest.request_log import ROW, Record
from loadtest.schedule import Stage
from loadtest.statuses import Status, UsageError
from loadtest.verdict import judge

PROFILE = profiles.Profile("p", "?", (Stage(100.0, 10.0, 10.0),), "callers")
WORKER = {"planned": 1000, "rows": 1000, "cpu_seconds": 1.0}
NAMES = ("quick", "slow")


def record(**metrics: list[float]) -> Record:
    """A thousand requests, every other one of the slow scenario: 0.4 s instead of 10 ms."""
    rows = np.zeros(1000, ROW)
    rows["intended"] = rows["sent"] = np.arange(1000) / 10
    rows["scenario"] = np.arange(1000) % 2
    rows["done"] = rows["intended"] + np.where(rows["scenario"] == 1, 0.4, 0.01)
    rows["app_ms"] = np.nan
    noted = {name: np.column_stack((np.arange(len(values)) / 10, values)) for name, values in metrics.items()}
    return Record(rows, [WORKER], 1, noted)


def statuses(slo: Slo, **metrics: list[float]) -> dict[str, Status]:
    return {check.name: check.status for check in judge(record(**metrics), PROFILE, slo, names=NAMES).checks}


def test_a_scenario_is_judged_by_limits_of_its_own() -> None:
    slo = Slo("s", {0.95: 1000}, scenarios={"slow": {"p95_ms": 100}, "quick": {"p95_ms": 100, "max_failed_share": 0.1}})

    found = statuses(slo)

    assert found["response p95"] == found["quick p95"] == found["quick failed"] == Status.PASS
    assert found["slow p95"] == Status.FAIL


def test_limits_of_a_scenario_that_is_not_in_this_mix_say_nothing() -> None:
    assert "other p95" not in statuses(Slo("s", {0.95: 1000}, scenarios={"other": {"p95_ms": 1}}))


def test_a_figure_is_judged_at_its_percentile_in_both_directions() -> None:
    slo = Slo("s", {0.95: 1000}, metrics={"tokens": {"p95_most": 50, "p05_least": 10}, "boxes": {"p50_least": 3}})

    found = statuses(slo, tokens=[float(each % 48 + 11) for each in range(1000)], boxes=[2.0] * 1000)

    assert found["tokens p95"] == Status.FAIL
    assert found["tokens p05"] == Status.PASS
    assert found["boxes p50"] == Status.FAIL


def test_a_figure_that_is_no_number_keeps_no_limit_and_one_that_nobody_noted_is_no_pass() -> None:
    slo = Slo("s", {0.95: 1000}, metrics={"a": {"p50_most": 5}, "b": {"p50_most": 5}})

    found = statuses(slo, a=[float("nan")] * 1000)

    assert (found["a p50"], found["b"]) == (Status.FAIL, Status.INVALID)


def test_a_file_of_the_users_own_is_read_by_its_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[strict]\np95_ms = 20\n[strict.scenarios.claims]\np99_ms = 50\n[strict.metrics.n]\np95_most = 4\n")

    slo = profiles.read_slo(f"{path}:strict")

    assert (slo.limits_ms, slo.scenarios, slo.metrics) == (
        {0.95: 20},
        {"claims": {"p99_ms": 50}},
        {"n": {"p95_most": 4}},
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[t.scenarios.claims]\np95 = 4", "p95 = 4; expected such as p95_ms = 40"),
        ("[t.metrics.n]\np95_ms = 4", "p95_ms = 4; expected such as p95_most = 40 or p95_least = 40"),
        ("[t.metrics.n]\np95_most = 'x'", "p95_most = 'x'"),
        ("[t.scenarios.claims]\nq95_ms = 4", "q95"),
        ("[t.metrics.n]\np5_least = 4", "'p5'; expected such as p05"),
    ],
)
def test_a_limit_that_is_none_is_refused(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[t]\n{line}\n")

    with pytest.raises(UsageError, match=words):
        profiles.read_slo(f"{path}:t")


def test_a_terminal_of_eighty_columns_gets_lines_that_fit() -> None:
    verdict = judge(record(), PROFILE, Slo("s", {0.5: 1, 0.95: 1000}), names=NAMES)

    lines = summary._checks(verdict, 80)

    assert max(map(len, lines)) <= 78
    assert any("of 1000 late" in line for line in lines)
