"""Does something grow during a run? A slope that a few odd windows cannot bend, and a test that it is no chance."""

from __future__ import annotations

import itertools
import math

import numpy as np

from loadtest.blocks import correlation
from loadtest.statistics import drift

WINDOWS = 20
WINDOWS_LEAST = 5
# Correlation of what is left of neighbouring windows when the slope is taken out; beyond it they are merged.
CORRELATED_FROM = 0.2
ENUMERATED = 6


def growth(moments: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """How much the values grow from first to last, as a share of their median, and the chance of that without growth.

    ``values``: of windows in order of time; one may be infinite or NaN (nothing was answered, or nothing was there).
    Windows whose remainders are correlated are merged in pairs first (Theil 1950, Sen 1968, Mann 1945).
    """
    there = ~np.isnan(values)
    moments, values = moments[there], values[there]
    if not np.isfinite(values).any():
        return 0.0, 1.0
    # As much as the highest: the slope is a median, so that one window decides nothing either way.
    values = np.minimum(values, values[np.isfinite(values)].max())
    while values.size >= 2 * WINDOWS_LEAST and correlation(_remainders(moments, values)) > CORRELATED_FROM:
        moments, values = _merged(moments), _merged(values)
    return drift(moments, values), chance_of_rise(values)


def _remainders(moments: np.ndarray, values: np.ndarray) -> np.ndarray:
    slope = drift(moments, values) * float(np.median(values)) / (moments[-1] - moments[0])
    return np.asarray(values - slope * (moments - moments[0]))


def _merged(values: np.ndarray) -> np.ndarray:
    return values[: values.size // 2 * 2].reshape(-1, 2).mean(axis=1)


def chance_of_rise(values: np.ndarray) -> float:
    """One-sided p-value of Mann and Kendall: that the values rise so much when their order means nothing."""
    if values.size < 3:
        return 1.0
    score = _concordance(values)
    if values.size <= ENUMERATED:
        orders = [_concordance(np.array(order)) for order in itertools.permutations(values)]
        return float(np.mean(np.array(orders) >= score))
    size = values.size
    _, ties = np.unique(values, return_counts=True)
    variance = (size * (size - 1) * (2 * size + 5) - float(np.sum(ties * (ties - 1) * (2 * ties + 5)))) / 18
    return math.erfc((score - 1) / math.sqrt(2 * variance)) / 2 if variance > 0 and score > 0 else 1.0


def _concordance(values: np.ndarray) -> float:
    first, second = np.triu_indices(values.size, 1)
    return float(np.sum(np.sign(values[second] - values[first])))
