"""Did it become slower? Runs against runs, with their own noise. The unit is a run, never a request. No clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import fingerprint, summary
from loadtest.statistics import bootstrap_change, holm, permutation, smallest_visible_change, welch
from loadtest.statuses import LoadTestError, Status, UsageError

RUNS_LEAST = 5
CHANCE = 0.05
# A change smaller than this is nobody's regression, however sure.
MATTERS = 0.05
# A comparison that could not have seen this says nothing.
MUST_SEE = 0.15
SEED = 20261120


@dataclass(frozen=True)
class Metric:
    """What is compared: where it stands in the figures, and whether more of it is worse."""

    name: str
    path: tuple[str, ...]
    is_worse_when_higher: bool = True


METRICS = (
    Metric("response p50, ms", ("response_ms", "p50")),
    Metric("response p95, ms", ("response_ms", "p95")),
    Metric("response p99, ms", ("response_ms", "p99")),
    Metric("right answers a second", ("right_rps",), is_worse_when_higher=False),
)


@dataclass(frozen=True)
class Change:
    """What became of one metric. ``change``: relative, of the means; ``p_value``: the larger of two, after Holm."""

    metric: Metric
    before: float
    after: float
    change: float
    interval: tuple[float, float]
    p_value: float
    visible: float

    @property
    def is_sure(self) -> bool:
        """Whether chance alone is out of the question."""
        return self.p_value < CHANCE

    @property
    def is_regression(self) -> bool:
        """Sure, in the bad direction, and large enough to matter."""
        worse = self.change if self.metric.is_worse_when_higher else -self.change
        return self.is_sure and worse >= MATTERS


@dataclass(frozen=True)
class Run:
    """One run as it stands in its folder."""

    folder: Path
    plan: dict[str, Any]
    verdict: dict[str, Any]

    def value(self, metric: Metric) -> float:
        """The metric of this run; who got no answer in time waited as long as callers are patient."""
        value: Any = self.verdict["figures"]
        for key in metric.path:
            value = value[key]
        return float(self.plan["timeout_seconds"] * 1000 if value is None else value)


def read(folder: Path) -> Run:
    """A run's folder. Raises UsageError when it is none."""
    try:
        return Run(
            folder, json.loads((folder / "run.json").read_text()), json.loads((folder / "verdict.json").read_text())
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is no folder of a finished run: {error}") from None


def compare(before: Sequence[Run], after: Sequence[Run]) -> list[Change]:
    """Each metric of both sides. Raises UsageError for unlike runs, LoadTestError for too few valid ones.

    A change counts when Welch's test on the runs' figures and the permutation of the runs both say so, after Holm's
    correction over the metrics.
    """
    sides = [[each for each in side if each.verdict["verdict"] != "INVALID"] for side in (before, after)]
    if min(len(side) for side in sides) < RUNS_LEAST:
        raise LoadTestError(
            f"{len(sides[0])} and {len(sides[1])} valid runs; expected {RUNS_LEAST} a side, taken in turns."
        )
    _check_alike([*sides[0], *sides[1]])
    return changes([[[run.value(metric) for run in side] for side in sides] for metric in METRICS])


def changes(values: Sequence[Sequence[Sequence[float]]]) -> list[Change]:
    """The same from bare numbers: for each of METRICS, before and after, one number a run."""
    pairs = [(np.array(before, float), np.array(after, float)) for before, after in values]
    p_welch = holm([welch(a, b) for a, b in pairs])
    p_permutation = holm([permutation(a, b, SEED) for a, b in pairs])
    # By chance, Holm's first step needs a p-value of CHANCE / metrics.
    return [
        Change(
            metric,
            float(a.mean()),
            float(b.mean()),
            float(b.mean() / a.mean() - 1),
            bootstrap_change(a, b, 1 - CHANCE, SEED),
            max(first, second),
            smallest_visible_change(a, b, CHANCE / len(METRICS)),
        )
        for metric, (a, b), first, second in zip(METRICS, pairs, p_welch, p_permutation, strict=True)
    ]


def status_of(found: Sequence[Change]) -> Status:
    """REGRESSION; else PASS when a change that matters would have been seen in p50 and p95; else UNDECIDED."""
    if any(each.is_regression for each in found):
        return Status.REGRESSION
    could_see = all(each.visible <= MUST_SEE for each in found[:2])
    return Status.PASS if could_see or all(each.is_sure for each in found[:2]) else Status.UNDECIDED


def render(found: Sequence[Change]) -> str:
    """The comparison for a person at a terminal."""
    rows = [["metric", "before", "after", "change", "95 % interval", "p", "smallest visible", ""]]
    for each in found:
        low, high = each.interval
        word = "REGRESSION" if each.is_regression else "changed" if each.is_sure else ""
        figures = [f"{each.before:.1f}", f"{each.after:.1f}", f"{each.change:+.1%}", f"{low:+.1%} … {high:+.1%}"]
        rows.append([each.metric.name, *figures, f"{each.p_value:.3f}", f"{each.visible:.1%}", word])
    status = status_of(found)
    meaning = {
        Status.REGRESSION: "it became worse, by more than matters and more than chance explains",
        Status.PASS: "no regression; one of the size in «smallest visible» would have shown in 8 of 10 comparisons",
        Status.UNDECIDED: "the runs differ too much among themselves; take more, on a quiet machine",
    }[status]
    return "\n".join([f"{status.name}: {meaning}", "", *(f"  {line}" for line in summary.table(rows))])


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for key in ("profile", "mix", "env", "workers", "timeout_seconds", "repeat_share"):
            if run.plan[key] != first.plan[key]:
                raise UsageError(
                    f"{run.folder.name} and {first.folder.name} differ in {key}; only like runs are compared."
                )
        if unlike := fingerprint.unlike(first.plan["fingerprint"], run.plan["fingerprint"]):
            raise UsageError(f"{run.folder.name} and {first.folder.name} were not measured alike: {unlike[0]}.")
