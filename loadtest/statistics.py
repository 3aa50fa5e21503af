"""Figures that know how sure they are: binomial bounds, Welch, permutation, Holm, bootstrap. No clock, no files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

SERIES_STEPS = 500
SERIES_PRECISION = 3e-14
BISECTIONS = 60
# Up to here every split is looked at; beyond it, so many by chance.
MOST_SPLITS = 5000


def percentile(values: np.ndarray, share: float) -> float:
    """The smallest value that at least ``share`` (0 … 1) of all do not exceed (nearest rank); NaN of none."""
    if values.size == 0:
        return math.nan
    rank = max(1, math.ceil(share * values.size - 1e-9))
    return float(np.partition(values, rank - 1)[rank - 1])


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (DLMF 8.17.22)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, SERIES_STEPS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _apart(1 + numerator * d, tiny)
            c = _apart(1 + numerator / c, tiny)
            value *= c * d
        if abs(c * d - 1) < SERIES_PRECISION:
            break
    return value


def _apart(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


# ── one run: how large is the share really? ──────────────────────────────────────────────────────────────────────────


def share_bounds(count: float, total: float, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper bound of a share, each with this confidence (Clopper & Pearson 1934).

    ``total`` independent observations, whole or in parts: see blocks.py.
    """
    if total <= 0:
        return 0.0, 1.0
    chance = 1 - confidence
    lower = 0.0 if count <= 0 else _solve(lambda p: incomplete_beta(count, total - count + 1, p), chance)
    upper = 1.0 if count >= total else _solve(lambda p: incomplete_beta(count + 1, total - count, p), confidence)
    return lower, upper


def _solve(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def least_requests(share: float, confidence: float) -> int:
    """So many requests, none of them late, are needed to claim a percentile: 299 for p99 at 95 %, 459 at 99 %."""
    return math.ceil(math.log(1 - confidence) / math.log(share))


# ── runs against runs: did it change? ────────────────────────────────────────────────────────────────────────────────


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value that the means of both samples are the same (Welch 1947); 1 where nothing varies or differs."""
    spread_a, spread_b = np.var(a, ddof=1) / a.size, np.var(b, ddof=1) / b.size
    spread = spread_a + spread_b
    if spread == 0:
        return 1.0 if np.mean(a) == np.mean(b) else 0.0
    t = float((np.mean(b) - np.mean(a)) / math.sqrt(spread))
    freedom = float(spread**2 / (spread_a**2 / (a.size - 1) + spread_b**2 / (b.size - 1)))
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def permutation(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    """Two-sided p-value of the difference of means when the labels mean nothing; exact for up to 5 000 splits."""
    pooled = np.concatenate([a, b])
    observed = abs(float(np.mean(b) - np.mean(a))) - 1e-12
    is_exact = math.comb(pooled.size, a.size) <= MOST_SPLITS
    if is_exact:
        splits = np.array(list(itertools.combinations(range(pooled.size), a.size)))
    else:
        rng = np.random.default_rng(seed)
        splits = np.array([rng.permutation(pooled.size)[: a.size] for _ in range(MOST_SPLITS)])
    sums = pooled[splits].sum(axis=1)
    differences = np.abs((pooled.sum() - sums) / b.size - sums / a.size)
    return _share(differences >= observed, is_exact)


def paired(differences: np.ndarray) -> float:
    """Two-sided p-value that differences of pairs are 0 on average (Student 1908); 1 where none differs."""
    spread = float(np.std(differences, ddof=1)) / math.sqrt(differences.size)
    if spread == 0:
        return 1.0 if np.mean(differences) == 0 else 0.0
    t, freedom = float(np.mean(differences)) / spread, differences.size - 1
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def sign_flips(differences: np.ndarray, seed: int) -> float:
    """Two-sided p-value of their mean when signs mean nothing (Fisher 1935); exact for up to 12 pairs."""
    observed = abs(float(differences.sum())) - 1e-12
    is_exact = 2**differences.size <= MOST_SPLITS
    if is_exact:
        signs = np.array(list(itertools.product((1, -1), repeat=differences.size)))
    else:
        signs = np.random.default_rng(seed).choice((1, -1), (MOST_SPLITS, differences.size))
    return _share(np.abs(signs @ differences) >= observed, is_exact)


def _share(are_as_extreme: np.ndarray, is_exact: bool) -> float:
    """A p-value: of all orders, or of some by chance and the one that was seen, so that it is never 0."""
    if is_exact:
        return float(np.mean(are_as_extreme))
    return float((np.sum(are_as_extreme) + 1) / (are_as_extreme.size + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, made larger so that together they err no oftener than one (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        highest = max(highest, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def bootstrap_change(
    a: np.ndarray, b: np.ndarray, confidence: float, seed: int, draws: int = 4000
) -> tuple[float, float]:
    """Interval of mean(b) / mean(a) - 1, by drawing whole runs again (Efron 1979); the unit is a run."""
    rng = np.random.default_rng(seed)
    means_a = a[rng.integers(0, a.size, (draws, a.size))].mean(axis=1)
    means_b = b[rng.integers(0, b.size, (draws, b.size))].mean(axis=1)
    low, high = np.quantile(means_b / means_a - 1, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_mean(values: np.ndarray, confidence: float, seed: int, draws: int = 4000) -> tuple[float, float]:
    """Interval of the mean, by drawing the values again (Efron 1979)."""
    means = values[np.random.default_rng(seed).integers(0, values.size, (draws, values.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def student_quantile(share: float, freedom: float) -> float:
    """The value that Student's t stays below with this chance, for 0.5 ≤ share < 1."""
    low, high = 0.0, 1.0
    while student_below(high, freedom) < share:
        high *= 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if student_below(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def student_below(value: float, freedom: float) -> float:
    """The chance that Student's t stays below a value, which is 0 or more."""
    return 1 - incomplete_beta(freedom / 2, 0.5, freedom / (freedom + value * value)) / 2


def drift(moments: np.ndarray, values: np.ndarray) -> float:
    """How much the values grow from the first moment to the last, as a share of their median (Theil & Sen)."""
    if values.size < 3:
        return 0.0
    first, second = np.triu_indices(values.size, 1)
    slope = np.median((values[second] - values[first]) / (moments[second] - moments[first]))
    return float(slope * (moments[-1] - moments[0]) / np.median(values))
