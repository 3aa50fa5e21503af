"""The judgements on simulated servers whose truth is known: queues that break a SLO, soaks that do not drift."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from loadtest import search
from loadtest.batch_means import evidence
from loadtest.checks import Verdict
from loadtest.soak import WINDOWS, growth, is_fault
from loadtest.statistics import percentile
from loadtest.statuses import Status

UTILISATIONS = (0.8, 0.9, 0.95)
RUN_SECONDS = 60.0
WARM_UP_SECONDS = 5.0
# Runs as long as so many services, within bounds, tell the true share of late requests.
TRUTH_SERVICES = 400_000
TRUTH_SECONDS = (1000.0, 20_000.0)
ALLOWED = 0.05
# The true shares that break the SLO of 5 %: barely, and as plainly as in the fault that this is to find.
BROKEN = (0.055, 0.08)
SEED = 12
RUNS = 100
MOST_FALSE_PASSES = 0.05
MOST_FALSE_DRIFTS = 0.02
SOAK_SECONDS = 300.0
TRUE_RPS = 177.0
NEAR = 0.1


@dataclass(frozen=True)
class Finding:
    """What was looked for, and whether it was found."""

    name: str
    is_right: bool
    found: str
    expected: str


@dataclass(frozen=True)
class Queue:
    """Servers that each take a request in so many seconds, by chance (exponential) or always; arrivals by chance.

    It begins empty, as a run does after a rest.
    """

    servers: int
    service_seconds: float
    utilisation: float
    is_by_chance: bool = True

    @property
    def name(self) -> str:
        """In Kendall's notation, with what decides how long a run must be."""
        kind = "M/M" if self.is_by_chance else "M/D"
        return f"{kind}/{self.servers}, {self.service_seconds * 1000:g} ms, {self.utilisation:g} full"

    def responses_ms(self, rng: np.random.Generator, seconds: float) -> np.ndarray:
        """Response times of those who arrive after the warm-up, in order. By chance: for one server only."""
        until = seconds + WARM_UP_SECONDS
        rate = self.utilisation * self.servers / self.service_seconds
        arrivals = np.cumsum(rng.exponential(1 / rate, int(rate * until + 10 * (rate * until) ** 0.5 + 20)))
        arrivals = arrivals[arrivals < until]
        services = np.full(arrivals.size, self.service_seconds)
        if self.is_by_chance:
            services = rng.exponential(self.service_seconds, arrivals.size)
        responses = np.empty(arrivals.size)
        # Where all take equally long, every c-th request meets the same server (Lindley 1952, for each of them).
        for first in range(self.servers):
            came, took = arrivals[first :: self.servers], services[first :: self.servers]
            before = np.cumsum(took) - took
            responses[first :: self.servers] = np.maximum.accumulate(came - before) + before + took - came
        return np.asarray(responses[arrivals >= WARM_UP_SECONDS] * 1000)

    def limit_ms(self, rng: np.random.Generator, late: float) -> float:
        """The response time that this share of requests exceeds in the long run."""
        least, most = TRUTH_SECONDS
        seconds = min(most, max(least, TRUTH_SERVICES * self.service_seconds))
        return float(np.quantile(self.responses_ms(rng, seconds), 1 - late))


def queues() -> Iterator[Queue]:
    """Slow and quick ones, at each utilisation."""
    for utilisation in UTILISATIONS:
        yield Queue(1, 0.05, utilisation)
        yield Queue(1, 0.01, utilisation)
        yield Queue(1, 0.001, utilisation)
        yield Queue(2, 0.1, utilisation, is_by_chance=False)
        yield Queue(4, 0.01, utilisation, is_by_chance=False)


def false_passes(queue: Queue, broken: float, runs: int, seconds: float = RUN_SECONDS) -> float:
    """The share of runs that pass «at most 5 % late» though the true share is ``broken``."""
    rng = np.random.default_rng(SEED)
    limit_ms = queue.limit_ms(rng, broken)
    passed = 0
    for _ in range(runs):
        responses = queue.responses_ms(rng, seconds)
        passed += evidence(responses > limit_ms, responses, limit_ms, 0.95).bounds[1] <= ALLOWED
    return passed / runs


def queues_that_break_their_promise() -> Finding:
    """Of queues that are late more often than allowed, 80 to 95 % full, few runs of a minute pass."""
    found = {(queue.name, broken): false_passes(queue, broken, RUNS) for queue in queues() for broken in BROKEN}
    (name, broken), worst = max(found.items(), key=lambda item: item[1])
    told = f"at most {worst:.0%} pass ({name}, {broken:.1%} late)"
    return Finding("queues that are late too often", worst <= MOST_FALSE_PASSES, told, "at most 5 % of runs of 60 s")


def soaks_that_stay_the_same() -> Finding:
    """Stationary latencies are called growing in few soaks, one window without an answer or not."""
    rng, faults = np.random.default_rng(SEED), 0
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
