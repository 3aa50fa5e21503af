"""Statistics that say how sure they are: binomial bounds, Welch, permutation, Holm, bootstrap. No clock, no files.

scipy computes them. It is imported where it is used: its import takes longer than a command that needs none of it, and
the processes that send load need none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Every rearrangement is counted up to this number of them; beyond it, this many random ones are drawn.
PERMUTATIONS_MOST = 5000
BOOTSTRAP_DRAWS = 4000


def percentile(values: np.ndarray, share: float) -> float:
    """The smallest value that at least ``share`` (0 … 1) of all do not exceed (nearest rank); NaN of none."""
    if values.size == 0:
        return math.nan
    rank = max(1, math.ceil(share * values.size - 1e-9))
    return float(np.partition(values, rank - 1)[rank - 1])


# ── one run: how large is the share really? ──────────────────────────────────────────────────────────────────────────


def share_bounds(count: float, total: float, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper bound of a share, each with this confidence (Clopper & Pearson 1934).

    ``total`` independent observations, which need not be a whole number: see batch_means.py.
    """
    from scipy.special import betaincinv

    if total <= 0:
        return 0.0, 1.0
    lower = 0.0 if count <= 0 else float(betaincinv(count, total - count + 1, 1 - confidence))
    upper = 1.0 if count >= total else float(betaincinv(count + 1, total - count, confidence))
    return lower, upper


def least_requests(share: float, confidence: float) -> int:
    """Number of requests, none of them late, that are needed to claim a percentile: 299 for p99 at 95 %."""
    return math.ceil(math.log(1 - confidence) / math.log(share))


# ── runs against runs: did it change? ────────────────────────────────────────────────────────────────────────────────


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p-value that the means of both samples are the same (Welch 1947); 1 where nothing varies or differs."""
    from scipy.stats import ttest_ind

    if np.ptp(a) == np.ptp(b) == 0:
        return float(a[0] == b[0])
    return float(ttest_ind(a, b, equal_var=False).pvalue)


def paired(differences: np.ndarray) -> float:
    """Two-sided p-value that the mean of the differences of pairs is 0 (Student 1908); 1 where none differs."""
    from scipy.stats import ttest_1samp

    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(ttest_1samp(differences, 0).pvalue)


def permutation(a: np.ndarray, b: np.ndarray, seed: int) -> float:
    """Two-sided p-value of the difference of means when the labels mean nothing; exact for up to 5 000 splits."""
    return _permuted((a, b), lambda x, y, axis: np.abs(np.mean(x, axis) - np.mean(y, axis)), "independent", seed)


def sign_flips(differences: np.ndarray, seed: int) -> float:
    """Two-sided p-value of their mean when signs mean nothing (Fisher 1935); exact for up to 12 pairs."""
    return _permuted((differences,), lambda x, axis: np.abs(np.mean(x, axis)), "samples", seed)


def _permuted(samples: Sequence[np.ndarray], statistic: Any, kind: str, seed: int) -> float:
    from scipy.stats import permutation_test

    options: dict[str, Any] = {"vectorized": True, "alternative": "greater", "n_resamples": PERMUTATIONS_MOST}
    found = permutation_test(samples, statistic, permutation_type=kind, rng=np.random.default_rng(seed), **options)
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that the chance of any false alarm stays that of one test (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for position, index in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        highest = max(highest, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def bootstrap_change(a: np.ndarray, b: np.ndarray, confidence: float, seed: int) -> tuple[float, float]:
    """Interval of mean(b) / mean(a) - 1, by drawing whole runs again (Efron 1979); the unit is a run."""
    return _bootstrapped((a, b), lambda x, y, axis: np.mean(y, axis) / np.mean(x, axis) - 1, confidence, seed)


def bootstrap_mean(values: np.ndarray, confidence: float, seed: int) -> tuple[float, float]:
    """Interval of the mean, by drawing the values again (Efron 1979)."""
    return _bootstrapped((values,), np.mean, confidence, seed)


def _bootstrapped(samples: Sequence[np.ndarray], statistic: Any, confidence: float, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    options: dict[str, Any] = {"method": "percentile", "vectorized": True, "n_resamples": BOOTSTRAP_DRAWS}
    found = bootstrap(
        samples, statistic, confidence_level=confidence, rng=np.random.default_rng(seed), **options
    ).confidence_interval
    return float(found.low), float(found.high)


def student_quantile(share: float, freedom: np.ndarray | float) -> np.ndarray:
    """The value that Student's t stays below with this chance, for each number of degrees of freedom."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(freedom, share))


def drift(moments: np.ndarray, values: np.ndarray) -> float:
    """How much the values grow from the first moment to the last, as a share of their median (Theil & Sen)."""
    from scipy.stats import theilslopes

    if values.size < 3:
        return 0.0
    return float(theilslopes(values, moments).slope * (moments[-1] - moments[0]) / np.median(values))


def chance_of_rise(values: np.ndarray) -> float:
    """One-sided p-value of Mann and Kendall: that the values rise so much when their order means nothing."""
    from scipy.stats import kendalltau

    if values.size < 3 or np.ptp(values) == 0:
        return 1.0
    return float(kendalltau(np.arange(values.size), values, alternative="greater").pvalue)
