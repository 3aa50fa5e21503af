"""Figures of several rounds in few: percentiles, medians with their span, ratios within a round. No clock, no files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One figure of one contender in one round. ``measure`` says what, with its unit: ``throughput_32_per_s``."""

    contender: str
    measure: str
    round: int
    value: float


@dataclass(frozen=True)
class Summary:
    """The median over the rounds and the span in which all lie; ``rounds`` is how many there were."""

    median: float
    low: float
    high: float
    rounds: int


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 … 1) of all do not exceed (nearest rank); NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summarise(values: Iterable[float]) -> Summary:
    """Median and span of what is a number; NaN where nothing is."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Summary(math.nan, math.nan, math.nan, 0)
    return Summary(statistics.median(known), min(known), max(known), len(known))


def by_round(samples: Iterable[Sample], contender: str, measure: str) -> dict[int, float]:
    """The values of one contender's measure by round."""
    return {each.round: each.value for each in samples if (each.contender, each.measure) == (contender, measure)}


def ratio(samples: Sequence[Sample], measure: str, contender: str, other: str) -> Summary:
    """How many times ``other``'s value ``contender`` has: the median of the ratios *within* each round.

    What slows the machine for a while slows both in that round, and so falls out of the ratio.
    """
    mine, theirs = by_round(samples, contender, measure), by_round(samples, other, measure)
    return summarise(mine[each] / theirs[each] for each in mine.keys() & theirs.keys() if theirs[each])


def measures(samples: Iterable[Sample]) -> list[str]:
    """Names of all measures, in the order in which they first appear."""
    return list(dict.fromkeys(each.measure for each in samples))


def contenders(samples: Iterable[Sample]) -> list[str]:
    """Names of all contenders, in the order in which they first appear."""
    return list(dict.fromkeys(each.contender for each in samples))
