"""How many independent observations are in a run? Blocks of time, because requests that queue share their fate.

Two requests that waited in one queue are late together, so 1 000 of them may say no more than 20 independent ones.
The requests of a run, in the order of their intended start, are merged into blocks of 1, 2, 4 … of them. While the
means of neighbouring blocks are correlated, the blocks are too short; the variance of the longest blocks says how many
requests stand for one independent observation (batch means: Law and Carson 1979, Flyvbjerg and Petersen 1989).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.schedule import Stage
from loadtest.statistics import share_bounds

# Of fewer blocks than these, a variance and a correlation say nothing.
BLOCKS_LEAST = 8
BLOCKS_LEAST_FOR_CORRELATION = 16
# Standard errors from which a correlation of neighbours is no chance, for any of some ten block lengths.
CORRELATED_FROM = 3.2
# A variance of few long blocks is too small by up to a half where they still are correlated (see the self-test).
CAUTION = 2.0
# Differences of response time below this share of the limit are no sign of a queue.
RESOLUTION = 1 / 20
INDEPENDENT_LEAST = 2.0
# A ramp is judged in so many pieces, each against its own mean: that it climbs is the plan's doing.
PIECES = 5
LONGER_MOST = 1000.0
SEED = 20261129


@dataclass(frozen=True)
class Evidence:
    """A share that was seen: ``count`` of ``total``, worth ``independent`` observations, and its bounds."""

    count: int
    total: int
    independent: float
    confidence: float

    @property
    def share(self) -> float:
        """The share that was seen, 0 … 1."""
        return self.count / self.total if self.total else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """One-sided lower and upper bound of the true share, each with the confidence."""
        return share_bounds(self.share * self.independent, self.independent, self.confidence)

    def longer(self, allowed: float) -> float:
        """So many times as long a run decides about ``allowed``, if its share is this one; infinite where none does."""
        factor = 1.0
        while factor < LONGER_MOST:
            factor *= 1.25
            total = self.independent * factor
            lower, upper = share_bounds(self.share * total, total, self.confidence)
            if upper <= allowed or lower > allowed:
                return factor
        return math.inf

    def words(self, what: str) -> str:
        """What was seen and how sure it is, for the column «how sure»."""
        lower, upper = self.bounds
        worth = "" if self.independent >= 0.99 * self.total else f" (worth {self.independent:.0f} independent ones)"
        return f"{self.count} of {self.total} {what}{worth}: {lower:.2%} … {upper:.2%} at {self.confidence:.0%}"


def evidence(
    happened: np.ndarray, responses: np.ndarray, limit_ms: float, confidence: float, strata: np.ndarray | None = None
) -> Evidence:
    """What a run says about the share of requests to which something happened (true in ``happened``).

    ``responses`` in milliseconds tell of the queue even where nothing happened; times beyond ``limit_ms`` are alike.
    ``strata``: a number for each request; only differences within one count as chance.
    """
    lengths = [_length(happened.astype(float), strata), _length(_ranks(responses, limit_ms), strata)]
    longest = max(lengths)
    independent = happened.size if longest <= 1 else max(INDEPENDENT_LEAST, happened.size / longest / CAUTION)
    return Evidence(int(np.sum(happened)), int(happened.size), float(independent), confidence)


def strata_of(stages: Sequence[Stage], intended: np.ndarray) -> np.ndarray | None:
    """A number for each moment: its stage, or its piece of a ramp; None where the rate never changes."""
    rates = {rate for stage in stages for rate in (stage.from_rate, stage.to_rate)}
    if len(rates) <= 1:
        return None
    edges, began = [], 0.0
    for stage in stages:
        pieces = 1 if stage.from_rate == stage.to_rate else PIECES
        edges += [began + stage.seconds * (piece + 1) / pieces for piece in range(pieces)]
        began += stage.seconds
    return np.searchsorted(np.array(edges[:-1]), intended, side="right")


def _ranks(responses: np.ndarray, limit_ms: float) -> np.ndarray:
    """Ranks of the response times, so that one huge value weighs no more than another.

    A little chance is added first: it drowns what wanders by less than the resolution, a processor's speed perhaps.
    """
    blur = np.random.default_rng(SEED).uniform(0, limit_ms * RESOLUTION, responses.size)
    ranks = np.empty(responses.size)
    ranks[np.argsort(np.minimum(responses, limit_ms * 1.0001) + blur)] = np.arange(responses.size)
    return ranks


def _length(values: np.ndarray, strata: np.ndarray | None) -> float:
    """How many requests stand for one independent observation; 1 where neighbours are not correlated."""
    if strata is not None:
        _, places = np.unique(strata, return_inverse=True)
        values = values - (np.bincount(places, values) / np.bincount(places))[places]
    spread = float(values.var()) if values.size else 0.0
    if spread < 1e-12:
        return 1.0
    longest, is_correlated, size = 1.0, False, 1
    while values.size // size >= BLOCKS_LEAST:
        count = values.size // size
        means = values[: count * size].reshape(count, size).mean(axis=1)
        is_correlated |= count >= BLOCKS_LEAST_FOR_CORRELATION and correlation(means) > CORRELATED_FROM / count**0.5
        longest = max(longest, size * float(means.var(ddof=1)) / spread)
        size *= 2
    return longest if is_correlated else 1.0


def correlation(values: np.ndarray) -> float:
    """Of neighbours, −1 … 1; 0 where nothing varies."""
    around = values - values.mean()
    spread = float(np.sum(around**2))
    return float(np.sum(around[1:] * around[:-1])) / spread if spread > 1e-12 else 0.0
