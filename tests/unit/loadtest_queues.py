"""Queues whose truth is known, simulated: does a verdict on them keep what it says of its confidence?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loadtest.batch_means import evidence

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
