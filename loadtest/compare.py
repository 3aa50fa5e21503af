"""Did it become slower? Runs against runs, with their own noise. The unit is a run, never a request. No clock.

Runs taken in turns are compared in pairs, each with its neighbour: what a machine does for minutes, another tenant or
the heat, changes both alike and drops out. With fewer pairs than chance needs, or runs of two days, side against side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import detectable_change, fingerprint, summary
from loadtest.statistics import (
    bootstrap_change,
    bootstrap_mean,
    holm,
    paired,
    permutation,
    sign_flips,
    welch,
)
from loadtest.statuses import LoadTestError, Status, UsageError

RUNS_LEAST = 5
# Of fewer no signs are so unlikely that they would pass Holm's first step over all metrics.
PAIRS_LEAST = 8
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
# By chance, Holm's first step needs a p-value of this.
FIRST_STEP = CHANCE / len(METRICS)


@dataclass(frozen=True)
class Change:
    """What became of one metric. ``change``: relative, of the means; ``p_value``: the larger of two, after Holm.

    ``pairs``: so many neighbours were compared, and the means are geometric; 0: side against side.
    """

    metric: Metric
    before: float
    after: float
    change: float
    interval: tuple[float, float]
    p_value: float
    visible: float
    pairs: int = 0

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

    @property
    def is_valid(self) -> bool:
        """Whether it measured anything."""
        return bool(self.verdict["verdict"] != "INVALID")

    @property
    def began_at(self) -> float | None:
        """When its load began, in seconds since 1970; None where it was not kept."""
        began: float | None = self.verdict["figures"].get("began_at")
        return began


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

    A change counts when a test that knows the noise's shape (Welch, or Student of the pairs) and one that does not
    (the permutation of runs, or of signs) both say so, after Holm's correction over the metrics.
    """
    _check_distinct([*before, *after])
    sides = [[each for each in side if each.is_valid] for side in (before, after)]
    if min(len(side) for side in sides) < RUNS_LEAST:
        raise LoadTestError(
            f"{len(sides[0])} and {len(sides[1])} valid runs; expected {RUNS_LEAST} a side, or {PAIRS_LEAST} in turns."
        )
    _check_alike([*sides[0], *sides[1]])
    pairs = pairs_of(before, after)
    if len(pairs) >= PAIRS_LEAST:
        return changes_of_pairs([[[run.value(metric) for run in pair] for pair in pairs] for metric in METRICS])
    return changes([[[run.value(metric) for run in side] for side in sides] for metric in METRICS])


def pairs_of(before: Sequence[Run], after: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Valid neighbours in time, one of each side; none where the runs were not taken in turns."""
    runs = [(run.began_at, side, run) for side, each in enumerate((before, after)) for run in each]
    if any(began is None for began, *_ in runs) or len(before) != len(after):
        return []
    runs.sort(key=lambda each: (each[0], each[1]))
    pairs = [sorted(runs[i : i + 2], key=lambda each: each[1]) for i in range(0, len(runs), 2)]
    if any(first[1] == second[1] for first, second in pairs):
        return []
    return [(first[2], second[2]) for first, second in pairs if first[2].is_valid and second[2].is_valid]


def changes_of_pairs(values: Sequence[Sequence[Sequence[float]]]) -> list[Change]:
    """From bare numbers: for each of METRICS the pairs, before and after. Changes are of the ratio within a pair."""
    return _corrected([_in_pairs(*each) for each in zip(METRICS, values, strict=True)])


def changes(values: Sequence[Sequence[Sequence[float]]]) -> list[Change]:
    """Side against side, from bare numbers: for each of METRICS, before and after, one number a run."""
    return _corrected([_side_by_side(*each) for each in zip(METRICS, values, strict=True)])


# A change and its p-values, by a test that knows the noise's shape and by one that does not.
Tested = tuple[Change, float, float]


def _in_pairs(metric: Metric, pairs: Sequence[Sequence[float]]) -> Tested:
    # A rate is 0 where nothing was answered right; a millionth of the others says the same and has a logarithm.
    floor = 1e-6 * max(1e-6, *(max(pair) for pair in pairs))
    logs = np.log(np.maximum(np.array(pairs, float), floor))
    ratio = logs[:, 1] - logs[:, 0]
    low, high = bootstrap_mean(ratio, 1 - CHANCE, SEED)
    visible = detectable_change.detectable_mean(ratio, FIRST_STEP, math.log1p(MATTERS), SEED)
    before, after = np.exp(logs.mean(axis=0)).tolist()
    interval = (math.expm1(low), math.expm1(high))
    change = Change(metric, before, after, math.expm1(ratio.mean()), interval, 1.0, math.expm1(visible), len(ratio))
    return change, paired(ratio), sign_flips(ratio, SEED)


def _side_by_side(metric: Metric, sides: Sequence[Sequence[float]]) -> Tested:
    a, b = (np.array(side, float) for side in sides)
    before, after = float(a.mean()), float(b.mean())
    visible = detectable_change.detectable_change(a, b, FIRST_STEP, MATTERS, SEED)
    interval = bootstrap_change(a, b, 1 - CHANCE, SEED)
    change = Change(metric, before, after, float(b.mean() / a.mean() - 1), interval, 1.0, visible)
    return change, welch(a, b), permutation(a, b, SEED)


def _corrected(found: Sequence[Tested]) -> list[Change]:
    """The larger of the two p-values of each, after Holm's correction over the metrics."""
    changes, *tests = zip(*found, strict=True)
    p_values = zip(*(holm(p_values) for p_values in tests), strict=True)
    return [replace(change, p_value=max(both)) for change, both in zip(changes, p_values, strict=True)]


def status_of(found: Sequence[Change]) -> Status:
    """REGRESSION; else PASS when a change that matters would have been seen in p50, p95 and p99; else UNDECIDED."""
    if any(each.is_regression for each in found):
        return Status.REGRESSION
    latencies = found[:3]
    is_clear = all(latency.visible <= MUST_SEE or latency.is_sure for latency in latencies)
    return Status.PASS if is_clear else Status.UNDECIDED


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
        Status.UNDECIDED: "the runs differ too much among themselves; take more, in turns, on a quiet machine",
    }[status]
    how = f"{found[0].pairs} pairs of runs taken in turns" if found[0].pairs else "side against side"
    return "\n".join([f"{status.name}: {meaning} ({how})", "", *(f"  {line}" for line in summary.table(rows))])


def _check_distinct(runs: Sequence[Run]) -> None:
    """A run compared with itself shows no change, whatever changed."""
    seen: set[Path] = set()
    for run in runs:
        folder = run.folder.resolve()
        if folder in seen:
            raise UsageError(f"{run.folder} is named twice; expected each run once, on one side.")
        seen.add(folder)


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for key in ("profile", "mix", "env", "workers", "timeout_seconds", "repeat_share", "sources", "replay"):
            # What a run of an earlier release does not say, it did not have.
            if (run.plan.get(key) or None) != (first.plan.get(key) or None):
                raise UsageError(
                    f"{run.folder.name} and {first.folder.name} differ in {key}; only like runs are compared."
                )
        if unlike := fingerprint.unlike(first.plan["fingerprint"], run.plan["fingerprint"]):
            raise UsageError(f"{run.folder.name} and {first.folder.name} were not measured alike: {unlike[0]}.")
