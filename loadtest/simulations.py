"""The judgements on simulated servers whose truth is known: queues that break a promise, soaks that do not drift."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from loadtest import queues, search
from loadtest.checks import Verdict
from loadtest.findings import Finding
from loadtest.queues import Queue
from loadtest.soak import is_fault
from loadtest.statistics import percentile
from loadtest.statuses import Status
from loadtest.trend import WINDOWS, growth

RUNS = 100
MOST_FALSE_PASSES = 0.05
MOST_FALSE_DRIFTS = 0.02
SOAK_SECONDS = 300.0
TRUE_RPS = 177.0
NEAR = 0.1


def queues_that_break_their_promise() -> Finding:
    """Of queues that are late more often than allowed, 80 to 95 % full, few runs of a minute pass."""
    found = {
        (queue.name, broken): queues.false_passes(queue, broken, RUNS)
        for queue in queues.queues()
        for broken in queues.BROKEN
    }
    (name, broken), worst = max(found.items(), key=lambda item: item[1])
    told = f"at most {worst:.0%} pass ({name}, {broken:.1%} late)"
    return Finding("queues that are late too often", worst <= MOST_FALSE_PASSES, told, "at most 5 % of runs of 60 s")


def soaks_that_stay_the_same() -> Finding:
    """Stationary latencies are called growing in few soaks, one window without an answer or not."""
    rng, faults = np.random.default_rng(queues.SEED), 0
    kinds = [Queue(1, 0.05, 0.5), Queue(1, 0.01, 0.9), Queue(4, 0.01, 0.95, is_by_chance=False)]
    for queue in kinds:
        for _ in range(RUNS):
            parts = np.array_split(queue.responses_ms(rng, SOAK_SECONDS), WINDOWS)
            values = np.array([percentile(part, 0.99) for part in parts])
            values[rng.integers(WINDOWS)] = np.inf
            faults += is_fault(*growth(np.arange(float(WINDOWS)), values), 0.1)
    share = faults / (RUNS * len(kinds))
    return Finding("soaks that do not drift", share <= MOST_FALSE_DRIFTS, f"{share:.1%} fail", "at most 2 % fail")


def disturbed_searches() -> Finding:
    """A probe that fails or passes by chance, whichever it is, moves no capacity and needs few runs."""
    off, most = [], 0
    for status in (Status.FAIL, Status.PASS):
        for number in range(1, search.RUNS_MOST + 1):
            found = _search(number, status)
            most = max(most, len(found.steps))
            if found.status != Status.PASS or abs(found.capacity_rps / TRUE_RPS - 1) > NEAR:
                off.append(f"{status.name} at {number}: {found.capacity_rps:.0f}/s")
    told = ", ".join(off) or f"all near {TRUE_RPS:g}/s, at most {most} runs"
    return Finding("searches with a disturbed probe", not off, told, "within 10 %, at most 25 runs")


def _search(disturbed: int, status: Status) -> search.Search:
    count = itertools.count(1)

    def probe(rate: float, _: bool) -> Verdict:
        truth = Status.PASS if rate <= TRUE_RPS else Status.FAIL
        return Verdict(status if next(count) == disturbed else truth, [], {})

    return search.search(probe, 4, 4096)


ALL: tuple[Callable[[], Finding], ...] = (
    queues_that_break_their_promise,
    soaks_that_stay_the_same,
    disturbed_searches,
)
