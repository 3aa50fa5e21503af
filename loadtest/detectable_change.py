"""How large must a change be, to be found in 8 of 10 comparisons? Simulated, with the noise that was seen.

A formula for one test knows neither the second test, nor that a change must matter, nor that noise estimated from five
runs is itself uncertain. Each simulated comparison draws its noise anew (sample variance over chi-square), and says how
large a change it would just have found; the answer is the size that suffices for the wanted share of them.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from loadtest.statistics import student_quantile

POWER = 0.8
SIMULATIONS = 200
ORDERS_MOST = 1024
STEPS = 14


def detectable_change(a: np.ndarray, b: np.ndarray, chance: float, matters: float, seed: int) -> float:
    """The relative change of the mean that side against side shows with this power; infinite where none would.

    ``chance``: each p-value must be below it; ``matters``: smaller relative changes do not count.
    """
    rng = np.random.default_rng(seed)
    before, after = _drawn(rng, a), _drawn(rng, b)
    spread_a, spread_b = before.var(axis=1, ddof=1) / a.size, after.var(axis=1, ddof=1) / b.size
    freedom = (spread_a + spread_b) ** 2 / (
        spread_a**2 / (a.size - 1) + spread_b**2 / (b.size - 1) + np.finfo(float).tiny
    )
    by_chance = after.mean(axis=1) - before.mean(axis=1)
    needed = student_quantile(1 - chance / 2, np.maximum(1, freedom)) * np.sqrt(spread_a + spread_b) - by_chance
    sides = np.where(np.arange(a.size + b.size) < a.size, -1 / a.size, 1 / b.size)
    weights = np.where(_orders(a.size, a.size + b.size) > 0, -1 / a.size, 1 / b.size)
    pooled, shift = np.concatenate([before, after], axis=1), (sides > 0).astype(float)
    mean = abs(float(a.mean())) or math.inf
    least = np.maximum(needed, matters * mean - by_chance)
    return _size(_permuted(pooled, shift, sides, weights, chance, least)) / mean


def detectable_mean(differences: np.ndarray, chance: float, matters: float, seed: int) -> float:
    """The mean of the differences of pairs that so many pairs show with this power; infinite where none would."""
    drawn = _drawn(np.random.default_rng(seed), differences)
    count, by_chance = differences.size, drawn.mean(axis=1)
    needed = float(student_quantile(1 - chance / 2, count - 1.0)) * drawn.std(axis=1, ddof=1) / math.sqrt(count)
    least = np.maximum(needed, matters) - by_chance
    ones = np.full(count, 1 / count)
    return _size(_permuted(drawn, np.ones(count), ones, _signs(count) / count, chance, least))


def _drawn(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """So many comparisons' runs around 0; the noise of each is one that explains what was seen."""
    freedom = values.size - 1
    noise = float(values.std(ddof=1)) * np.sqrt(freedom / rng.chisquare(freedom, SIMULATIONS))
    return np.asarray(rng.normal(0, 1, (SIMULATIONS, values.size)) * noise[:, None])


def _permuted(
    values: np.ndarray, shift: np.ndarray, sides: np.ndarray, weights: np.ndarray, chance: float, least: np.ndarray
) -> np.ndarray:
    """Of each simulation the smallest change from ``least`` on that the permutation test finds, too."""
    # Not by matmul: for tables so small, the threads of BLAS cost more than they save.
    ours, others = np.einsum("ij,j->i", values, sides), np.einsum("ij,kj->ik", values, weights)
    ours_shifted, others_shifted = float(shift @ sides), weights @ shift

    def finds(change: np.ndarray) -> np.ndarray:
        observed = ours + change * ours_shifted
        as_extreme = np.abs(others + change[:, None] * others_shifted) >= np.abs(observed)[:, None] - 1e-12
        return np.asarray(as_extreme.mean(axis=1) < chance)

    spread = max(float(np.abs(values).max()), 1e-12) * 100
    low, high = least, least + spread
    never = ~finds(high)
    found_at_once = finds(least)
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = finds(middle)
        low, high = np.where(found, low, middle), np.where(found, middle, high)
    return np.where(found_at_once, least, np.where(never, math.inf, high))


def _size(changes: np.ndarray) -> float:
    return max(0.0, float(np.sort(changes)[math.ceil(POWER * changes.size) - 1]))


@functools.cache
def _orders(first: int, total: int) -> np.ndarray:
    """Which of all runs are the first side: every split, or so many by chance and the true one; 1 or 0."""
    if math.comb(total, first) <= ORDERS_MOST:
        splits = list(itertools.combinations(range(total), first))
    else:
        rng = np.random.default_rng(0)
        splits = [tuple(range(first)), *(tuple(rng.permutation(total)[:first]) for _ in range(ORDERS_MOST))]
    table = np.zeros((len(splits), total))
    for row, split in enumerate(splits):
        table[row, list(split)] = 1
    return table


@functools.cache
def _signs(count: int) -> np.ndarray:
    if 2**count <= ORDERS_MOST:
        return np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    drawn = np.random.default_rng(0).choice((1.0, -1.0), (ORDERS_MOST, count))
    return np.concatenate([np.ones((1, count)), drawn])
